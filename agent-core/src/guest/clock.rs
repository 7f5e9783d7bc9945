//! The time of day.

/// The time of day.
pub trait Clock {
    /// Nanoseconds since 1970, UTC.
    fn now_ns(&mut self) -> i64;
}
