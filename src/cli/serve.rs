//! `passerelle serve`: the main job, from configuration to log lines to the bridge.

use clap::Args;

use super::{Failure, inputs, logging};
use crate::app;

/// Run the bridge (also without a command)
#[derive(Debug, Args)]
#[group(skip)]
#[command(after_help = "\
Examples:
  passerelle serve                                        with an embedded broker, if nothing is configured
  passerelle serve --amqp amqp://guest:guest@localhost    beside your RabbitMQ
  passerelle serve --config passerelle.toml --log debug   from a file, telling more
  passerelle serve --embedded --static public             with your own pages at http://127.0.0.1:8080/")]
pub(super) struct Arguments {
    #[command(flatten)]
    inputs: inputs::Arguments,
}

impl Arguments {
    /// The flags that were given, with their values.
    #[cfg(test)]
    pub(super) fn flags(&self) -> Vec<(&'static str, String)> {
        self.inputs.flags()
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let configuration = arguments.inputs.read()?;
    logging::start(&configuration.settings.logging)?;
    for warning in &configuration.warnings {
        tracing::warn!("{warning}");
    }
    app::serve(configuration.settings).map_err(|error| Failure::Failed(format!("{error:#}")))
}
