//! The bounded leaf types of the QAPI schema (qga/qapi-schema.json), as serde writes them.
//!
//! What has no bound, such as a list of interfaces, is written item by item with [`Reply`](crate::reply::Reply).

use serde::Serialize;

use crate::guest::Statistics;

/// `GuestAgentCommandInfo`
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct CommandInfo {
    pub(crate) name: &'static str,
    pub(crate) enabled: bool,
    pub(crate) success_response: bool,
}

/// `GuestIpAddress`
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct IpAddress<'a> {
    pub(crate) ip_address: &'a str,
    pub(crate) ip_address_type: IpAddressType,
    pub(crate) prefix: u8,
}

/// `GuestIpAddressType`
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum IpAddressType {
    Ipv4,
    Ipv6,
}

/// `GuestNetworkInterfaceStat`
#[derive(Serialize)]
#[serde(remote = "Statistics", rename_all = "kebab-case")]
pub(crate) struct InterfaceStat {
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
pub(crate) struct AsInterfaceStat(#[serde(with = "InterfaceStat")] pub(crate) Statistics);
