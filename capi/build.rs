//! What the linker must know about libcamring.so: the name that programs remember, and that it is never unloaded.

fn main() {
    // The number is the first one of `camring_abi_version()`: programs of another one look for another file.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libcamring.so.0");
    // After `dlclose` the code stays: threads may be inside, and handlers for `fork` are registered.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    println!("cargo:rerun-if-changed=build.rs");
}
