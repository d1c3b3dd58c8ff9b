//! Positions in a log that is a RabbitMQ stream: the stream's own offset, and with it a mark of the message that stands
//! there. Both are one number, in the order of the stream, so that everybody who compares positions goes on doing so, while
//! a position from another stream, or from the same name before it was deleted and made anew, is recognised.
//!
//! A position names the last message seen, as everywhere: the message at the stream's offset 0 is at a position above 0.

/// Bits of a position that hold the mark.
const MARK_BITS: u32 = 22;

/// The highest offset that a position can name: about four million million messages.
pub const OFFSET_MAX: u64 = (1 << (u64::BITS - MARK_BITS)) - 2;

/// The mark of a place rather than a message: above every message's, so that the place is after the message before it.
const PLACE: u64 = (1 << MARK_BITS) - 1;

/// The position of the message at a stream's offset, with a hash of what it is; nothing beyond [`OFFSET_MAX`].
pub fn position(offset: u64, hash: u64) -> Option<u64> {
    (offset <= OFFSET_MAX).then(|| ((offset + 1) << MARK_BITS) | (hash % PLACE))
}

/// The position right before whatever stands at a stream's offset.
pub fn before(offset: u64) -> u64 {
    if offset == 0 { 0 } else { (offset.min(OFFSET_MAX) << MARK_BITS) | PLACE }
}

/// The stream's offset that follows a position.
pub fn following(position: u64) -> u64 {
    position >> MARK_BITS
}

/// The stream's offset of the message that a position names; nothing where it names none, but only a place before one.
pub fn named(position: u64) -> Option<u64> {
    if position & PLACE == PLACE { None } else { following(position).checked_sub(1) }
}

/// The first of the stream's offsets between two positions, if messages may have stood there. A single one RabbitMQ takes for
/// itself wherever it begins a new segment.
pub fn between(before: u64, after: u64) -> Option<u64> {
    let expected = following(before);
    (following(after) > expected + 2).then_some(expected)
}

/// Whether a number is a position at all: before the first message there is only 0.
pub fn is_position(number: u64) -> bool {
    number == 0 || following(number) > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_in_the_order_of_the_stream_whatever_the_marks() {
        for (hash, other) in [(0, u64::MAX), (u64::MAX, 0), (7, 7)] {
            for offset in [0, 1, 1 << 41, OFFSET_MAX - 1] {
                let (here, next) = (position(offset, hash).unwrap(), position(offset + 1, other).unwrap());
                assert!(before(offset) < here && here < before(offset + 1) && before(offset + 1) < next);
            }
        }
    }

    #[test]
    fn a_position_names_its_message() {
        for offset in [0, 1, 77, OFFSET_MAX] {
            let here = position(offset, 1234).unwrap();
            assert_eq!((named(here), following(here)), (Some(offset), offset + 1));
            assert_eq!((named(before(offset)), following(before(offset))), (None, offset));
            assert_ne!(Some(here), position(offset, 1235), "another message there");
        }
        assert_eq!(position(OFFSET_MAX + 1, 0), None);
        assert_eq!([0, 1, before(1), u64::MAX].map(is_position), [true, false, true, true]);
    }

    #[test]
    fn offsets_at_which_messages_may_have_stood_are_found() {
        let at = |offset| position(offset, 1234).unwrap();
        for (earlier, later, first) in [
            (at(7), at(8), None),
            (at(7), at(9), None),
            (at(7), at(10), Some(8)),
            (at(7), at(7), None),
            (before(7), at(7), None),
            (before(7), at(8), None),
            (before(7), at(9), Some(7)),
            (0, at(0), None),
            (0, at(2), Some(0)),
        ] {
            assert_eq!(between(earlier, later), first, "{earlier} {later}");
        }
    }
}
