//! A program that is not ours: run, read line by line, told something, and gone with the test. What it complains of goes
//! where the test's own complaints go.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tokio::sync::mpsc::{Receiver, channel};

use crate::program::PATIENCE;
use crate::repository::root;

/// Lines that may wait to be read; a program that prints more has to wait itself.
const LINES_MAX: usize = 10_000;

/// An AMQP library, and so a language.
#[derive(Debug, Clone, Copy)]
pub(super) enum Library {
    Pika,
    Amqplib,
}

impl Library {
    pub(super) const BOTH: [Self; 2] = [Self::Pika, Self::Amqplib];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Pika => "pika",
            Self::Amqplib => "amqplib",
        }
    }

    /// The other one.
    pub(super) fn other(self) -> Self {
        match self {
            Self::Pika => Self::Amqplib,
            Self::Amqplib => Self::Pika,
        }
    }

    /// Runs a script that there is in both languages.
    pub(super) fn run(self, script: &str, broker: &str, arguments: &[&str]) -> Script {
        let mut command = match self {
            Self::Pika => python(&format!("{script}.py")),
            Self::Amqplib => node(&format!("{script}.js")),
        };
        Script::start(command.args(arguments).env("AMQP_URL", broker))
    }

    /// Runs one that goes on, and waits until it consumes.
    pub(super) async fn consumer(self, script: &str, broker: &str, arguments: &[&str]) -> Script {
        let mut running = self.run(script, broker, arguments);
        assert_eq!(running.line().await, "ready");
        running
    }

    /// Runs one that ends, and returns what it printed.
    pub(super) async fn finish(self, script: &str, broker: &str, arguments: &[&str]) -> Vec<String> {
        self.run(script, broker, arguments).ended().await
    }
}

/// Python with what `requirements.txt` names, where `scripts/test` put it, or else the path's.
pub(super) fn python(script: &str) -> Command {
    let own = root().join("target/python/bin/python3");
    let mut command = Command::new(if own.exists() { own } else { PathBuf::from("python3") });
    command.arg("-u").arg(file(script));
    command
}

/// Node.js on a script.
pub(super) fn node(script: &str) -> Command {
    let mut command = Command::new("node");
    command.arg(file(script));
    command
}

fn file(script: &str) -> PathBuf {
    root().join("tests/clients").join(script)
}

/// A running program.
pub(crate) struct Script {
    what: String,
    child: Child,
    lines: Receiver<String>,
}

impl Script {
    /// Runs a command.
    pub(crate) fn start(command: &mut Command) -> Self {
        let what = format!("{command:?}");
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = spawned.unwrap_or_else(|error| panic!("{what}: {error}"));
        let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let (sender, receiver) = channel(LINES_MAX);
        std::thread::spawn(move || lines.map_while(Result::ok).all(|line| sender.blocking_send(line).is_ok()));
        Self { what, child, lines: receiver }
    }

    /// The next line that it prints.
    pub(super) async fn line(&mut self) -> String {
        let line = self.next().await;
        line.unwrap_or_else(|| panic!("{} ended: if it lacks a library, see tests/clients/README.md", self.what))
    }

    /// The next line, which is JSON.
    pub(super) async fn json(&mut self) -> Value {
        let line = self.line().await;
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    /// Writes a line to its input.
    pub(super) fn tell(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().expect("its input"), "{line}").expect("it listens");
    }

    /// Everything that it prints until it ends by itself, well.
    pub(crate) async fn ended(mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(line) = self.next().await {
            lines.push(line);
        }
        let status = self.child.wait().expect("its end");
        assert!(status.success(), "{} ended with {status}: see tests/clients/README.md", self.what);
        lines
    }

    async fn next(&mut self) -> Option<String> {
        let line = tokio::time::timeout(PATIENCE, self.lines.recv()).await;
        line.unwrap_or_else(|_| panic!("{} prints nothing", self.what))
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
