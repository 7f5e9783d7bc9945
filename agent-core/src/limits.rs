//! Every limit of the core: its unit, its value, why, and what happens beyond it.

/// Bytes of a request, without the white space between its tokens, that [`Session::new`](crate::Session::new) is
/// usually lent: the largest that hosts send are file writes of 80 KiB (Proxmox VE) and lists of SSH keys.
/// Beyond: the request is read to its end and refused with one error; the next one works.
pub const REQUEST_BYTES: usize = 256 * 1024;

/// The smallest request buffer that is any use: all commands without bulk data fit.
pub const REQUEST_BYTES_MIN: usize = 1024;

/// Bytes of replies held in memory. Beyond: the reply goes to the [`Spool`](crate::Spool).
pub const REPLY_BYTES: usize = 16 * 1024;

/// Open brackets and braces: as many as the reference allows. Beyond: the request is refused.
pub const DEPTH: usize = 1024;

/// Bytes that may be looked at to find duplicate keys, all keys of a request together: each key is compared with those
/// behind it, which takes time that grows with the square of their number. 16 MiB take some hundredths of a second,
/// and are enough for a thousand members in one object, or for a few around the largest value. Beyond: the request is
/// refused.
pub const KEY_SEARCH_BYTES: usize = 16 * 1024 * 1024;

/// Bytes of a damaged token that are shown in its error, from the front. Beyond: the rest is left out.
pub const SHOWN_TOKEN_BYTES: usize = 40;

/// Bytes that one `guest-file-read` may ask for, as in the reference. Beyond: the request is refused. What the spool
/// cannot hold of them is left for the next read.
pub const FILE_READ_BYTES: usize = 48 * 1024 * 1024;

/// Arguments of one command. Beyond: a command could not tell its own arguments from unexpected ones, so its
/// tests would fail.
pub const ARGUMENTS: usize = 8;
