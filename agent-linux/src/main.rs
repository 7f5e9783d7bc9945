//! `nanoga`, the program: its first instruction, its memory, and what becomes of a panic.
//!
//! Everything else stands in the library, where tests reach it.

#![no_std]
#![no_main]

mod panic;
mod start;
