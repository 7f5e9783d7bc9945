//! The time of day.

use super::Errno;

/// Which step of setting the clock failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockError {
    /// Setting the clock of the system.
    Set(Errno),
    /// Setting the hardware clock to the same, after that.
    SetHardware(Errno),
    /// Setting the clock of the system to what the hardware clock shows.
    SetByHardware(Errno),
}

/// The time of day.
pub trait Clock {
    /// Nanoseconds since 1970, UTC.
    fn now_ns(&mut self) -> i64;

    /// Makes it this time, also on the hardware clock if there is one. Never before 1970.
    fn set(&mut self, now_ns: i64) -> Result<(), ClockError>;

    /// Makes it the time of the hardware clock.
    fn set_by_hardware(&mut self) -> Result<(), ClockError>;

    /// Tells the zone that people in the guest read the time in: what they call it now, and seconds east of UTC.
    fn timezone(&mut self, show: &mut dyn FnMut(&[u8], i32));
}
