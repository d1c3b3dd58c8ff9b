//! Bytes on their way to a socket, and how the broker's deliveries become such. Knows frames, and neither the socket nor
//! the conversation.

use super::broker::Outgoing;
use super::channel::cancel_notice;
use super::limits::OUTPUT_BYTES_MAX;
use super::wire::{self, DeliveryHead, put_method};

/// Bytes for the socket.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pub(crate) bytes: Vec<u8>,
    sent: usize,
}

impl Output {
    /// What is still to be sent.
    pub(crate) fn pending(&self) -> &[u8] {
        self.bytes.get(self.sent..).unwrap_or_default()
    }

    /// Notes that bytes were sent, and lets go of them.
    pub(crate) fn advance(&mut self, count: usize) {
        self.sent += count;
        if self.sent >= self.bytes.len() {
            self.sent = 0;
            self.bytes.clear();
            self.bytes.shrink_to(2 * OUTPUT_BYTES_MAX);
        } else if self.sent > OUTPUT_BYTES_MAX / 2 {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// Whether nothing should be added until some of it is sent.
    pub(crate) fn is_full(&self) -> bool {
        self.pending().len() >= OUTPUT_BYTES_MAX
    }
}

/// Writes a delivery or the end of a consumer.
pub(crate) fn put_outgoing(out: &mut Vec<u8>, outgoing: Outgoing, frame_bytes_max: usize) {
    match outgoing {
        Outgoing::Deliver { channel, consumer_tag, delivery_tag, redelivered, message } => {
            let head = DeliveryHead { consumer_tag: &consumer_tag, delivery_tag, redelivered };
            wire::put_deliver(out, channel, &head, &message);
            wire::put_content(out, channel, &message, frame_bytes_max);
        }
        Outgoing::Cancel { channel, consumer_tag } => {
            put_method(out, channel, cancel_notice(&consumer_tag));
        }
    }
}
