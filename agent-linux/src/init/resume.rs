//! Waking up from a sleep to disk: the image lies on the device that `resume=` names
//! (kernel documentation, power/swsusp.rst).
//!
//! A kernel whose drivers are modules cannot look there by itself. If there is an image, what runs here ends in the
//! middle of a write, and what was put to sleep goes on.

use core::ffi::CStr;

use super::devices::Devices;
use super::text::write_file;
use crate::log::say_of;
use crate::sys::{self, PATH, join};
use agent_core::packed;

/// Takes over from the image on this device, if there is one.
#[inline(never)]
pub(super) fn resume(device: &CStr, devices: &Devices) {
    let mut number = device.to_bytes();
    let mut text = [0; 32];
    // Other spellings (`253:0`, `PARTUUID=…`) are the kernel's business.
    if let Some(name) = number.strip_prefix(b"/dev/") {
        let mut space = [0; PATH];
        let path = join(&mut space, &[b"/sys/class/block/", name, b"/dev"]);
        let mut length = 0;
        if !devices.wait_for(number, &mut || {
            length = sys::read_file(path, &mut text);
            length != 0
        }) {
            return;
        }
        number = text.get(..length).unwrap_or_default();
    }
    if !write_file(c"/sys/power/resume", number) {
        say_of(packed!("the kernel cannot resume from %"), device.to_bytes());
    }
}
