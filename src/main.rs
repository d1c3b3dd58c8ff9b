//! The program's exit code and nothing else, and the allocator, which must be chosen here.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    passerelle::cli::main()
}
