//! The speaker's process.

fn main() {}
