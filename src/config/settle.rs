//! Makes sense of what was configured: raw values into [`Settings`], with every mistake named and none stopping at the
//! first.
//!
//! A part that is wrong settles to its default, so that the rest is looked at too; whoever gets mistakes must not use the
//! settings. This module reads no environment; of files it only asks whether they are there.

pub(super) mod broker;
mod cloudevents;
mod consume;
pub(super) mod listen;
mod placeholders;
mod presence;
mod route;
mod source;
mod template;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::key::{self, nearest};
use super::raw::{Entry, Mistake, Raw};
use super::value::{Value, quoted};
use super::{Admin, Auth, Call, Compression, Limits, LogFormat, Logging, Mqtt, Poll, Publish, Server, Settings};
use crate::model::flow::Flow;
use crate::protocol::REGISTRY;

pub(super) use source::Reads;

/// What came of it.
#[derive(Debug)]
pub struct Settled {
    /// Usable only if there are no mistakes.
    pub settings: Settings,
    /// What must be changed.
    pub mistakes: Vec<Mistake>,
    /// What works, but perhaps not as it is meant.
    pub warnings: Vec<Mistake>,
}

/// Settles everything.
pub fn settle(raw: &Raw) -> Settled {
    let mut settler = Settler { raw, mistakes: Vec::new(), warnings: Vec::new() };
    let embedded = settler.embedded();
    let settings = Settings {
        server: settler.server(),
        admin: settler.admin(),
        limits: settler.limits(),
        poll: settler.poll(),
        mqtt: settler.mqtt(),
        compression: settler.compression(),
        amqp: settler.amqp(embedded.as_ref()),
        sources: settler.sources(),
        publish: settler.publish(),
        call: settler.call(),
        routes: settler.routes(),
        consume: settler.consume(),
        presences: settler.presences(),
        auth: settler.auth(),
        embedded,
        aliases: settler.aliases(),
        logging: settler.logging(),
    };
    settler.listeners_apart(&settings);
    settler.consumed_apart(&settings);
    settler.streams_need_rabbitmq(&settings);
    settler.anonymous_beyond_loopback(&settings);
    let Settler { mistakes, warnings, .. } = settler;
    Settled { settings, mistakes, warnings }
}

/// Bytes of the name of a source, a route or the like at most: they are parts of queue names, cursors and metric labels.
const NAME_BYTES_MAX: usize = 64;

/// What a log filter names by itself.
const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// One pass over what was configured.
struct Settler<'a> {
    raw: &'a Raw,
    mistakes: Vec<Mistake>,
    warnings: Vec<Mistake>,
}

impl<'a> Settler<'a> {
    /// What was set, if it was.
    fn entry(&self, path: &str) -> Option<&'a Entry> {
        self.raw.entry(path)
    }

    /// What was set, or the default.
    fn value(&self, path: &str) -> Value {
        if let Some(entry) = self.entry(path) {
            return entry.value.clone();
        }
        let segments: Vec<&str> = path.split('.').collect();
        let default = key::find(&segments).and_then(|key| Value::from_toml(key.kind, key.default?).ok());
        default.unwrap_or(Value::List(Vec::new()))
    }

    /// The tables of a kind, by their names; one that has no proper name is a mistake.
    fn names(&mut self, kind: &str) -> Vec<String> {
        let usual = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        let is_proper = |name: &String| name.bytes().all(usual) && name.len() <= NAME_BYTES_MAX;
        let (proper, odd): (Vec<String>, Vec<String>) = self.raw.names(kind).into_iter().partition(is_proper);
        for name in odd {
            let sentence =
                format!("is no name for a {kind}: use ASCII letters, digits, _ and -, at most {NAME_BYTES_MAX}");
            self.mistake(&format!("{kind}.{name}"), sentence);
        }
        proper
    }

    fn flag(&self, path: &str) -> bool {
        self.value(path).flag()
    }

    fn number(&self, path: &str) -> usize {
        usize::try_from(self.value(path).number()).unwrap_or(usize::MAX)
    }

    fn time(&self, path: &str) -> Duration {
        self.value(path).time()
    }

    fn text(&self, path: &str) -> String {
        self.value(path).text().to_owned()
    }

    /// Each text of a list, read by `read`; those that it refuses become mistakes.
    fn each<T>(&mut self, path: &str, read: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        let mut all = Vec::new();
        for text in self.value(path).texts() {
            match read(text) {
                Ok(item) => all.push(item),
                Err(sentence) => self.mistake(path, sentence),
            }
        }
        all
    }

    fn mistake(&mut self, path: &str, sentence: impl Into<String>) {
        let origin = self.raw.origin(path);
        self.mistakes.push(Mistake { origin, path: path.into(), sentence: sentence.into() });
    }

    fn warning(&mut self, path: &str, sentence: impl Into<String>) {
        let origin = self.raw.origin(path);
        self.warnings.push(Mistake { origin, path: path.into(), sentence: sentence.into() });
    }

    fn server(&mut self) -> Server {
        let listen = self.each("server.listen", listen::address);
        if listen.is_empty() && !self.mistakes.iter().any(|mistake| mistake.path == "server.listen") {
            self.mistake("server.listen", "is empty: name at least one address, such as \"127.0.0.1:8080\"");
        }
        let path_prefix = listen::path_prefix(&self.text("server.path_prefix")).unwrap_or_else(|sentence| {
            self.mistake("server.path_prefix", sentence);
            String::new()
        });
        Server {
            listen,
            unix_socket: self
                .path("server.unix_socket", |path| is_no_socket(path).then_some("is there and is no socket")),
            allowed_origins: self.each("server.allowed_origins", listen::origin),
            path_prefix,
            trusted_proxies: self.each("server.trusted_proxies", listen::network),
            static_dir: self.path("server.static_dir", |path| (!path.is_dir()).then_some("is not a folder")),
            strict: self.flag("server.strict"),
            shards: self.number("server.shards"),
            connections_max: self.number("server.connections_max"),
            presence_members_max: self.number("server.presence_members_max"),
            handshake_timeout: self.time("server.handshake_timeout"),
            head_bytes_max: self.number("server.head_bytes_max"),
            head_fields_max: self.number("server.head_fields_max"),
            heartbeat: self.time("server.heartbeat"),
            drain: self.time("server.drain"),
            ready_on_outage: self.flag("server.ready_on_outage"),
        }
    }

    fn admin(&mut self) -> Admin {
        let text = self.text("admin.listen");
        if text == "off" {
            return Admin { listen: None };
        }
        let listen = listen::address(&text).map_err(|sentence| self.mistake("admin.listen", sentence)).ok();
        Admin { listen }
    }

    fn limits(&self) -> Limits {
        Limits {
            message_bytes_max: self.number("limits.message_bytes_max"),
            subscriptions_max: self.number("limits.subscriptions_max"),
            publishes_in_flight_max: self.number("limits.publishes_in_flight_max"),
            calls_in_flight_max: self.number("limits.calls_in_flight_max"),
            queues_max: self.number("limits.queues_max"),
            outbox_bytes_max: self.number("limits.outbox_bytes_max"),
            outbox_frames_max: self.number("limits.outbox_frames_max"),
            behind_bytes: self.number("limits.behind_bytes"),
            on_slow: Flow::named(&self.text("limits.on_slow")).unwrap_or_default(),
            drop_oldest_keep: self.number("limits.drop_oldest_keep"),
            stall_timeout: self.time("limits.stall_timeout"),
            last_max: self.number("limits.last_max"),
            unauthenticated_timeout: self.time("limits.unauthenticated_timeout"),
        }
    }

    fn mqtt(&mut self) -> Mqtt {
        let share_expiry = self.time("mqtt.share_expiry");
        if share_expiry > consume::EXPIRES_MAX {
            self.mistake("mqtt.share_expiry", "is longer than the 49 days that RabbitMQ can count: lower it");
        }
        Mqtt {
            session_expiry_max: self.time("mqtt.session_expiry_max"),
            sessions_max: self.number("mqtt.sessions_max"),
            kept_subscriptions_max: self.number("mqtt.kept_subscriptions_max"),
            share_expiry,
            abandoned_shares_max: self.number("mqtt.abandoned_shares_max"),
        }
    }

    fn poll(&mut self) -> Poll {
        let (timeout, timeout_max) = (self.time("poll.timeout"), self.time("poll.timeout_max"));
        if timeout > timeout_max {
            self.mistake("poll.timeout", "is longer than poll.timeout_max: lower it, or raise that");
        }
        Poll {
            timeout,
            timeout_max,
            messages_max: self.number("poll.messages_max"),
            bytes_max: self.number("poll.bytes_max"),
            lease: self.time("poll.lease"),
        }
    }

    fn compression(&self) -> Compression {
        Compression {
            enabled: self.flag("compression.enabled"),
            bytes_min: self.number("compression.bytes_min"),
            level: u32::try_from(self.number("compression.level")).unwrap_or(1),
        }
    }

    fn publish(&self) -> Publish {
        Publish {
            exchange: self.text("publish.exchange"),
            persistent: self.flag("publish.persistent"),
            timeout: self.time("publish.timeout"),
            in_flight_max: self.number("publish.in_flight_max"),
            repeat_window: self.time("publish.repeat_window"),
            repeats_max: self.number("publish.repeats_max"),
        }
    }

    fn call(&mut self) -> Call {
        let (timeout, timeout_max) = (self.time("call.timeout"), self.time("call.timeout_max"));
        if timeout > timeout_max {
            self.mistake("call.timeout", "is longer than call.timeout_max: lower it, or raise that");
        }
        Call {
            exchange: self.text("call.exchange"),
            timeout,
            timeout_max,
            in_flight_max: self.number("call.in_flight_max"),
        }
    }

    fn auth(&mut self) -> Auth {
        let set = |path: &str| self.entry(path).map(|entry| entry.value.flag());
        let auth = Auth { anonymous: set("auth.anonymous"), anonymous_publish: set("auth.anonymous_publish") };
        if auth.anonymous == Some(false) && auth.anonymous_publish == Some(true) {
            self.mistake(
                "auth.anonymous_publish",
                "lets clients publish whom auth.anonymous = false does not let in: set both to true, or this to false",
            );
        }
        auth
    }

    fn aliases(&mut self) -> BTreeMap<String, String> {
        let mut aliases = BTreeMap::new();
        for (path, entry) in self.raw.entries().filter(|(_, entry)| entry.key.path == "alias.*") {
            let alias = path.trim_start_matches("alias.").trim_matches('"');
            let name = entry.value.text();
            match alias_fault(alias, name) {
                Some(sentence) => self.mistake(path, sentence),
                None => drop(aliases.insert(alias.to_owned(), name.to_owned())),
            }
        }
        aliases
    }

    fn logging(&mut self) -> Logging {
        let filter = self.text("logging.filter");
        if let Some(word) = filter.split(',').map(str::trim).find(|word| is_no_level(word)) {
            let hint = nearest(&word.to_ascii_lowercase(), LEVELS.into_iter());
            let hint = hint.map_or_else(
                || format!("write one of {}.", LEVELS.join(", ")),
                |level| format!("did you mean {level}?"),
            );
            let sentence = format!("has {word:?}, which is no level: {hint} Of one part it is written {word}=debug");
            self.mistake("logging.filter", sentence);
        } else if tracing_subscriber::EnvFilter::try_new(&filter).is_err() {
            self.mistake(
                "logging.filter",
                format!(
                    "is {filter:?}, which is no filter: write a level such as info, or info,passerelle::source=debug"
                ),
            );
        }
        let format = match self.text("logging.format").as_str() {
            "human" => LogFormat::Human,
            "json" => LogFormat::Json,
            _ => LogFormat::Auto,
        };
        Logging { filter, format }
    }

    /// A path that was set; `fault` says what is wrong with what is there.
    fn path(&mut self, path: &str, fault: impl Fn(&Path) -> Option<&'static str>) -> Option<PathBuf> {
        let text = self.entry(path)?.value.text().to_owned();
        let given = PathBuf::from(&text);
        if text.is_empty() {
            self.mistake(path, "is empty: name a path, or remove the key");
        } else if let Some(fault) = fault(&given) {
            self.mistake(path, format!("names {}, which {fault}", quoted(&text)));
        }
        Some(given)
    }

    /// Two listeners on one address would fail at start with a message from the system.
    fn listeners_apart(&mut self, settings: &Settings) {
        let mut taken: Vec<(&str, SocketAddr)> = Vec::new();
        let public = settings.server.listen.iter().map(|address| ("server.listen", *address));
        let admin = settings.admin.listen.iter().map(|address| ("admin.listen", *address));
        let embedded = settings.embedded.iter().map(|embedded| ("embedded.listen", embedded.listen));
        for (path, address) in public.chain(admin).chain(embedded) {
            let other = taken.iter().find(|(_, taken)| collide(*taken, address));
            match other {
                Some((other, known)) if *known != address => {
                    let sentence =
                        format!("names {address}, of which {other} takes a part or all with {known}: change one");
                    self.mistake(path, sentence);
                }
                Some((other, _)) if *other == path => self.mistake(path, format!("names {address} twice")),
                Some((other, _)) => self.mistake(path, format!("is {address}, which {other} takes too: change one")),
                None => taken.push((path, address)),
            }
        }
    }

    fn anonymous_beyond_loopback(&mut self, settings: &Settings) {
        if let (Some((key, why)), None) = (settings.exposed(), settings.auth.anonymous) {
            let sentence = format!(
                "{why}, so clients without a token are refused everywhere (4401), and tokens are not available yet: set \
                 auth.anonymous = true to let them listen"
            );
            self.warning(key, sentence);
        }
    }
}

/// Whether a part of a log filter looks like a level and is none. The library would take it for a part of the program, let
/// everything of that through, and nothing of anything else.
fn is_no_level(word: &str) -> bool {
    !word.contains(['=', '[']) && !LEVELS.iter().any(|level| word.eq_ignore_ascii_case(level))
}

/// Whether something else than a socket stands at this path.
fn is_no_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|there| !there.file_type().is_socket())
}

/// Whether two listeners cannot be at the same time: one address, or one of which another is a part.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let covers = |wide: IpAddr, narrow: IpAddr| match wide {
        // Every IPv4 address too, as all listeners here take it.
        IpAddr::V6(every) => every.is_unspecified(),
        IpAddr::V4(every) => every.is_unspecified() && narrow.is_ipv4(),
    };
    let alike = one.ip() == other.ip() || covers(one.ip(), other.ip()) || covers(other.ip(), one.ip());
    one.port() == other.port() && one.port() != 0 && alike
}

/// What is wrong with an alias, if anything.
fn alias_fault(alias: &str, name: &str) -> Option<String> {
    let negotiable = || REGISTRY.iter().filter(|row| row.negotiable).map(|row| row.name);
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if alias.is_empty() || !alias.bytes().all(token) {
        return Some("is no name that a handshake can carry: use ASCII letters, digits, dots and hyphens".into());
    }
    if negotiable().any(|known| known == alias) {
        return Some("is the name of a subprotocol already: choose another".into());
    }
    if negotiable().any(|known| known == name) {
        return None;
    }
    let all = negotiable().collect::<Vec<_>>().join(", ");
    let hint = nearest(name, negotiable()).map(|known| format!(": did you mean {known}?")).unwrap_or_default();
    Some(format!("stands for {name:?}, which is none of {all}{hint}"))
}
