//! `passerelle completions`: what shells need to complete our commands.

use std::io::{self, Write};

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Failure;

/// Print completions for a shell
#[derive(Debug, Args)]
#[group(skip)]
#[command(after_help = "\
Examples:
  source <(passerelle completions bash)
  passerelle completions zsh > ~/.zfunc/_passerelle
  passerelle completions fish > ~/.config/fish/completions/passerelle.fish")]
pub(super) struct Arguments {
    /// The shell
    shell: Shell,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    io::stdout().write_all(&script(arguments.shell))?;
    Ok(())
}

fn script(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut super::Arguments::command(), "passerelle", &mut script);
    script
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn every_shell_learns_every_command() {
        for shell in Shell::value_variants() {
            let script = String::from_utf8(script(*shell)).unwrap();
            for command in ["serve", "sub", "pub", "check", "config", "completions"] {
                assert!(script.contains(command), "{shell} does not know {command}");
            }
        }
    }
}
