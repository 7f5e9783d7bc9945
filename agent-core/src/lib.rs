//! The QEMU guest agent protocol, and nothing else.
//!
//! Bytes from the host go in, bytes for the host come out. What a command does to the guest happens behind the
//! traits of [`guest`]: this crate knows no file descriptor, no clock and no system call, allocates nothing, keeps
//! nothing global and cannot panic. So it runs unchanged under a test, a fuzzer and the real agent.
//!
//! The way of a request through the files, in reading order:
//!
//! 1. [`session`]: one [`Session`] a channel. It takes bytes, hands out replies, and holds what lies between.
//! 2. [`frame`]: finds where a request ends and what is damaged about it, a byte at a time; 0xFF resets it.
//! 3. [`request`]: reads a complete request in place: its members, its arguments by name, its `id`.
//! 4. [`agent`]: one [`Agent`] a guest. Checks a request in the order the protocol wants and runs its command.
//! 5. [`commands`]: the table, and the commands by domain.
//! 6. [`reply`]: writes the answer; nothing leaves before it is complete.
//! 7. [`error`]: everything that can be wrong, and the English for it.
//!
//! [`limits`] is the whole story of memory; `text`, `number` and `base64` are what their names say, [`packed`]
//! keeps sentences small.
//!
//! The protocol is described in QEMU's `docs/interop/qemu-ga-ref` and, for the wire, in RFC 8259 (JSON) with these
//! extensions: strings may stand in single quotes, and the byte 0xFF between requests flushes the parser.
#![no_std]
#![forbid(unsafe_code)]

pub mod agent;
pub mod base64;
pub mod commands;
pub mod error;
pub mod frame;
pub mod guest;
pub mod limits;
pub mod number;
pub mod packed;
pub mod reply;
pub mod request;
pub mod session;
mod text;

pub use agent::Agent;
pub use commands::VERSION;
pub use reply::Spool;
pub use session::{Fed, Session};
