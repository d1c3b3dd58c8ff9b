//! `passerelle check`: every mistake of a configuration, before it is run.

use std::io::{self, Write};

use clap::Args;

use super::{Failure, block_on, inputs};
use crate::config::raw::Mistake;
use crate::config::{Input, Settings};
use crate::source::amqp::{self, Finding};

/// Name every mistake in the configuration, with file, line and key
#[derive(Debug, Args)]
#[group(skip)]
#[command(after_help = "\
Exits 1 if there is any mistake, or with --connect anything missing or dangerous at the broker. Warnings alone
exit 0.

Examples:
  passerelle check --config passerelle.toml
  passerelle check --config passerelle.toml --connect
  PASSERELLE_AMQP__URL=amqp://rabbitmq passerelle check")]
pub(super) struct Arguments {
    #[command(flatten)]
    inputs: inputs::Arguments,
    /// Also connect to RabbitMQ, and name what is missing or dangerous there; changes nothing
    #[arg(long)]
    connect: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let configuration = arguments.inputs.read()?;
    inputs::print_warnings(&configuration.warnings);
    let found = if arguments.connect { connect(&configuration.settings)? } else { Vec::new() };
    if found.is_empty() {
        writeln!(io::stdout(), "no mistakes: {}", summary(&configuration.settings))?;
        return Ok(());
    }
    for Finding { key, message } in found {
        let origin = configuration.raw.origin(&key);
        writeln!(io::stderr(), "{}", Mistake { origin, path: key, sentence: message })?;
    }
    Err(Failure::Reported)
}

/// What is missing or dangerous at the broker.
fn connect(settings: &Settings) -> Result<Vec<Finding>, Failure> {
    if settings.embedded.is_some() {
        let sentence = "--connect has nothing to connect to: the embedded broker runs only while passerelle serves";
        return Err(Failure::Usage(sentence.into()));
    }
    block_on(async { Ok(amqp::check(settings).await) })
}

/// What the configuration amounts to, in one line.
fn summary(settings: &Settings) -> String {
    let broker = match (&settings.embedded, settings.amqp.urls.len()) {
        (Some(embedded), _) => format!("the embedded broker on {}", embedded.listen),
        (None, 1) => "one broker address".into(),
        (None, count) => format!("{count} broker addresses"),
    };
    let source = |source: &crate::config::Source| match (&source.input, source.input.queue()) {
        (Input::Exchange(input), _) => format!("{} (exchange {})", source.name, input.exchange),
        (Input::Queue(input), _) => format!("{} (queue {})", source.name, input.queue),
        (Input::Stream(input), None) => format!("{} (stream {})", source.name, input.stream),
        (Input::Stream(input), Some(from)) => {
            format!("{} (queue {} through stream {})", source.name, from.queue, input.stream)
        }
    };
    let sources = settings.sources.iter().map(source).collect::<Vec<_>>().join(", ");
    format!("{broker}; sources: {sources}")
}
