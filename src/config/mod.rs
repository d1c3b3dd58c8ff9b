//! The settled configuration: what the rest of the program sees. Every value here is valid, has its unit in its type or
//! name, and its default in `Default`. How it comes about: [`load`] reads files, environment and flags, [`settle`] makes
//! sense of them and names every mistake.

pub mod document;
pub mod key;
pub mod raw;
pub mod settle;
pub mod show;
pub mod value;

mod environment;
mod file;
mod load;
mod presence;
mod source;
mod table;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::model::flow::Flow;
pub use crate::model::publication::RawFrames;
use crate::model::queue::QueueTemplate;
use crate::model::topic::Pattern;

pub use load::Inputs;
pub use presence::{Presence, Presences};
pub use source::{
    Bindings, ExchangeInput, ExchangeKind, Input, LastBounds, LogBounds, QueueInput, Rejected, Source, StreamInput,
    Supply, TemplatePart, TopicTemplate,
};
pub use table::SECTIONS;

use raw::{Mistake, Raw};

/// A configuration without mistakes.
#[derive(Debug)]
pub struct Configuration {
    /// What it means.
    pub settings: Settings,
    /// What was written, with origins.
    pub raw: Raw,
    /// What works, but perhaps not as it is meant.
    pub warnings: Vec<Mistake>,
}

/// A configuration that cannot be used.
#[derive(Debug)]
pub struct Refused {
    /// Every mistake, in the order of the places where they stand; at least one.
    pub mistakes: Vec<Mistake>,
    /// What works, but perhaps not as it is meant.
    pub warnings: Vec<Mistake>,
}

/// Reads and settles a configuration.
///
/// # Errors
/// Every mistake in it, at once.
pub fn read(inputs: &Inputs) -> Result<Configuration, Refused> {
    let (raw, mut mistakes) = load::load(inputs);
    let settled = settle::settle(&raw);
    mistakes.extend(settled.mistakes);
    let (settings, mut warnings) = (settled.settings, settled.warnings);
    Mistake::sort(&mut mistakes);
    Mistake::sort(&mut warnings);
    if mistakes.is_empty() {
        Ok(Configuration { settings, raw, warnings })
    } else {
        Err(Refused { mistakes, warnings })
    }
}

/// Everything.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The public listener.
    pub server: Server,
    /// The admin listener.
    pub admin: Admin,
    /// What one session may use.
    pub limits: Limits,
    /// Polling.
    pub poll: Poll,
    /// `[mqtt]`.
    pub mqtt: Mqtt,
    /// permessage-deflate.
    pub compression: Compression,
    /// The broker.
    pub amqp: Amqp,
    /// Where messages come from, in the order of their names; at least one once settled.
    pub sources: Vec<Source>,
    /// Where browsers' publishes go unless a route says otherwise.
    pub publish: Publish,
    /// Where browsers' calls go unless a route says otherwise.
    pub call: Call,
    /// Exceptions, the narrower pattern first.
    pub routes: Vec<Route>,
    /// Queues that clients may consume, in the order of their names.
    pub consume: Vec<Consume>,
    /// Patterns of which it can be asked who is subscribed, in the order of their names.
    pub presences: Presences,
    /// Who may come in.
    pub auth: Auth,
    /// The embedded AMQP listener; `None` when a broker is configured.
    pub embedded: Option<Embedded>,
    /// Further names for subprotocols: alias to registered name.
    pub aliases: BTreeMap<String, String>,
    /// Log lines.
    pub logging: Logging,
}

impl Settings {
    /// The key of a listener that may be reached from elsewhere than this machine, and why, if there is one. A Unix socket is
    /// there for a proxy, which may show no sign of itself.
    pub fn exposed(&self) -> Option<(&'static str, String)> {
        let address = |key, address: SocketAddr| {
            let is_local = address.ip().to_canonical().is_loopback();
            (!is_local).then(|| (key, format!("{address} is not on loopback")))
        };
        let socket = || ("server.unix_socket", "a Unix socket is there for a proxy".to_owned());
        let public = self.server.listen.iter().find_map(|listen| address("server.listen", *listen));
        public
            .or_else(|| self.server.unix_socket.as_ref().map(|_| socket()))
            .or_else(|| address("admin.listen", self.admin.listen?))
            .or_else(|| address("embedded.listen", self.embedded.as_ref()?.listen))
    }
}

/// `[server]`: the public listener.
#[derive(Debug, Clone)]
pub struct Server {
    /// Addresses to listen on.
    pub listen: Vec<SocketAddr>,
    /// A Unix socket to listen on as well.
    pub unix_socket: Option<PathBuf>,
    /// Origins allowed beyond the same origin: `https://host[:port]`, or `null`.
    pub allowed_origins: Vec<String>,
    /// A prefix before every path, such as `/live`; empty for none. Requests without it are 404.
    pub path_prefix: String,
    /// Peers whose `Forwarded` and `X-Forwarded-*` are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// A folder whose files are served at `/` instead of the landing page.
    pub static_dir: Option<PathBuf>,
    /// Whether a handshake that offers only unknown subprotocols is refused with 400.
    pub strict: bool,
    /// Shards, one thread each; 0 is one a core.
    pub shards: usize,
    /// Connections in all.
    pub connections_max: usize,
    /// Members of patterns with presence who are remembered by name, over all nodes.
    pub presence_members_max: usize,
    /// From accept until the handshake's answer.
    pub handshake_timeout: Duration,
    /// Bytes of a request's head; at least 8192.
    pub head_bytes_max: usize,
    /// Header fields in a request's head.
    pub head_fields_max: usize,
    /// Between two pings; a peer that misses two is closed.
    pub heartbeat: Duration,
    /// How long a stop may take, during which clients are told to go, spread at random.
    pub drain: Duration,
    /// Whether `/readyz` is 503 while a source is without its broker after its first link.
    pub ready_on_outage: bool,
}

/// `[admin]`: metrics, health and the API.
#[derive(Debug, Clone)]
pub struct Admin {
    /// Address to listen on; `None` switches it off.
    pub listen: Option<SocketAddr>,
}

/// `[limits]`: what one session may use.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of one message from a client, inflated.
    pub message_bytes_max: usize,
    /// Patterns of one session.
    pub subscriptions_max: usize,
    /// Publishes without their confirm; beyond it the socket is not read.
    pub publishes_in_flight_max: usize,
    /// Calls without their answer; one more is refused.
    pub calls_in_flight_max: usize,
    /// Queues that one session may consume at a time.
    pub queues_max: usize,
    /// Bytes of answers and notices that may wait for a socket to drain before the session is ended as too slow, and of results
    /// before it is not read.
    pub outbox_bytes_max: usize,
    /// Frames likewise.
    pub outbox_frames_max: usize,
    /// Bytes that may wait for a socket before live messages are no longer pushed to it but read on from the log.
    pub behind_bytes: usize,
    /// What a subscription that falls behind does when it did not say.
    pub on_slow: Flow,
    /// Messages that a subscription which drops the oldest keeps.
    pub drop_oldest_keep: usize,
    /// How long a socket may take nothing at all.
    pub stall_timeout: Duration,
    /// Messages that `last` may bring in all.
    pub last_max: usize,
    /// Without identity after the handshake.
    pub unauthenticated_timeout: Duration,
}

/// `[poll]`: long-polling.
#[derive(Debug, Clone)]
pub struct Poll {
    /// How long a poll waits that does not say.
    pub timeout: Duration,
    /// The longest that a client may ask for.
    pub timeout_max: Duration,
    /// Messages of one answer.
    pub messages_max: usize,
    /// Bytes of them; with what was read at once it may be a little more, and with a list more than that.
    pub bytes_max: usize,
    /// How long after a poll its patterns stay claimed.
    pub lease: Duration,
}

/// `[mqtt]`: sessions of MQTT clients that outlive their connections.
#[derive(Debug, Clone)]
pub struct Mqtt {
    /// The longest that one is kept; zero: none is.
    pub session_expiry_max: Duration,
    /// How many are kept at a time whose clients are away.
    pub sessions_max: usize,
    /// How many subscriptions they have in all.
    pub kept_subscriptions_max: usize,
    /// How long the queue of a shared subscription stays whose last member has gone.
    pub share_expiry: Duration,
    /// Groups that may be without a member on this node, while their queues stay, when one more begins.
    pub abandoned_shares_max: usize,
}

impl Mqtt {
    /// The longest that a session is kept where any is.
    pub fn lifetime_max(&self) -> Duration {
        if self.sessions_max == 0 { Duration::ZERO } else { self.session_expiry_max }
    }
}

/// `[compression]`: permessage-deflate without context takeover.
#[derive(Debug, Clone)]
pub struct Compression {
    /// Whether it is negotiated.
    pub enabled: bool,
    /// Messages below this many bytes are sent as they are.
    pub bytes_min: usize,
    /// 1 (fast) to 9 (small).
    pub level: u32,
}

/// `[amqp]`: the broker.
#[derive(Debug, Clone)]
pub struct Amqp {
    /// `amqp://` or `amqps://` addresses, tried in turn. With the embedded listener: its one address, which whoever starts
    /// it replaces by [`Embedded::url`] of the bound port when `embedded.listen` says port 0.
    pub urls: Vec<Secret>,
    /// Before the name of every queue that passerelle declares.
    pub queue_prefix: String,
    /// This node's name: part of its queues' names.
    pub node: String,
    /// Unacknowledged deliveries a consumer.
    pub prefetch: u16,
    /// Queues that all clients together may consume, each on a channel of its own.
    pub client_queues_max: usize,
    /// Where the nodes tell each other who is subscribed to what; empty (`off`) when this node is on its own.
    pub presence_exchange: String,
    /// Between two signs of life there.
    pub presence_heartbeat: Duration,
    /// AMQP heartbeat; the broker may ask for a shorter one.
    pub heartbeat: Duration,
    /// For one attempt to connect.
    pub connect_timeout: Duration,
    /// The longest pause between two attempts.
    pub backoff_max: Duration,
    /// Own certificate authority, PEM.
    pub tls_ca: Option<PathBuf>,
    /// Client certificate chain, PEM.
    pub tls_certificate: Option<PathBuf>,
    /// Its key, PEM.
    pub tls_key: Option<PathBuf>,
    /// Exit when the first attempt to connect fails.
    pub fail_fast: bool,
}

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

/// `[publish]`.
#[derive(Debug, Clone)]
pub struct Publish {
    /// The exchange.
    pub exchange: String,
    /// Delivery mode 2 or 1.
    pub persistent: bool,
    /// Until the broker's confirm.
    pub timeout: Duration,
    /// Publishes that wait for the broker's confirm, over all sessions.
    pub in_flight_max: usize,
    /// For how long a publish is answered, and not sent again, when it is repeated under its message id.
    pub repeat_window: Duration,
    /// Publishes that are remembered for that.
    pub repeats_max: usize,
}

/// `[call]`.
#[derive(Debug, Clone)]
pub struct Call {
    /// The exchange; empty is the default exchange.
    pub exchange: String,
    /// When the client names none.
    pub timeout: Duration,
    /// The longest a client may ask for.
    pub timeout_max: Duration,
    /// Calls that wait for their answer, over all sessions.
    pub in_flight_max: usize,
}

/// `[route.NAME]`: where publishes and calls on some topics go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Its name.
    pub name: String,
    /// The topics.
    pub pattern: Pattern,
    /// The exchange.
    pub exchange: String,
}

/// `[consume.NAME]`: a queue that clients may consume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consume {
    /// Its name: ASCII letters, digits, `_` and `-`.
    pub name: String,
    /// The queue.
    pub queue: QueueTemplate,
    /// Whether to declare it (durable) rather than expect it.
    pub declare: bool,
    /// With `declare`: the queue goes when nobody has consumed it for so long.
    pub expires: Option<Duration>,
    /// Deliveries that one client may hold.
    pub prefetch_max: u16,
    /// How long one delivery may be held before it goes back to the queue.
    pub hold_max: Duration,
}

/// `[auth]`.
#[derive(Debug, Clone, Default)]
pub struct Auth {
    /// Who comes without a token may listen: from anywhere (`true`), not at all (`false`), or, when not configured,
    /// from this machine only.
    pub anonymous: Option<bool>,
    /// Who comes without a token may publish, call and consume; when not configured, with the embedded listener only.
    pub anonymous_publish: Option<bool>,
}

/// `[embedded]`.
#[derive(Debug, Clone)]
pub struct Embedded {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Bytes of all queued messages; beyond it publishers are blocked.
    pub memory_bytes_max: usize,
    /// Connections at most.
    pub connections_max: usize,
}

/// `[logging]`.
#[derive(Debug, Clone)]
pub struct Logging {
    /// A `tracing` filter such as `info,passerelle=debug`.
    pub filter: String,
    /// Form of the lines.
    pub format: LogFormat,
}

/// Form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Human on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

impl Secret {
    /// Wraps a text that must not be printed.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for whoever has to send it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("(secret)")
    }
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 8080))],
            unix_socket: None,
            allowed_origins: Vec::new(),
            path_prefix: String::new(),
            trusted_proxies: Vec::new(),
            static_dir: None,
            strict: false,
            shards: 0,
            connections_max: 100_000,
            presence_members_max: 100_000,
            handshake_timeout: Duration::from_secs(10),
            head_bytes_max: 16 << 10,
            head_fields_max: 64,
            heartbeat: Duration::from_secs(25),
            drain: Duration::from_secs(20),
            ready_on_outage: true,
        }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: Some(SocketAddr::from(([127, 0, 0, 1], 8081))) }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes_max: 1 << 20,
            subscriptions_max: 10_000,
            publishes_in_flight_max: 64,
            calls_in_flight_max: 32,
            queues_max: 16,
            outbox_bytes_max: 1 << 20,
            outbox_frames_max: 65_536,
            behind_bytes: 64 << 10,
            on_slow: Flow::CatchUp,
            drop_oldest_keep: 1_000,
            stall_timeout: Duration::from_secs(2 * 3600),
            last_max: 1_000,
            unauthenticated_timeout: Duration::from_secs(10),
        }
    }
}

impl Default for Poll {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(25),
            timeout_max: Duration::from_secs(120),
            messages_max: 1_000,
            bytes_max: 1 << 20,
            lease: Duration::from_secs(60),
        }
    }
}

impl Default for Mqtt {
    fn default() -> Self {
        let hour = Duration::from_secs(3_600);
        Self {
            session_expiry_max: hour,
            sessions_max: 10_000,
            kept_subscriptions_max: 200_000,
            share_expiry: hour,
            abandoned_shares_max: 100,
        }
    }
}

impl Default for Compression {
    fn default() -> Self {
        Self { enabled: true, bytes_min: 256, level: 3 }
    }
}

impl Default for Amqp {
    fn default() -> Self {
        Self {
            urls: Vec::new(),
            queue_prefix: "passerelle.".into(),
            node: String::new(),
            prefetch: 1_000,
            client_queues_max: 1_000,
            presence_exchange: "passerelle.presence".into(),
            presence_heartbeat: Duration::from_secs(10),
            heartbeat: Duration::from_secs(20),
            connect_timeout: Duration::from_secs(10),
            backoff_max: Duration::from_secs(15),
            tls_ca: None,
            tls_certificate: None,
            tls_key: None,
            fail_fast: false,
        }
    }
}

impl Default for Publish {
    fn default() -> Self {
        Self {
            exchange: "amq.topic".into(),
            persistent: true,
            timeout: Duration::from_secs(10),
            in_flight_max: 4_096,
            repeat_window: Duration::from_secs(120),
            repeats_max: 65_536,
        }
    }
}

impl Default for Call {
    fn default() -> Self {
        Self {
            exchange: String::new(),
            timeout: Duration::from_secs(10),
            timeout_max: Duration::from_secs(120),
            in_flight_max: 4_096,
        }
    }
}

impl Default for Embedded {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 5672)), memory_bytes_max: 256 << 20, connections_max: 1_000 }
    }
}

impl Default for Logging {
    fn default() -> Self {
        Self { filter: "info".into(), format: LogFormat::default() }
    }
}

#[cfg(test)]
mod tests;
