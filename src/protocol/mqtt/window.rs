//! What the client has still to acknowledge: packet ids in use, and how many more it takes. Where the session outlives its
//! connection the packets are kept, to be sent again on the next [MQTT-4.4.0-1].

use std::collections::VecDeque;
use std::num::NonZeroU16;

use bytes::Bytes;

use super::packet::PacketId;

/// Messages at QoS 1 that one client may hold, whatever more it would take: what comes beyond waits in the log.
const HELD_MAX: u16 = 256;

/// Bytes of the packets that are kept for one client, likewise; one packet may come with it.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// In the first byte of a PUBLISH: that it may have been sent before (MQTT 5.0 §3.3.1.1).
const DUPLICATE: u8 = 0b0000_1000;

/// A message that is not acknowledged: its packet id, and the packet where that is kept.
pub(super) type Unacknowledged = (PacketId, Bytes);

/// The window of one connection.
#[derive(Debug)]
pub(super) struct Window {
    max: u16,
    next: NonZeroU16,
    /// What the client was sent, the oldest first.
    held: VecDeque<Unacknowledged>,
    /// What an earlier connection of the session was sent, and this one was not yet: it comes before anything else.
    again: VecDeque<Unacknowledged>,
    kept_bytes: usize,
}

impl Default for Window {
    fn default() -> Self {
        Self { max: HELD_MAX, next: NonZeroU16::MIN, held: VecDeque::new(), again: VecDeque::new(), kept_bytes: 0 }
    }
}

impl Window {
    /// For a client that takes so many at a time (Receive Maximum, MQTT 5.0 §3.1.2.11.3).
    pub(super) fn of(receive_maximum: Option<NonZeroU16>) -> Self {
        let max = receive_maximum.map_or(HELD_MAX, |max| max.get().min(HELD_MAX));
        Self { max, ..Self::default() }
    }

    /// How many it takes at a time.
    pub(super) fn max(&self) -> u16 {
        self.max
    }

    /// How many more it takes now.
    pub(super) fn room(&self) -> usize {
        if !self.again.is_empty() || self.kept_bytes >= KEPT_BYTES_MAX {
            return 0;
        }
        usize::from(self.max).saturating_sub(self.held.len())
    }

    /// The packet id of one more message. The same id is given again as late as may be.
    pub(super) fn take(&mut self) -> PacketId {
        let mut id = PacketId(self.next);
        // There are far more ids than may be held.
        while self.held.iter().any(|(held, _)| *held == id) {
            id = PacketId(after(id.0));
        }
        self.next = after(id.0);
        self.held.push_back((id, Bytes::new()));
        id
    }

    /// Keeps the packet of the message that was taken last.
    pub(super) fn keep(&mut self, packet: &Bytes) {
        if let Some((_, kept)) = self.held.back_mut() {
            self.kept_bytes += packet.len();
            kept.clone_from(packet);
        }
    }

    /// The client has acknowledged it. False when it held no such message.
    pub(super) fn settle(&mut self, id: PacketId) -> bool {
        let place = self.held.iter().position(|(held, _)| *held == id);
        let settled = place.and_then(|place| self.held.remove(place));
        self.kept_bytes -= settled.as_ref().map_or(0, |(_, packet)| packet.len());
        settled.is_some()
    }

    /// The message that was sent last takes no room: its client cannot be sent it.
    pub(super) fn settle_last(&mut self) {
        if let Some((id, _)) = self.held.back() {
            self.settle(*id);
        }
    }

    /// What the next connection of the session is to be sent again, the oldest first.
    pub(super) fn into_unacknowledged(self) -> Vec<Unacknowledged> {
        // What was not kept had no room in the client.
        self.held.into_iter().chain(self.again).filter(|(_, packet)| !packet.is_empty()).collect()
    }

    /// What is to be sent again, as [`Self::next_again`] gives it.
    pub(super) fn send_again(&mut self, unacknowledged: Vec<Unacknowledged>) {
        self.again = unacknowledged.into();
    }

    /// The next packet that is to be sent again, if the client takes one more now: it is marked as one that may come twice.
    pub(super) fn next_again(&mut self) -> Option<Bytes> {
        if self.held.len() >= usize::from(self.max) {
            return None;
        }
        let (id, packet) = self.again.pop_front()?;
        let mut marked = packet.to_vec();
        if let Some(first) = marked.first_mut() {
            *first |= DUPLICATE;
        }
        let marked = Bytes::from(marked);
        self.kept_bytes += marked.len();
        self.held.push_back((id, marked.clone()));
        Some(marked)
    }
}

fn after(number: NonZeroU16) -> NonZeroU16 {
    number.checked_add(1).unwrap_or(NonZeroU16::MIN)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_client_that_takes_few_is_sent_few() {
        assert_eq!(Window::default().room(), 256);
        assert_eq!(Window::of(NonZeroU16::new(3)).room(), 3);
        assert_eq!(Window::of(Some(NonZeroU16::MAX)).room(), 256);
    }

    #[test]
    fn ids_go_round_and_pass_over_those_that_are_held() {
        let mut window = Window::default();
        let first = window.take();
        for _ in 1..65_535 {
            let id = window.take();
            assert!(window.settle(id));
        }
        assert_eq!(window.take().0.get(), 2, "1 is held");
        assert!(window.settle(first));
        assert!(!window.settle(first));
    }

    #[test]
    fn what_was_not_acknowledged_comes_again_in_order_and_before_anything_else() {
        let packet = |number: u8| Bytes::from(vec![0x32, number]);
        let mut first = Window::of(NonZeroU16::new(4));
        let ids: Vec<PacketId> = (0..4)
            .map(|number| {
                let id = first.take();
                first.keep(&packet(number));
                id
            })
            .collect();
        assert!(first.settle(ids[1]));
        let mut second = Window::of(NonZeroU16::new(2));
        second.send_again(first.into_unacknowledged());
        assert_eq!(second.room(), 0);
        let again = |window: &mut Window| std::iter::from_fn(|| window.next_again()).collect::<Vec<Bytes>>();
        assert_eq!(again(&mut second), [vec![0x3a, 0], vec![0x3a, 2]]);
        assert_eq!(second.room(), 0);
        assert!(second.settle(ids[0]));
        assert_eq!((again(&mut second), second.room()), (vec![Bytes::from(vec![0x3a, 3])], 0));
        assert!(second.settle(ids[2]) && second.settle(ids[3]));
        assert_eq!((second.room(), second.kept_bytes), (2, 0));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut window = Window::default();
        let id = window.take();
        window.keep(&Bytes::from(vec![0; KEPT_BYTES_MAX]));
        assert_eq!(window.room(), 0);
        assert!(window.settle(id));
        assert_eq!(window.room(), 256);
    }

    proptest! {
        #[test]
        fn an_id_is_of_one_message_at_a_time(steps in prop::collection::vec(any::<Option<u8>>(), 0..200)) {
            let (mut window, mut held) = (Window::of(NonZeroU16::new(20)), Vec::new());
            for step in steps {
                match step {
                    None if window.room() > 0 => {
                        let id = window.take();
                        prop_assert!(!held.contains(&id));
                        held.push(id);
                    }
                    Some(which) if !held.is_empty() => {
                        let id = held.swap_remove(usize::from(which) % held.len());
                        prop_assert!(window.settle(id));
                    }
                    _ => {}
                }
                prop_assert_eq!(window.room(), 20 - held.len());
            }
        }
    }
}
