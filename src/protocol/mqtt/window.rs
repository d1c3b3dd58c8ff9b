//! What the client has still to acknowledge: packet ids in use, and how many more it takes.

use std::collections::BTreeSet;
use std::num::NonZeroU16;

use super::packet::PacketId;

/// Messages at QoS 1 that one client may hold, whatever more it would take: what comes beyond waits in the log.
const HELD_MAX: u16 = 256;

/// The window of one connection.
#[derive(Debug)]
pub(super) struct Window {
    max: u16,
    next: NonZeroU16,
    held: BTreeSet<PacketId>,
}

impl Default for Window {
    fn default() -> Self {
        Self { max: HELD_MAX, next: NonZeroU16::MIN, held: BTreeSet::new() }
    }
}

impl Window {
    /// For a client that takes so many at a time (Receive Maximum, MQTT 5.0 §3.1.2.11.3).
    pub(super) fn of(receive_maximum: Option<NonZeroU16>) -> Self {
        let max = receive_maximum.map_or(HELD_MAX, |max| max.get().min(HELD_MAX));
        Self { max, ..Self::default() }
    }

    /// How many more it takes now.
    pub(super) fn room(&self) -> usize {
        usize::from(self.max).saturating_sub(self.held.len())
    }

    /// The packet id of one more message. The same id is given again as late as may be.
    pub(super) fn take(&mut self) -> PacketId {
        let mut id = PacketId(self.next);
        // There are far more ids than may be held.
        while self.held.contains(&id) {
            id = PacketId(after(id.0));
        }
        self.next = after(id.0);
        self.held.insert(id);
        id
    }

    /// The client has acknowledged it. False when it held no such message.
    pub(super) fn settle(&mut self, id: PacketId) -> bool {
        self.held.remove(&id)
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
