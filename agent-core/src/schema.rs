//! The bounded leaf types of the QAPI schema (qga/qapi-schema.json), as serde writes them.
//!
//! What has no bound, such as a list of interfaces, is written item by item with [`Reply`](crate::reply::Reply).

use serde::Serialize;

use crate::guest::Statistics;

/// `GuestNetworkInterfaceStat`, which is [`Statistics`] by other names.
#[derive(Serialize)]
#[serde(remote = "Statistics", rename_all = "kebab-case")]
struct Stat {
    rx_bytes: u64,
    rx_packets: u64,
    rx_errs: u64,
    rx_dropped: u64,
    tx_bytes: u64,
    tx_packets: u64,
    tx_errs: u64,
    tx_dropped: u64,
}

/// Wraps [`Statistics`] so that it is written as `GuestNetworkInterfaceStat`.
#[derive(Serialize)]
#[serde(transparent)]
pub(crate) struct NetworkInterfaceStat(#[serde(with = "Stat")] pub(crate) Statistics);
