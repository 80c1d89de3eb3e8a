//! The program of the initrd.
fn main() {}
