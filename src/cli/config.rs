//! `passerelle config`: what holds in the end, and where each value comes from.

use std::io::{self, Write};

use clap::Args;

use super::{Failure, inputs};
use crate::config::show;

/// Print the effective configuration with the origin of each value; passwords hidden
#[derive(Debug, Args)]
#[group(skip)]
#[command(after_help = "\
Examples:
  passerelle config
  passerelle config --config passerelle.toml | grep -v '# default'")]
pub(super) struct Arguments {
    #[command(flatten)]
    inputs: inputs::Arguments,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let configuration = arguments.inputs.read()?;
    inputs::print_warnings(&configuration.warnings);
    io::stdout().write_all(show::effective(&configuration).as_bytes())?;
    Ok(())
}
