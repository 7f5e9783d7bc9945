//! The time of day.

/// The time of day.
pub trait Clock {
    /// Nanoseconds since 1970, UTC.
    fn now_ns(&mut self) -> i64;

    /// Tells the zone that people in the guest read the time in: what they call it now, and seconds east of UTC.
    fn timezone(&mut self, show: &mut dyn FnMut(&[u8], i64));
}
