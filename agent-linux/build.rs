//! Links `nanoga` without a C library and without its start files.
//!
//! Only the binary gets these arguments: tests, build scripts and other packages link as usual.

#![allow(missing_docs, clippy::expect_used, reason = "a build script may fail, and says why")]

fn main() {
    let folder = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    for argument in [
        "-nostartfiles",
        "-nostdlib",
        "-static",
        "-no-pie",
        "-Wl,--build-id=none",
        "-Wl,-z,norelro",
        "-Wl,--no-eh-frame-hdr",
        // Unoptimised builds refer to it from unwind tables, which nanoga.ld drops.
        "-Wl,--defsym=rust_eh_personality=0",
        &format!("-Wl,-T,{folder}/nanoga.ld"),
    ] {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
    println!("cargo::rerun-if-changed=nanoga.ld");
    println!("cargo::rerun-if-changed=build.rs");
}
