//! What a panic does: the agent starts anew.
//!
//! No panic is known to be reachable (`cargo xtask panics`), but the agent may be PID 1, and then its end is the
//! guest's. So the program is executed once more, by the link that leads to the very file that runs, whatever may stand
//! in its place by now. That link is its name from then on, which tells a first process that its program may run;
//! nobody is told how that ends then. A message would cost five kilobytes of formatting: there is none.

#![allow(unsafe_code, reason = "one mutable static, written before anything can panic")]

use core::panic::PanicInfo;

use agent_linux::guest::freeze::rescue;
use agent_linux::sys::{self, Strings};
use rustix::thread::{Timespec, nanosleep};

/// The exit status of a program that abort(3) ended, as a shell reports it: where a new start is impossible.
const ABORTED: u8 = 134;

/// Not faster than this: what panics at once must not burn a processor.
const PAUSE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// What it takes to start anew.
struct Restart {
    arguments: Strings<'static>,
    environment: Strings<'static>,
}

/// Written once by [`prepare`], read by the handler.
static mut RESTART: Option<Restart> = None;

/// Remembers how this program was started. To be called once, first of all.
pub(crate) fn prepare(arguments: Strings<'static>, environment: Strings<'static>) {
    let restart = Some(Restart { arguments, environment });
    // SAFETY: there is one thread and nobody has a reference yet.
    unsafe { (&raw mut RESTART).write(restart) };
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    let restart = &raw const RESTART;
    // SAFETY: there is one thread, and nothing is written any more after `prepare`.
    if let Some(restart) = unsafe { &*restart }
        // A forked worker only ends.
        && !sys::is_copy()
    {
        rescue();
        let _ = nanosleep(&PAUSE);
        // SAFETY: arrays of strings by their types, on a stack that the kernel has made writable; nobody reads them any
        // more but the kernel.
        unsafe {
            let arguments = restart.arguments.array();
            if !(*arguments).is_null() {
                arguments.cast_mut().write(sys::ITSELF.as_ptr());
            }
            sys::execve_words(sys::ITSELF, arguments, restart.environment.array())
        };
    }
    sys::exit(ABORTED)
}
