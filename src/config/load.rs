//! Gathers what was configured: file, then environment, then flags, and what follows from all of them together.
//!
//! This is one of two places that read the environment (the other is `cli`). What values mean is for `settle` to say.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::key;
use super::raw::{Entry, Mistake, Origin, Raw};
use super::value::Value;
use super::{environment, file};

/// Everything that configuration is read from.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    /// The file, if one is named.
    pub file: Option<PathBuf>,
    /// Every environment variable.
    pub environment: Vec<(String, String)>,
    /// Flags that were given, with their values: `("--listen", "[::]:8080")`.
    pub flags: Vec<(&'static str, String)>,
    /// The machine's name; empty when it is not known.
    pub host_name: String,
}

impl Inputs {
    /// What this process was started with.
    pub fn of_process(file: Option<PathBuf>, flags: Vec<(&'static str, String)>) -> Self {
        let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        let environment: Vec<_> = std::env::vars_os().map(|(name, text)| (lossy(name), lossy(text))).collect();
        let host_name = std::fs::read_to_string("/proc/sys/kernel/hostname")
            .or_else(|_| std::env::var("HOSTNAME"))
            .unwrap_or_default();
        Self { file, environment, flags, host_name }
    }

    fn variable(&self, name: &str) -> Option<&str> {
        let found = self.environment.iter().find(|(known, text)| known == name && !text.is_empty());
        found.map(|(_, text)| text.as_str())
    }

    /// Whether anything at all was configured: then the embedded broker runs only when asked for.
    fn is_configured(&self) -> bool {
        self.file.is_some()
            || !self.flags.is_empty()
            || self.variable("AMQP_URL").is_some()
            || self.environment.iter().any(|(name, text)| !text.is_empty() && environment::is_ours(name, text))
    }
}

/// Reads everything; the mistakes that were found on the way stop nothing.
pub(super) fn load(inputs: &Inputs) -> (Raw, Vec<Mistake>) {
    let mut loading = Loading { inputs, raw: Raw::default(), mistakes: Vec::new() };
    loading.file();
    loading.host_and_port();
    loading.environment();
    loading.flags();
    loading.url_file();
    loading.consequences();
    (loading.raw, loading.mistakes)
}

struct Loading<'a> {
    inputs: &'a Inputs,
    raw: Raw,
    mistakes: Vec<Mistake>,
}

impl Loading<'_> {
    fn file(&mut self) {
        let Some(path) = &self.inputs.file else { return };
        match read_text(path) {
            Ok(text) => file::read(path, &text, &mut self.raw, &mut self.mistakes),
            Err(sentence) => {
                self.raw.incomplete = true;
                let path = path.display().to_string();
                self.mistakes.push(Mistake { origin: Origin::Default, path, sentence });
            }
        }
    }

    /// `PORT`, `HOST` and `IP`, as hosting platforms set them: they replace parts of what the file says, and give way to
    /// `PASSERELLE_SERVER__LISTEN`, which somebody meant for us.
    fn host_and_port(&mut self) {
        let host = ["HOST", "IP"].into_iter().find_map(|name| {
            // Some shells set HOST to the machine's name: only an address counts.
            let address: std::net::IpAddr = self.inputs.variable(name)?.parse().ok()?;
            Some((name, if address.is_ipv6() { format!("[{address}]") } else { address.to_string() }))
        });
        let port = self.inputs.variable("PORT").map(|port| ("PORT", port.to_owned()));
        let Some(variable) = port.as_ref().or(host.as_ref()).map(|(name, _)| (*name).to_owned()) else { return };
        let segments = path_segments("server.listen");
        let Some(key) = key::find(&segments) else { return };
        let default = key.default.and_then(|toml| Value::from_toml(key.kind, toml).ok());
        let before = self.raw.entry("server.listen").map(|entry| entry.value.clone()).or(default);
        let mut listen: Vec<String> = Vec::new();
        for address in before.iter().flat_map(Value::texts) {
            let (own_host, own_port) = address.rsplit_once(':').unwrap_or((address, "8080"));
            let host = host.as_ref().map_or(own_host, |(_, host)| host);
            let port = port.as_ref().map_or(own_port, |(_, port)| port);
            let address = format!("{host}:{port}");
            if !listen.contains(&address) {
                listen.push(address);
            }
        }
        let value = if listen.len() == 1 { Value::Text(listen.remove(0)) } else { Value::List(listen) };
        self.raw.set(&segments, Entry { key, value, origin: Origin::Environment(variable) });
    }

    fn environment(&mut self) {
        let mut variables: Vec<_> =
            self.inputs.environment.iter().filter(|(name, text)| environment::is_ours(name, text)).collect();
        variables.sort();
        for (name, text) in variables {
            environment::read(name, text, &mut self.raw, &mut self.mistakes);
        }
    }

    fn flags(&mut self) {
        for (flag, text) in &self.inputs.flags {
            if let Some(key) = key::keys().find(|key| key.flag == Some(flag)) {
                self.set(key.path, text, Origin::Flag(flag));
            }
        }
    }

    /// Puts the address from `amqp.url_file`, or else from `AMQP_URL`, where `amqp.url` would be.
    fn url_file(&mut self) {
        let Some(file) = self.raw.entry("amqp.url_file").cloned() else { return self.fallback_url() };
        let url_rank = self.raw.entry("amqp.url").map_or(0, |url| url.origin.rank());
        let fault = if url_rank > file.origin.rank() {
            return;
        } else if url_rank == file.origin.rank() {
            "stands beside amqp.url: keep one of them".to_owned()
        } else {
            match read_text(Path::new(file.value.text())) {
                Ok(text) if text.trim().is_empty() => format!("names {:?}, which is empty", file.value.text()),
                Ok(text) => return self.set("amqp.url", text.trim(), file.origin),
                Err(sentence) => format!("names {:?}, which {sentence}", file.value.text()),
            }
        };
        self.raw.set_unreadable(&path_segments("amqp.url"), &file.origin);
        self.mistakes.push(Mistake { origin: file.origin, path: "amqp.url_file".into(), sentence: fault });
    }

    fn fallback_url(&mut self) {
        let embedded = self.raw.entry("embedded.enabled").is_some_and(|entry| entry.value.flag());
        if let Some(url) = self.inputs.variable("AMQP_URL").map(str::to_owned)
            && !embedded
            && !self.raw.is_set("amqp.url")
        {
            self.set("amqp.url", &url, Origin::Environment("AMQP_URL".into()));
        }
    }

    /// What nobody set and is not the same for everybody.
    fn consequences(&mut self) {
        if !self.inputs.is_configured() {
            self.set("embedded.enabled", "true", Origin::Derived("nothing is configured"));
        }
        if !self.raw.is_set("amqp.node") {
            let node = node_name(&self.inputs.host_name);
            self.set("amqp.node", &node, Origin::Derived("host name"));
        }
        for (path, path_max) in [("poll.timeout", "poll.timeout_max"), ("call.timeout", "call.timeout_max")] {
            self.lower(path, path_max);
        }
        // What is only set for it does not unmake it.
        let reads = |key| self.raw.is_set(&format!("source.events.{key}"));
        if self.raw.names("source").iter().all(|name| name == "events")
            && !["exchange", "queue", "stream"].into_iter().any(reads)
        {
            self.set("source.events.exchange", "amq.topic", Origin::Default);
        }
    }

    /// A longest time holds for the usual one too, where that is not set.
    fn lower(&mut self, path: &str, path_max: &'static str) {
        let segments = path_segments(path);
        let (Some(key), Some(max)) = (key::find(&segments), self.raw.entry(path_max)) else { return };
        let default = key.default.and_then(|toml| Value::from_toml(key.kind, toml).ok());
        if !self.raw.is_set(path) && default.is_some_and(|default| max.value.time() < default.time()) {
            let value = max.value.clone();
            self.raw.set(&segments, Entry { key, value, origin: Origin::Derived(path_max) });
        }
    }

    fn set(&mut self, path: &str, text: &str, origin: Origin) {
        let segments = path_segments(path);
        let Some(key) = key::find(&segments) else { return };
        match Value::parse(key.kind, text) {
            Ok(value) => self.raw.set(&segments, Entry { key, value, origin }),
            Err(sentence) => {
                self.raw.set_unreadable(&segments, &origin);
                self.mistakes.push(Mistake { origin, path: path.into(), sentence });
            }
        }
    }
}

fn path_segments(path: &str) -> Vec<String> {
    path.split('.').map(str::to_owned).collect()
}

/// The text of a small file, or a sentence.
fn read_text(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(file::FILE_BYTES_MAX + 1).read_to_string(&mut text));
    match read {
        Ok(bytes) if bytes as u64 > file::FILE_BYTES_MAX => {
            Err(format!("is larger than {}, the limit", super::value::size_text(file::FILE_BYTES_MAX)))
        }
        Ok(_) => Ok(text),
        Err(error) => Err(format!("cannot be read: {error}")),
    }
}

/// The machine's name with what a queue's name should not hold left out.
fn node_name(host_name: &str) -> String {
    let usual = |character: &char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.');
    let name: String = host_name.trim().chars().filter(usual).take(64).collect();
    if name.is_empty() { "node".into() } else { name }
}
