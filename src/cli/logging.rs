//! Log lines of the server: to standard error, for people on a terminal and for machines elsewhere.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use super::Failure;
use crate::config::{LogFormat, Logging};

/// Starts logging for the whole process.
pub(super) fn start(logging: &Logging) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(directives(&logging.filter)).map_err(|error| Failure::Failed(error.to_string()))?;
    let terminal = io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let started = if is_human(logging.format, terminal) {
        lines.with_ansi(terminal).with_target(false).try_init()
    } else {
        lines.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
    };
    started.map_err(|error| Failure::Failed(error.to_string()))
}

/// The filter with the AMQP library silenced: it calls every lost connection an error several times over, where we have
/// one clear line. Whoever names it hears it.
fn directives(filter: &str) -> String {
    if filter.contains("lapin") { filter.to_owned() } else { format!("lapin=off,{filter}") }
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
    fn the_amqp_library_speaks_only_when_it_is_named() {
        assert_eq!(directives("debug"), "lapin=off,debug");
        assert_eq!(directives("info,lapin=debug"), "info,lapin=debug");
    }

    #[test]
    fn lines_are_for_people_on_a_terminal_unless_said_otherwise() {
        assert!(is_human(LogFormat::Auto, true) && !is_human(LogFormat::Auto, false));
        assert!(is_human(LogFormat::Human, false) && !is_human(LogFormat::Json, true));
    }
}
