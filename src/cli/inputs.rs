//! What may be typed to say where the configuration comes from: the same for `serve`, `check` and `config`.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;

use super::Failure;
use crate::config::raw::Mistake;
use crate::config::{Configuration, Inputs, read};

/// The file, and flags that win over it and over the environment.
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct Arguments {
    /// File of TOML to read; config/passerelle.toml shows every key
    #[arg(long, value_name = "FILE", env = "PASSERELLE_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
    /// RabbitMQ's address, such as amqp://guest:guest@localhost:5672/%2f
    #[arg(long, value_name = "URL", conflicts_with = "embedded")]
    amqp: Option<String>,
    /// Run a small AMQP broker in memory instead of connecting to RabbitMQ
    #[arg(long)]
    embedded: bool,
    /// Address and port for browsers [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Address and port for metrics, health and the API, or off [default: 127.0.0.1:8081]
    #[arg(long, value_name = "ADDR")]
    admin_listen: Option<String>,
    /// Serve the files of this folder at / instead of the landing page
    #[arg(long = "static", value_name = "DIR")]
    static_dir: Option<String>,
    /// Exit when the first attempt to reach RabbitMQ fails, rather than trying on
    #[arg(long)]
    fail_fast: bool,
    /// What to log, such as debug or info,passerelle::source=debug [default: info]
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

impl Arguments {
    /// The flags that were given, with their values.
    pub(super) fn flags(&self) -> Vec<(&'static str, String)> {
        let texts = [
            ("--amqp", &self.amqp),
            ("--listen", &self.listen),
            ("--admin-listen", &self.admin_listen),
            ("--static", &self.static_dir),
            ("--log", &self.log),
        ];
        let texts = texts.into_iter().filter_map(|(flag, text)| Some((flag, text.clone()?)));
        let switches = [("--embedded", self.embedded), ("--fail-fast", self.fail_fast)];
        let switches = switches.into_iter().filter(|(_, given)| *given).map(|(flag, _)| (flag, "true".to_owned()));
        texts.chain(switches).collect()
    }

    /// The configuration, if it has no mistakes; else they are printed, and what may not be meant before them.
    pub(super) fn read(&self) -> Result<Configuration, Failure> {
        // An empty PASSERELLE_CONFIG, as compose files make them, is as good as none.
        let file = self.config.clone().filter(|file| !file.as_os_str().is_empty());
        read(&Inputs::of_process(file, self.flags())).map_err(|refused| {
            print_warnings(&refused.warnings);
            for mistake in &refused.mistakes {
                let _ = writeln!(io::stderr(), "{mistake}");
            }
            Failure::Reported
        })
    }
}

/// Prints what works but may not be meant.
pub(super) fn print_warnings(warnings: &[Mistake]) {
    for warning in warnings {
        let _ = writeln!(io::stderr(), "warning: {warning}");
    }
}
