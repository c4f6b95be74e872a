//! The `quittance` command.
fn main() {}
