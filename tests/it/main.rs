//! Tests of the whole: the program as it runs, and the tree that it comes in.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test says that it failed by a panic, in its own functions too"
)]

mod amqp;
mod clients;
mod dashboards;
mod fuzz;
mod history;
mod operations;
mod packaging;
mod program;
mod prometheus;
mod rabbit;
mod repository;
mod tree;
mod whole;
