//! Strings as the kernel hands them over and takes them: ended by a NUL, in arrays ended by NULL; and paths made of
//! parts.
//!
//! It knows no system call, and does not care what is in them.

use core::ffi::{CStr, c_char};
use core::marker::PhantomData;
use core::ptr;

/// A NULL-terminated array of C strings, as `execve(2)` takes and `_start` finds it.
#[derive(Clone, Copy)]
pub struct Strings<'a> {
    next: *const *const c_char,
    strings: PhantomData<&'a CStr>,
}

impl<'a> Strings<'a> {
    /// No string at all.
    pub const NONE: Self = Self { next: [ptr::null()].as_ptr(), strings: PhantomData };

    /// The strings from `first` up to the NULL.
    ///
    /// # Safety
    ///
    /// `first` must point to such an array, and it and its strings must live unchanged for `'a`.
    #[inline]
    pub unsafe fn new(first: *const *const c_char) -> Self {
        Self { next: first, strings: PhantomData }
    }

    /// The value of the variable of this name, if they are an environment.
    #[inline(never)]
    pub fn value(mut self, name: &[u8]) -> Option<&'a CStr> {
        self.find_map(|string| match string.to_bytes().strip_prefix(name) {
            Some([b'=', ..]) => Some(tail(string, name.len().wrapping_add(1))),
            _ => None,
        })
    }

    /// The array.
    pub fn array(self) -> *const *const c_char {
        self.next
    }
}

impl<'a> Iterator for Strings<'a> {
    type Item = &'a CStr;

    fn next(&mut self) -> Option<&'a CStr> {
        // SAFETY: `new` was promised an array that ends in NULL, and `next` never moves beyond that.
        let string = unsafe { *self.next };
        if string.is_null() {
            return None;
        }
        self.next = self.next.wrapping_add(1);
        // SAFETY: `new` was promised C strings that live for 'a.
        Some(unsafe { CStr::from_ptr(string) })
    }
}

/// A string without its first bytes; empty if it has no more.
pub fn tail(string: &CStr, from: usize) -> &CStr {
    let from = from.min(string.to_bytes().len());
    // SAFETY: the rest of a C string is one, and this begins at its NUL at the latest.
    unsafe { CStr::from_ptr(string.as_ptr().wrapping_add(from)) }
}

/// Bytes of the longest path that [`join`] makes, with its NUL.
pub const PATH: usize = 256;

/// The path of these parts, one behind the other. One that is too long becomes empty, which names nothing.
#[inline(never)]
pub fn join<'b>(space: &'b mut [u8], parts: &[&[u8]]) -> &'b CStr {
    let mut len = 0_usize;
    for part in parts {
        for byte in *part {
            if let Some(place) = space.get_mut(len) {
                *place = *byte;
            }
            len = len.wrapping_add(1);
        }
    }
    let end = if len < space.len() { len } else { 0 };
    let Some(place) = space.get_mut(end) else {
        return c"";
    };
    *place = 0;
    // SAFETY: there is a NUL, which was just written.
    unsafe { CStr::from_ptr(space.as_ptr().cast()) }
}
