//! Log lines of the server: to standard error, for people on a terminal and for machines elsewhere.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use super::Failure;
use crate::config::{LogFormat, Logging};

/// Starts logging for the whole process.
pub(super) fn start(logging: &Logging) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(quiet(&logging.filter)).map_err(|error| Failure::Failed(error.to_string()))?;
    let terminal = io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let started = if is_human(logging.format, terminal) {
        lines.with_ansi(terminal).with_target(false).try_init()
    } else {
        lines.json().flatten_event(true).with_current_span(false).try_init()
    };
    started.map_err(|error| Failure::Failed(error.to_string()))
}

/// The AMQP library's own lines say again, and less clearly, what the sources say: they come only when asked for by name.
fn quiet(filter: &str) -> String {
    match filter {
        asked if asked.contains("lapin") => asked.to_owned(),
        "" => "info,lapin=off".to_owned(),
        other => format!("{other},lapin=off"),
    }
}

/// Whether lines are for people.
fn is_human(format: LogFormat, terminal: bool) -> bool {
    match format {
        LogFormat::Human => true,
        LogFormat::Json => false,
        LogFormat::Auto => terminal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_speaks_when_it_is_named() {
        assert_eq!(quiet(""), "info,lapin=off");
        assert_eq!(quiet("debug"), "debug,lapin=off");
        assert_eq!(quiet("info,lapin=trace"), "info,lapin=trace");
    }

    #[test]
    fn lines_are_for_people_on_a_terminal_unless_said_otherwise() {
        assert!(is_human(LogFormat::Auto, true) && !is_human(LogFormat::Auto, false));
        assert!(is_human(LogFormat::Human, false) && !is_human(LogFormat::Json, true));
    }
}
