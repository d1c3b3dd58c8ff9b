//! The program's exit code and nothing else.

fn main() {}
