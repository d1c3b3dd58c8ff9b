//! The commands: what may be typed, and the exit codes, which are decided here and nowhere else.
//!
//! | code | when |
//! |---|---|
//! | 0 | it was done |
//! | 1 | it failed, or `check` found mistakes |
//! | 2 | it was not typed as the help says |

mod backoff;
mod check;
mod client;
mod completions;
mod config;
mod event_stream;
mod foreign;
mod http;
mod inputs;
mod logging;
mod output;
mod poll;
mod publish;
mod resume;
#[cfg(test)]
mod scripted;
mod serve;
mod sub;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "passerelle",
    version,
    about = "Brings what services publish to RabbitMQ to every browser that subscribed to it, and back",
    long_about = "A pub/sub message broker that bridges AMQP (RabbitMQ) to WebSocket and Server-Sent Events.\n\n\
                  Without a command it serves: `passerelle` is `passerelle serve`.",
    after_help = EXAMPLES,
    args_conflicts_with_subcommands = true
)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: serve::Arguments,
}

const EXAMPLES: &str = "\
Examples:
  passerelle                                        with an embedded broker, to try it out
  passerelle --amqp amqp://guest:guest@localhost    beside your RabbitMQ
  passerelle sub '#'                                every message, one JSON line each
  passerelle pub orders.eu.created '{\"id\": 1}'      publish one
  passerelle check --config passerelle.toml         every mistake, with file, line and key";

/// The commands, in the order in which the help lists them: what one needs first comes first.
#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Arguments),
    Sub(sub::Arguments),
    Pub(publish::Arguments),
    Check(check::Arguments),
    Config(config::Arguments),
    Completions(completions::Arguments),
}

/// Why a command did not do what it was asked to.
#[derive(Debug)]
enum Failure {
    /// It was not typed as the help says.
    Usage(String),
    /// It failed, and this says why.
    Failed(String),
    /// It failed, and everything about it was printed already.
    Reported,
    /// Nobody reads its output any more, as behind `| head`: that is no failure.
    OutputClosed,
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are no failures; clap knows which stream each belongs to.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    let outcome = match arguments.command.unwrap_or(Command::Serve(arguments.serve)) {
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Sub(arguments) => sub::run(arguments),
        Command::Pub(arguments) => publish::run(arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Config(arguments) => config::run(&arguments),
        Command::Completions(arguments) => completions::run(&arguments),
    };
    exit_code(outcome)
}

fn exit_code(outcome: Result<(), Failure>) -> ExitCode {
    let (sentence, code) = match outcome {
        Ok(()) | Err(Failure::OutputClosed) => return ExitCode::SUCCESS,
        Err(Failure::Reported) => return ExitCode::FAILURE,
        Err(Failure::Failed(sentence)) => (sentence, ExitCode::FAILURE),
        Err(Failure::Usage(sentence)) => (sentence, ExitCode::from(2)),
    };
    let _ = writeln!(io::stderr(), "passerelle: {sentence}");
    code
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::Failed(error.to_string()),
        }
    }
}

/// Runs a client's conversation: one thread is plenty for it.
fn block_on<T>(conversation: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(conversation)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound_and_lists_what_matters_first() {
        let command = Arguments::command();
        command.clone().debug_assert();
        let names: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
        assert_eq!(names, ["serve", "sub", "pub", "check", "config", "completions"]);
        assert!(command.get_subcommands().all(|command| command.get_about().is_some()));
    }

    #[test]
    fn without_a_command_it_serves() {
        let bare = Arguments::try_parse_from(["passerelle", "--embedded"]).unwrap();
        assert!(bare.command.is_none() && bare.serve.flags() == [("--embedded", "true".to_owned())]);
        let named = Arguments::try_parse_from(["passerelle", "serve", "--listen", "[::]:80"]).unwrap();
        assert!(matches!(named.command, Some(Command::Serve(serve)) if serve.flags()[0].0 == "--listen"));
        assert!(Arguments::try_parse_from(["passerelle", "--embedded", "check"]).is_err());
    }

    #[test]
    fn every_flag_of_the_table_of_keys_can_be_typed() {
        let command = Arguments::command();
        for flag in crate::config::key::keys().filter_map(|key| key.flag) {
            let name = flag.trim_start_matches("--");
            assert!(command.get_arguments().any(|argument| argument.get_long() == Some(name)), "{flag}");
        }
    }
}
