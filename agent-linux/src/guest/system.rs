//! What the guest is: uname(2), os-release(5), utmp(5) and sysinfo(2).

use agent_core::guest::{OsFact, System, User};
use rustix::fs::{CWD, OFlags};
use rustix::system::{sysinfo, uname};

use super::{LinuxGuest, os_release, utmp};
use crate::memory::give_back;
use crate::sys;

impl System for LinuxGuest {
    fn os_info(&mut self, each: &mut dyn FnMut(OsFact, &[u8])) {
        let kernel = uname();
        each(OsFact::KernelRelease, kernel.release().to_bytes());
        each(OsFact::KernelVersion, kernel.version().to_bytes());
        each(OsFact::Machine, kernel.machine().to_bytes());
        let (first, second) = match self.variable(b"QGA_OS_RELEASE") {
            Some(file) => (file, file),
            None => (c"/etc/os-release", c"/usr/lib/os-release"),
        };
        let [line_end, room @ ..] = &mut self.buffers.0;
        *line_end = b'\n';
        let mut len = sys::read_file(first, room);
        if len == 0 {
            len = sys::read_file(second, room);
        }
        let text = self.buffers.0.get_mut(..=len).unwrap_or_default();
        os_release::parse(text, each);
        give_back(&mut self.buffers.0);
    }

    fn host_name(&mut self, show: &mut dyn FnMut(&[u8])) {
        show(uname().nodename().to_bytes());
    }

    fn users(&mut self, each: &mut dyn FnMut(User<'_>)) {
        let file = sys::open(CWD, c"/var/run/utmp", OFlags::RDONLY);
        if let Ok(file) = file.or_else(|_| sys::open(CWD, c"/run/utmp", OFlags::RDONLY)) {
            utmp::users(&file, &mut self.buffers.0, each);
            give_back(&mut self.buffers.0);
        }
    }

    fn load(&mut self) -> [u64; 3] {
        // The kernel's own scale is that of the seam: SI_LOAD_SHIFT, linux/sysinfo.h.
        sysinfo().loads.map(u64::from)
    }
}
