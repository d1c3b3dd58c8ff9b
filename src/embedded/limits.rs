//! Every bound that keeps a stranger from filling this process. Knows numbers only.
//!
//! What a user may want to change stands in [`crate::config::Embedded`]; these are the rest, at or below RabbitMQ's own.

use std::time::Duration;

/// Bytes of a whole frame that the listener offers in `tune`, and accepts (AMQP 0-9-1, section 4.2.3).
pub(crate) const FRAME_BYTES_MAX: u32 = 131_072;
/// Bytes of a frame below which a client may not negotiate: the protocol's own minimum.
pub(crate) const FRAME_BYTES_MIN: u32 = 4_096;
/// Bytes around a frame's payload: type, channel, size and the end mark.
pub(crate) const FRAME_OVERHEAD: usize = 8;
/// Bytes before the properties in a content header: class, weight and the body's size.
pub(crate) const CONTENT_HEAD_BYTES: usize = 12;
/// Channels of one connection.
pub(crate) const CHANNELS_MAX: u16 = 2_047;
/// Seconds between heartbeats that the listener proposes; the client's answer decides.
pub(crate) const HEARTBEAT_SECONDS: u16 = 60;
/// From accept until `connection.open` is answered.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a closing connection may take to answer `connection.close`, and to read what it was told.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);
/// How often a client that sent more ahead than is read is looked for: nothing tells of its end.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// How long a connection may be idle before the system asks whether its peer is still there, heartbeats or not.
pub(crate) const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
/// Connections beyond `connections_max` that are let in far enough to be told so.
pub(crate) const REFUSALS_MAX: usize = 32;

/// Bytes of one message's body.
pub(crate) const BODY_BYTES_MAX: u64 = 16 << 20;
/// Bytes of bodies that are still being received, over all connections.
pub(crate) const ASSEMBLING_BYTES_MAX: usize = 128 << 20;
/// How deep tables and arrays may nest in arguments and headers.
pub(crate) const TABLE_DEPTH_MAX: usize = 32;
/// Keys that `CC` and `BCC` may add to a message.
pub(crate) const EXTRA_KEYS_MAX: usize = 256;

/// Exchanges in all.
pub(crate) const EXCHANGES_MAX: usize = 2_000;
/// Queues in all.
pub(crate) const QUEUES_MAX: usize = 50_000;
/// Bindings in all.
pub(crate) const BINDINGS_MAX: usize = 100_000;
/// Consumers in all.
pub(crate) const CONSUMERS_MAX: usize = 100_000;
/// Consumers of one queue.
pub(crate) const CONSUMERS_OF_A_QUEUE_MAX: usize = 4_096;
/// Characters of one declaration's or binding's arguments, written out.
pub(crate) const ARGUMENTS_CHARACTERS_MAX: usize = 2_048;
/// The longest time to live and expiry of a queue, as RabbitMQ has it.
pub(crate) const TTL_MILLISECONDS_MAX: u64 = 315_360_000_000;

/// Bytes of deliveries that may wait for one connection; beyond it its consumers get no more until it reads.
pub(crate) const OUTBOX_BYTES_MAX: usize = 256 << 10;
/// Bytes of encoded frames that may wait for a socket; beyond it nothing more is read from that connection.
pub(crate) const OUTPUT_BYTES_MAX: usize = 1 << 20;
/// Bytes read from a socket and not yet understood, beyond one frame.
pub(crate) const INPUT_BYTES: usize = 64 << 10;

/// What a message is charged for beyond its bytes.
pub(crate) const MESSAGE_OVERHEAD: usize = 256;
/// What one place of a message in a queue is charged.
pub(crate) const ENTRY_OVERHEAD: usize = 96;
