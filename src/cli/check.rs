//! `passerelle check`: every mistake of a configuration, before it is run.

use std::io::{self, Write};

use clap::Args;

use super::{Failure, inputs};
use crate::config::{Input, Settings};

/// Name every mistake in the configuration, with file, line and key
#[derive(Debug, Args)]
#[group(skip)]
#[command(after_help = "\
Exits 1 if there is any mistake. Warnings alone exit 0.

Examples:
  passerelle check --config passerelle.toml
  PASSERELLE_AMQP__URL=amqp://rabbitmq passerelle check")]
pub(super) struct Arguments {
    #[command(flatten)]
    inputs: inputs::Arguments,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let configuration = arguments.inputs.read()?;
    inputs::print_warnings(&configuration.warnings);
    writeln!(io::stdout(), "no mistakes: {}", summary(&configuration.settings))?;
    Ok(())
}

/// What the configuration amounts to, in one line.
fn summary(settings: &Settings) -> String {
    let broker = match (&settings.embedded, settings.amqp.urls.len()) {
        (Some(embedded), _) => format!("the embedded broker on {}", embedded.listen),
        (None, 1) => "one broker address".into(),
        (None, count) => format!("{count} broker addresses"),
    };
    let source = |source: &crate::config::Source| match &source.input {
        Input::Exchange(input) => format!("{} (exchange {})", source.name, input.exchange),
        Input::Queue(input) => format!("{} (queue {})", source.name, input.queue),
    };
    let sources = settings.sources.iter().map(source).collect::<Vec<_>>().join(", ");
    format!("{broker}; sources: {sources}")
}
