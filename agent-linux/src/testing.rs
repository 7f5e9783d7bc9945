//! Tests that need a process or a network of their own run this test program once more.
//!
//! They come in pairs: `inside_…`, which is ignored, and a namesake that runs it by one of these functions.

use core::cell::RefCell;
use core::ffi::CStr;
use std::ffi::CString;
use std::process::Command;
use std::string::String;

std::thread_local! {
    /// What stands before absolute paths in this thread.
    static ROOT: RefCell<String> = const { RefCell::new(String::new()) };
}

/// What this thread opens by an absolute path is below this folder from now on.
pub(crate) fn set_root(folder: &str) {
    ROOT.set(folder.into());
}

/// Where a path leads in this thread.
pub(crate) fn below_root(path: &CStr) -> CString {
    let mut whole = std::vec::Vec::new();
    if path.to_bytes().starts_with(b"/") {
        ROOT.with_borrow(|root| whole.extend(root.as_bytes()));
    }
    whole.extend(path.to_bytes());
    CString::new(whole).unwrap()
}

/// The environment variable that tells `inside_…` that it may.
const MARK: &str = "NANOGA_TEST_ALONE";

/// To be called first by every `inside_…`: `cargo test -- --ignored` must not change the network of a machine.
pub(crate) fn must_be_alone() {
    assert!(std::env::var_os(MARK).is_some(), "run by its namesake only");
}

/// Runs the ignored test in a process of its own.
pub(crate) fn alone(test: &str) {
    run(Command::new(std::env::current_exe().unwrap()), test);
}

/// Runs the ignored test in a network namespace of its own, without root in a user namespace of its own too.
pub(crate) fn in_a_network_namespace(test: &str) {
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.arg("--net").arg(std::env::current_exe().unwrap());
    run(command, test);
}

fn run(mut command: Command, test: &str) {
    let output = command.args(["--ignored", "--exact", "--nocapture", test]).env(MARK, "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
}
