//! Shared by the tests and the fuzz targets.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    dead_code,
    reason = "a test says what went wrong by panicking; a fuzz target tries one of the claims"
)]

pub mod claims;
