//! The table of configuration keys: every key with its kind, its default and what it does.
//!
//! One row here is all that a new key needs to be read from files, environment and documentation; `settle` gives it its
//! meaning.
//!
//! Long because it is one idea repeated: a row a key.

use super::key::{Key, Kind, Section};

/// No upper bound.
const ANY: u64 = u64::MAX;

/// A number that must not be zero.
const SOME: Kind = Kind::Count { least: 1, most: ANY };

/// A duration that must not be zero.
const WHILE: Kind = Kind::Time { least_ms: 1 };

/// A size that must not be zero.
const BYTES: Kind = Kind::Size { least: 1 };

/// Every section, in the order of the reference file.
pub static SECTIONS: &[Section] = &[
    Section {
        path: "server",
        example: "server",
        title: "The public listener",
        about: "Where browsers come in: WebSocket, Server-Sent Events and the landing page.",
        keys: SERVER,
        also: &[],
    },
    Section {
        path: "admin",
        example: "admin",
        title: "The admin listener",
        about: "Metrics, health and the API. It has no passwords yet: keep it off public networks.",
        keys: ADMIN,
        also: &[],
    },
    Section {
        path: "amqp",
        example: "amqp",
        title: "The broker",
        about: "RabbitMQ, or another broker that speaks AMQP 0-9-1.",
        keys: AMQP,
        also: &[],
    },
    Section {
        path: "source.*",
        example: "source.events",
        title: "Sources: an exchange",
        about: "Where messages come from: one table a source, with a name of your choosing: ASCII letters, digits, _ and -, \
                at most 64. Each reads exactly one exchange, queue or stream. Without any there is one, events, on the \
                exchange amq.topic, which a table events that names none reads too. This one reads an exchange through \
                a queue of its own. Who else gets the message: everybody who is bound to the exchange still gets every \
                message; passerelle takes nothing away.",
        keys: SOURCE,
        also: &[],
    },
    Section {
        path: "source.*",
        example: "source.orders",
        title: "Sources: a queue",
        about: "This one reads an existing queue. Who else gets the message: nobody; a queue gives each message to one \
                consumer, so passerelle takes it away from every other consumer of the queue. Of several nodes one reads; \
                with a stream beside the queue it moves the messages there, and all nodes read them from the stream.",
        keys: SOURCE_QUEUE,
        also: &["declare = false"],
    },
    Section {
        path: "source.*",
        example: "source.audit",
        title: "Sources: a stream",
        about: "This one reads a RabbitMQ stream, which keeps its messages, so that clients can resume on every node and \
                after every restart; the embedded broker has none. Who else gets the message: everybody; reading a stream takes nothing away.",
        keys: SOURCE_STREAM,
        also: &["exchange = \"audit\"", "bindings = \"all\"", "declare = false"],
    },
    Section {
        path: "publish",
        example: "publish",
        title: "Publishing",
        about: "Where what clients publish goes.",
        keys: PUBLISH,
        also: &[],
    },
    Section {
        path: "call",
        example: "call",
        title: "Calls",
        about: "Where what clients ask goes: AMQP request and reply.",
        keys: CALL,
        also: &[],
    },
    Section {
        path: "route.*",
        example: "route.rpc",
        title: "Routes",
        about: "Exceptions to both: publishes and calls on some topics go to another exchange. Of two routes that match \
                a topic, the narrower pattern counts.",
        keys: ROUTE,
        also: &[],
    },
    Section {
        path: "consume.*",
        example: "consume.inbox",
        title: "Queues for clients to consume",
        about: "Queues whose messages clients take and settle themselves: a table each, with a name of your choosing. Any \
                other queue is forbidden to them. Who else gets the message: nobody; a queue gives each message to one \
                consumer, and again to another if that one does not settle it.",
        keys: CONSUME,
        also: &[],
    },
    Section {
        path: "presence.*",
        example: "presence.rooms",
        title: "Presence",
        about: "Patterns of which clients may ask who is subscribed to them: a table each, with a name of your choosing. Of \
                two tables that include a pattern, the narrower counts. It is off for any other pattern.",
        keys: PRESENCE,
        also: &[],
    },
    Section {
        path: "cloudevents",
        example: "cloudevents",
        title: "CloudEvents",
        about: "How messages that are no CloudEvents are called where they go out as such (cloudevents.json): by templates with \
                {source}, {topic} and {header.NAME}.",
        keys: CLOUDEVENTS,
        also: &[],
    },
    Section {
        path: "auth",
        example: "auth",
        title: "Who may come in",
        about: "Tokens are not available yet: everybody is anonymous.",
        keys: AUTH,
        also: &[],
    },
    Section {
        path: "limits",
        example: "limits",
        title: "Limits of one session",
        about: "What one client may use. Whoever goes beyond is refused or closed in words; nobody else notices.",
        keys: LIMITS,
        also: &[],
    },
    Section {
        path: "poll",
        example: "poll",
        title: "Polling",
        about: "What /poll answers, for clients that can have nothing that stays open.",
        keys: POLL,
        also: &[],
    },
    Section {
        path: "mqtt",
        example: "mqtt",
        title: "MQTT",
        about: "Sessions of MQTT clients that outlive their connections, where the clients ask for it: what is kept is a \
                place in the logs, and what a client was sent and has not acknowledged.",
        keys: MQTT,
        also: &[],
    },
    Section {
        path: "compression",
        example: "compression",
        title: "Compression",
        about: "permessage-deflate (RFC 7692), without context takeover, so that one compressed frame serves everybody.",
        keys: COMPRESSION,
        also: &[],
    },
    Section {
        path: "embedded",
        example: "embedded",
        title: "The embedded broker",
        about: "A small AMQP 0-9-1 listener in memory, for those who have no RabbitMQ yet. It runs when nothing at all is \
                configured, or when it is asked for. Production means RabbitMQ.",
        keys: EMBEDDED,
        also: &[],
    },
    Section {
        path: "alias",
        example: "alias",
        title: "Aliases of subprotocols",
        about: "Further names under which clients may ask for a subprotocol, with a domain of your own in them, as RFC \
                6455 advises.",
        keys: ALIAS,
        also: &[],
    },
    Section {
        path: "logging",
        example: "logging",
        title: "Log lines",
        about: "Logs go to standard error.",
        keys: LOGGING,
        also: &[],
    },
];

const SERVER: &[Key] = &[
    Key::new(
        "server.listen",
        Kind::Texts,
        "\"127.0.0.1:8080\"",
        "Address and port to listen on, or a list of them. 0.0.0.0 is every IPv4 address of the machine, [::] every \
         address, localhost is 127.0.0.1. The variables PORT, and HOST or IP when they parse as an address, replace port \
         and address of what the file says.",
    )
    .flag("--listen"),
    Key::optional(
        "server.unix_socket",
        Kind::Path,
        "\"/run/passerelle/passerelle.sock\"",
        "A Unix socket to listen on as well. Without it there is none. It is there for a proxy, so it counts as reachable from \
         elsewhere: see auth.anonymous.",
    ),
    Key::new(
        "server.allowed_origins",
        Kind::Texts,
        "[]",
        "Origins whose pages may connect, beyond the same origin: \"https://example.org\", with a port if it is not the \
         scheme's own, or \"null\".",
    ),
    Key::new(
        "server.path_prefix",
        Kind::Text,
        "\"\"",
        "A prefix before every path, such as \"/live\", for hosts behind a proxy that keeps it. Empty for none.",
    ),
    Key::new(
        "server.trusted_proxies",
        Kind::Texts,
        "[]",
        "Addresses or networks (\"10.0.0.0/8\") of proxies whose Forwarded and X-Forwarded-* headers are believed.",
    ),
    Key::optional(
        "server.static_dir",
        Kind::Path,
        "\"public\"",
        "A folder whose files are served at /. Without it there is the landing page. A relative path starts at the \
         folder in which passerelle was started. Links in it are followed as long as they stay in it.",
    )
    .flag("--static"),
    Key::new(
        "server.strict",
        Kind::Flag,
        "false",
        "Whether a WebSocket handshake that offers only unknown subprotocols is refused with 400, rather than accepted \
         without one.",
    ),
    Key::new(
        "server.shards",
        Kind::Count { least: 0, most: 1024 },
        "0",
        "Threads that own connections. 0 is one a core.",
    ),
    Key::new(
        "server.connections_max",
        SOME,
        "100000",
        "Connections in all. Each needs an open file: see ulimit -n.",
    ),
    Key::new(
        "server.presence_members_max",
        SOME,
        "100000",
        "Members of patterns with presence who are remembered by name, over all nodes and patterns; a pattern of other nodes \
         costs as much as a member. Who comes beyond it is counted and not named.",
    ),
    Key::new(
        "server.handshake_timeout",
        WHILE,
        "\"10s\"",
        "How long a client may take from connecting until its handshake is answered.",
    ),
    Key::new(
        "server.head_bytes_max",
        Kind::Size { least: 8192 },
        "\"16 KiB\"",
        "Bytes of a request's head, all header fields together.",
    ),
    Key::new(
        "server.head_fields_max",
        Kind::Count { least: 16, most: 1024 },
        "64",
        "Header fields in a request's head.",
    ),
    Key::new(
        "server.heartbeat",
        Kind::Time { least_ms: 1000 },
        "\"25s\"",
        "Time between two pings. A peer that misses two is closed and everything it held is freed.",
    ),
    Key::new(
        "server.drain",
        Kind::Time { least_ms: 0 },
        "\"20s\"",
        "How long a stop may take, during which clients are told to go, spread at random.",
    ),
    Key::new(
        "server.ready_on_outage",
        Kind::Flag,
        "true",
        "Whether /readyz stays 200 while a source that once had its broker is without it. Sessions stay in any case.",
    ),
];

const ADMIN: &[Key] = &[Key::new(
    "admin.listen",
    Kind::Text,
    "\"127.0.0.1:8081\"",
    "Address and port of /metrics, /livez, /readyz and the API, or \"off\".",
)
.flag("--admin-listen")];

const AMQP: &[Key] = &[
    Key::optional(
        "amqp.url",
        Kind::Urls,
        "\"amqp://guest:guest@localhost:5672/%2f\"",
        "The broker's address, or a list: the nodes of a cluster, tried in turn. amqps:// for TLS. What follows the last \
         slash is the vhost, percent-encoded: %2f is /. The variable AMQP_URL is a fallback. It is required unless the \
         embedded broker runs.",
    )
    .flag("--amqp"),
    Key::optional(
        "amqp.url_file",
        Kind::Path,
        "\"/run/secrets/amqp_url\"",
        "A file that holds the address, instead of amqp.url. White space around it is ignored.",
    ),
    Key::new(
        "amqp.queue_prefix",
        Kind::Name,
        "\"passerelle.\"",
        "Before the name of every queue that passerelle declares, so that permissions can be given by name.",
    ),
    Key::optional(
        "amqp.node",
        Kind::Name,
        "\"web-1\"",
        "This node's name, part of its queues' names. Without it the machine's host name.",
    ),
    Key::new(
        "amqp.prefetch",
        Kind::Count { least: 1, most: 65_535 },
        "1000",
        "Deliveries that a consumer may hold before it acknowledges.",
    ),
    Key::new(
        "amqp.client_queues_max",
        SOME,
        "1000",
        "Queues that all clients together may consume at a time (see consume.NAME). Each takes a channel of one connection, \
         of which RabbitMQ allows 2047 unless its channel_max says otherwise.",
    ),
    Key::new(
        "amqp.presence_exchange",
        Kind::Name,
        "\"passerelle.presence\"",
        "A fanout exchange through which nodes tell each other who is subscribed (see presence.NAME), declared (durable) when \
         any presence is configured; or \"off\", and each node knows its own clients only. Whoever may publish there can invent \
         members.",
    ),
    Key::new(
        "amqp.presence_heartbeat",
        Kind::Time { least_ms: 100 },
        "\"10s\"",
        "Between two signs of life of a node there. The members of a node that is silent for three are gone. The same on \
         all nodes.",
    ),
    Key::new(
        "amqp.heartbeat",
        Kind::Time { least_ms: 1000 },
        "\"20s\"",
        "AMQP heartbeat, in whole seconds. The broker may ask for a shorter one.",
    ),
    Key::new("amqp.connect_timeout", WHILE, "\"10s\"", "For one attempt to connect."),
    Key::new(
        "amqp.backoff_max",
        WHILE,
        "\"15s\"",
        "The longest pause between two attempts to connect; pauses grow and are spread at random.",
    ),
    Key::optional(
        "amqp.tls_ca",
        Kind::Path,
        "\"/etc/passerelle/ca.pem\"",
        "Certificate authority for amqps://, PEM. Without it the system's.",
    ),
    Key::optional(
        "amqp.tls_certificate",
        Kind::Path,
        "\"/etc/passerelle/client.pem\"",
        "Client certificate chain, PEM. Without it none is shown.",
    ),
    Key::optional(
        "amqp.tls_key",
        Kind::Path,
        "\"/etc/passerelle/client.key\"",
        "The client certificate's private key, PEM. Goes with amqp.tls_certificate.",
    ),
    Key::new(
        "amqp.fail_fast",
        Kind::Flag,
        "false",
        "Whether serve exits when its first attempt to connect fails, rather than trying on.",
    )
    .flag("--fail-fast"),
];

const SOURCE: &[Key] = &[
    Key::optional(
        "source.*.exchange",
        Kind::Name,
        "\"amq.topic\"",
        "The exchange. Everybody else who is bound to it still gets every message.",
    ),
    Key::new(
        "source.*.type",
        Kind::Choice(&["topic", "direct", "fanout", "headers"]),
        "\"topic\"",
        "The exchange's type, which AMQP cannot be asked for: where it is another, or becomes another when the exchange is \
         made anew, bindings stand and bring other messages. topic takes any pattern; direct takes literal topics, and \
         patterns only over a list of bindings; fanout and headers are bound once and give everything. An exchange of \
         another type wants a list of bindings that it takes: a consistent-hash exchange [\"1\"].",
    ),
    Key::new(
        "source.*.bindings",
        Kind::Patterns,
        "\"on-demand\"",
        "What to bind: \"on-demand\", what clients subscribe to and nothing else; \"all\", everything, so that history \
         reaches back before the first subscriber; or a list of patterns.",
    ),
    Key::new(
        "source.*.declare",
        Kind::Flag,
        "false",
        "Whether to declare the exchange, queue or stream (durable) rather than wait for it. Where a queue stands beside a \
         stream this means the queue; that stream is declared in any case.",
    ),
    Key::optional(
        "source.*.linger",
        Kind::Time { least_ms: 0 },
        "\"10m\"",
        "How long a binding on demand stays after its last subscriber. Without it as long as the log reaches back: \
         log.age_max.",
    ),
    Key::new(
        "source.*.bindings_max",
        SOME,
        "10000",
        "Bindings on demand at most, at every moment. What clients want beyond it is folded into covering patterns: the node \
         receives more than is wanted, clients do not. A direct exchange takes none: there subscriptions are refused.",
    ),
    Key::new(
        "source.*.queue_bytes_max",
        BYTES,
        "\"64 MiB\"",
        "Bytes that the broker keeps for passerelle before it drops the oldest.",
    ),
    Key::optional(
        "source.*.topic",
        Kind::Text,
        "\"{routing_key}\"",
        "The topic of the source's messages: a fixed name or a template with {routing_key}, {exchange}, {queue}, \
         {source} and {header.NAME}. Without it the routing key, and the source's name when that is empty.",
    ),
    Key::new(
        "source.*.frames",
        Kind::Choice(&["auto", "text", "binary"]),
        "\"auto\"",
        "How payloads become WebSocket frames on passerelle.v1.raw: auto is text when they are UTF-8, else binary.",
    ),
    Key::new(
        "source.*.rejected",
        Kind::Choice(&["acknowledge", "dead-letter"]),
        "\"acknowledge\"",
        "What happens to a message that cannot be mapped to a topic, whose headers fit no frame, or that is too large: it is \
         gone, or it is rejected, so that RabbitMQ dead-letters it where the queue says so.",
    ),
    Key::new(
        "source.*.log.messages_max",
        SOME,
        "100000",
        "Messages in the source's log, from which clients resume. Live messages pass through it: it holds 1024 in any case.",
    ),
    Key::new(
        "source.*.log.bytes_max",
        BYTES,
        "\"64 MiB\"",
        "Bytes of the log's messages; held in memory, and 1 MiB in any case. A message that is larger is rejected (too_large).",
    ),
    Key::new(
        "source.*.log.age_max",
        WHILE,
        "\"10m\"",
        "Messages older than this leave the log; none does within its first second.",
    ),
    Key::new(
        "source.*.log.last_each",
        Kind::Count { least: 0, most: ANY },
        "1",
        "How many of a topic's newest messages stay when they leave the log, for subscriptions that ask for the last ones; 0 \
         for none.",
    ),
    Key::new(
        "source.*.log.last_messages_max",
        SOME,
        "10000",
        "Messages that stay in this way, of all topics; beyond it those that came first go.",
    ),
    Key::new("source.*.log.last_bytes_max", BYTES, "\"16 MiB\"", "Bytes of them, likewise; held in memory."),
];

const SOURCE_QUEUE: &[Key] = &[
    Key::optional(
        "source.*.queue",
        Kind::Name,
        "\"orders\"",
        "The queue. Every message that passerelle takes is one that no other consumer of the queue gets.",
    ),
    Key::new(
        "source.*.shared",
        Kind::Flag,
        "false",
        "Whether it is meant that passerelle shares the queue's messages with other consumers. Otherwise it warns when \
         there are any.",
    ),
];

const SOURCE_STREAM: &[Key] = &[
    Key::optional(
        "source.*.stream",
        Kind::Name,
        "\"audit\"",
        "The stream. Where the source names an exchange too, the stream is bound to it, with \"all\" (#) or the list in \
         bindings; such bindings stay. Where it names a queue too, passerelle moves the queue's messages into the stream, one \
         node at a time, by way of a fanout exchange of the stream's name, which it declares as it does the stream.",
    ),
    Key::new(
        "source.*.retention_age",
        WHILE,
        "\"7d\"",
        "How long a stream that passerelle declares keeps messages. RabbitMQ drops whole segments, an eighth of \
         retention_bytes each, so it keeps rather more.",
    ),
    Key::new("source.*.retention_bytes", BYTES, "\"4 GiB\"", "How many bytes of them, likewise."),
    Key::new(
        "source.*.replays_max",
        SOME,
        "4",
        "Consumers that read from the stream what has left the log, shared by all clients that want the same.",
    ),
    Key::new(
        "source.*.last_rebuild",
        Kind::Time { least_ms: 0 },
        "\"1h\"",
        "How far back the stream is read once at the start for the last messages of each topic, beside what is live: every \
         message of that time passes through. 0s for not at all.",
    ),
];

const CLOUDEVENTS: &[Key] = &[
    Key::new(
        "cloudevents.source",
        Kind::Text,
        "\"/{source}\"",
        "The attribute source, a reference to a URI. What is put in for a placeholder is escaped.",
    ),
    Key::new("cloudevents.type", Kind::Text, "\"{topic}\"", "The attribute type; message where it comes out empty."),
];

const MQTT: &[Key] = &[
    Key::new(
        "mqtt.session_expiry_max",
        Kind::Time { least_ms: 0 },
        "\"1h\"",
        "The longest that a session is kept, and how long where its client names no end. \"0s\": sessions end with their \
         connections. What the logs let go of before is told as a gap.",
    ),
    Key::new(
        "mqtt.sessions_max",
        Kind::Count { least: 0, most: ANY },
        "10000",
        "Sessions that are kept at a time on this node; one more ends with its connection. Each may hold 1 MiB that was not \
         acknowledged.",
    ),
    Key::new(
        "mqtt.kept_subscriptions_max",
        Kind::Count { least: 1, most: ANY },
        "200000",
        "Subscriptions of all sessions that are kept, each of which stays bound; a session that would make them more ends with \
         its connection.",
    ),
    Key::new(
        "mqtt.share_expiry",
        Kind::Time { least_ms: 1_000 },
        "\"1h\"",
        "How long RabbitMQ keeps the queue of a shared subscription ($share/group/filter) whose last member has gone, with what \
         it holds. The same on all nodes.",
    ),
    Key::new(
        "mqtt.abandoned_shares_max",
        SOME,
        "100",
        "Groups without a member on this node whose queues RabbitMQ may still keep. While there are so many no other group \
         begins: its first member is refused with 0x97.",
    ),
];

const POLL: &[Key] = &[
    Key::new(
        "poll.timeout",
        Kind::Time { least_ms: 0 },
        "\"25s\"",
        "How long a poll waits for the first message where it does not say (timeout=).",
    ),
    Key::new(
        "poll.timeout_max",
        Kind::Time { least_ms: 0 },
        "\"2m\"",
        "The longest a client may ask for; where it is shorter than the usual time and that is not set, both.",
    ),
    Key::new(
        "poll.messages_max",
        SOME,
        "1000",
        "Messages of one answer; the next poll brings the others. Of those that \"last\" asks for the newest come, so many \
         at most for each pattern and source, in the answer to the first.",
    ),
    Key::new(
        "poll.bytes_max",
        BYTES,
        "\"1 MiB\"",
        "Bytes of them, likewise; one message more may come with it, or as much as is read from a log at a time, 256 KiB, \
         or all that \"last\" brings.",
    ),
    Key::new(
        "poll.lease",
        Kind::Time { least_ms: 0 },
        "\"1m\"",
        "How long after a poll its patterns count as wanted: so the next one misses nothing though bindings linger for \
         less, and they are made again when the broker comes back in between.",
    ),
];

const PUBLISH: &[Key] = &[
    Key::new("publish.exchange", Kind::Name, "\"amq.topic\"", "The exchange; the topic is the routing key."),
    Key::new(
        "publish.persistent",
        Kind::Flag,
        "true",
        "Whether messages are published as persistent, so that durable queues keep them over a restart of the broker.",
    ),
    Key::new("publish.timeout", WHILE, "\"10s\"", "How long to wait for the broker's confirm."),
    Key::new("publish.in_flight_max", SOME, "4096", "Publishes that wait for their confirm, over all sessions."),
    Key::new(
        "publish.repeat_window",
        WHILE,
        "\"2m\"",
        "For how long a publish that is repeated to the same topic or queue with the same message_id and payload is answered \
         as the first was, and not sent again.",
    ),
    Key::new("publish.repeats_max", SOME, "65536", "Publishes that are remembered for that, over all sessions."),
];

const CALL: &[Key] = &[
    Key::new(
        "call.exchange",
        Kind::Name,
        "\"\"",
        "The exchange; empty is the default exchange, where the topic is the name of the queue that answers.",
    ),
    Key::new("call.timeout", WHILE, "\"10s\"", "How long to wait for the answer when the client does not say."),
    Key::new(
        "call.timeout_max",
        WHILE,
        "\"2m\"",
        "The longest a client may ask for; where it is shorter than the usual time and that is not set, both.",
    ),
    Key::new("call.in_flight_max", SOME, "4096", "Calls that wait for their answer, over all sessions."),
];

const ROUTE: &[Key] = &[
    Key::optional("route.*.pattern", Kind::Text, "\"rpc.#\"", "The topics that the route is for. Required."),
    Key::optional("route.*.exchange", Kind::Name, "\"services\"", "The exchange that they go to. Required."),
];

const CONSUME: &[Key] = &[
    Key::optional(
        "consume.*.queue",
        Kind::Name,
        "\"inbox.{user}\"",
        "The queue. {user}, a whole word between dots, stands for the client's own name, in which everything but ASCII \
         letters, digits, - and _ becomes % and two hexadecimal digits; who is anonymous has no such queue. Required.",
    ),
    Key::new(
        "consume.*.declare",
        Kind::Flag,
        "false",
        "Whether to declare the queue (durable) when a client consumes it, rather than refuse when there is none.",
    ),
    Key::optional(
        "consume.*.expires",
        Kind::Time { least_ms: 1000 },
        "\"7d\"",
        "With declare: RabbitMQ deletes the queue, messages included, when nobody has consumed it for so long. At most \
         49 days. Without it the queue stays for good.",
    ),
    Key::new(
        "consume.*.prefetch_max",
        Kind::Count { least: 1, most: 65_535 },
        "100",
        "Messages that one client may hold unsettled. Who asks for more gets so many, who does not ask gets one.",
    ),
    Key::new(
        "consume.*.hold_max",
        Kind::Time { least_ms: 1000 },
        "\"25m\"",
        "How long a client may hold a message before it goes back to the queue and the client is told. Keep it below \
         RabbitMQ's consumer_timeout, 30 minutes by default, which takes everything back that the client holds.",
    ),
];

const PRESENCE: &[Key] = &[
    Key::optional(
        "presence.*.pattern",
        Kind::Text,
        "\"chat.*\"",
        "The patterns that it is for: subscriptions to a pattern that this one includes. Required.",
    ),
    Key::new(
        "presence.*.join_leave",
        Kind::Flag,
        "false",
        "Whether subscribers of a pattern are told who comes and goes.",
    ),
    Key::new(
        "presence.*.members_max",
        Kind::Count { least: 0, most: 1_000 },
        "100",
        "Members of one pattern who are named. When there are more, only their count is told, and nobody's coming and going, \
         until there are three quarters as many.",
    ),
];

const AUTH: &[Key] = &[
    Key::optional(
        "auth.anonymous",
        Kind::Flag,
        "false",
        "Whether clients without a token may listen. Without it they may from this machine only: while every listener is \
         on loopback, admin.listen and embedded.listen too, there is no server.unix_socket, and no proxy stands between.",
    ),
    Key::optional(
        "auth.anonymous_publish",
        Kind::Flag,
        "false",
        "Whether clients without a token may publish, call and consume too. Without it they may with the embedded broker \
         only.",
    ),
];

const LIMITS: &[Key] = &[
    Key::new("limits.message_bytes_max", BYTES, "\"1 MiB\"", "Bytes of one message from a client, inflated."),
    Key::new("limits.subscriptions_max", SOME, "10000", "Patterns that one session may subscribe to."),
    Key::new(
        "limits.publishes_in_flight_max",
        SOME,
        "64",
        "Publishes of one session without their confirm; beyond it its socket is not read.",
    ),
    Key::new(
        "limits.calls_in_flight_max",
        SOME,
        "32",
        "Calls of one session without their answer; one more is refused with `limit`.",
    ),
    Key::new(
        "limits.queues_max",
        SOME,
        "16",
        "Queues that one session may consume at a time. \
         As many again may be cancelled while something of theirs is not settled.",
    ),
    Key::new(
        "limits.outbox_bytes_max",
        BYTES,
        "\"1 MiB\"",
        "Bytes of answers and notices that may wait for one socket to drain before its session is ended as too slow. Results \
         of calls do not count; with more of them waiting its socket is not read.",
    ),
    Key::new("limits.outbox_frames_max", SOME, "65536", "Frames that may wait likewise."),
    Key::new(
        "limits.behind_bytes",
        BYTES,
        "\"64 KiB\"",
        "Bytes that may wait for one socket before its subscriptions fall behind: live messages are no longer pushed to it, \
         but read from the log when it takes more again.",
    ),
    Key::new(
        "limits.on_slow",
        Kind::Choice(&["catch-up", "latest", "drop-oldest"]),
        "\"catch-up\"",
        "What a subscription that fell behind is sent, unless it said itself: everything, of each topic the newest message \
         alone, or the newest messages of all.",
    ),
    Key::new(
        "limits.drop_oldest_keep",
        SOME,
        "1000",
        "How many messages a subscription with drop-oldest is still sent.",
    ),
    Key::new(
        "limits.stall_timeout",
        WHILE,
        "\"2h\"",
        "How long a socket may take nothing of what waits for it before its session is ended as too slow.",
    ),
    Key::new("limits.last_max", SOME, "1000", "Retained messages that one subscribe may bring with \"last\"."),
    Key::new(
        "limits.unauthenticated_timeout",
        WHILE,
        "\"10s\"",
        "How long a session may stay without saying who it is.",
    ),
];

const COMPRESSION: &[Key] = &[
    Key::new("compression.enabled", Kind::Flag, "true", "Whether it is negotiated with clients that offer it."),
    Key::new(
        "compression.bytes_min",
        Kind::Size { least: 0 },
        "256",
        "Messages smaller than this are sent as they are.",
    ),
    Key::new("compression.level", Kind::Count { least: 1, most: 9 }, "3", "1 is fast, 9 is small."),
];

const EMBEDDED: &[Key] = &[
    Key::optional(
        "embedded.enabled",
        Kind::Flag,
        "true",
        "Whether the embedded broker runs. Without it, it does when nothing at all is configured. Of this and amqp.url, \
         what is set later counts: file, environment, flag.",
    )
    .flag("--embedded"),
    Key::new(
        "embedded.listen",
        Kind::Text,
        "\"127.0.0.1:5672\"",
        "Where it listens. It knows no passwords: keep it on loopback.",
    ),
    Key::new(
        "embedded.memory_bytes_max",
        BYTES,
        "\"256 MiB\"",
        "Bytes of all queued messages; beyond it publishers are blocked.",
    ),
    Key::new("embedded.connections_max", SOME, "1000", "Connections at most."),
];

const ALIAS: &[Key] = &[Key::optional(
    "alias.*",
    Kind::Text,
    "\"passerelle.v1.json\"",
    "The name is the alias, the value the subprotocol that it stands for.",
)];

const LOGGING: &[Key] = &[
    Key::new(
        "logging.filter",
        Kind::Text,
        "\"info\"",
        "What is logged: a level (error, warn, info, debug, trace), and levels of single parts behind commas, as in \
         \"info,passerelle::source=debug\". The AMQP library, lapin, is heard only when it is named.",
    )
    .flag("--log"),
    Key::new(
        "logging.format",
        Kind::Choice(&["auto", "human", "json"]),
        "\"auto\"",
        "Form of the lines: auto is human on a terminal, and JSON otherwise.",
    ),
];
