//! What one connection still has to be sent after its socket would not take more: whole frames in order, bounded in
//! frames and bytes. While the socket keeps up, an outbox is empty and owns no memory. It knows no socket.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

/// Bounds of one outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxBounds {
    /// Frames that may wait.
    pub frames_max: usize,
    /// Bytes that may wait.
    pub bytes_max: usize,
}

/// More waits than the bounds allow: the reader is too slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overflow;

/// Frames waiting for a socket to drain. The first may be partly written.
#[derive(Debug, Default)]
pub struct Outbox {
    waiting: VecDeque<Bytes>,
    bytes: usize,
}

impl Outbox {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a frame without looking at the bounds: for the server's own short answers and endings.
    pub fn push(&mut self, frame: Bytes) {
        if !frame.is_empty() {
            self.bytes += frame.len();
            self.waiting.push_back(frame);
        }
    }

    /// Adds a frame.
    ///
    /// # Errors
    /// [`Overflow`] when it would pass the bounds; then nothing was added. A single frame always fits into an empty outbox.
    pub fn push_bounded(&mut self, frame: Bytes, bounds: OutboxBounds) -> Result<(), Overflow> {
        let full = self.bytes + frame.len() > bounds.bytes_max || self.waiting.len() >= bounds.frames_max;
        if full && !self.is_empty() {
            return Err(Overflow);
        }
        self.push(frame);
        Ok(())
    }

    /// Takes all that waits, in order.
    pub fn take_all(&mut self) -> impl Iterator<Item = Bytes> + use<> {
        self.bytes = 0;
        std::mem::take(&mut self.waiting).into_iter()
    }

    /// Fills `slices` with what comes next, for one vectored write, and says how many were filled.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slice, frame) in slices.iter_mut().zip(&self.waiting) {
            *slice = IoSlice::new(frame);
            filled += 1;
        }
        filled
    }

    /// Forgets what the socket took. An outbox that became empty gives its memory back.
    pub fn advance(&mut self, mut written: usize) {
        self.bytes = self.bytes.saturating_sub(written);
        while let Some(front) = self.waiting.front_mut() {
            if front.len() > written {
                front.advance(written);
                return;
            }
            written -= front.len();
            self.waiting.pop_front();
        }
        self.waiting = VecDeque::new();
    }

    /// Drops everything that no byte was written of, as when only an ending is left to be said.
    ///
    /// `started` says whether the first frame was partly written; it is then kept, so that the stream stays readable.
    pub fn drop_unstarted(&mut self, started: Started) {
        self.waiting.truncate(match started {
            Started::Yes => 1,
            Started::No => 0,
        });
        self.bytes = self.waiting.iter().map(Bytes::len).sum();
    }
}

/// Whether the first waiting frame was partly written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Started {
    /// Some bytes of it are on the wire.
    Yes,
    /// None are.
    No,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: OutboxBounds = OutboxBounds { frames_max: 4, bytes_max: 10 };

    fn frame(length: usize) -> Bytes {
        vec![b'x'; length].into()
    }

    #[test]
    fn bounds_hold_in_bytes_and_frames_but_one_frame_always_fits() {
        let mut outbox = Outbox::default();
        assert_eq!(outbox.push_bounded(frame(100), BOUNDS), Ok(()));
        assert_eq!(outbox.push_bounded(frame(1), BOUNDS), Err(Overflow));
        outbox.advance(100);
        for _ in 0..4 {
            assert_eq!(outbox.push_bounded(frame(1), BOUNDS), Ok(()));
        }
        assert_eq!(outbox.push_bounded(frame(1), BOUNDS), Err(Overflow));
    }

    #[test]
    fn an_ending_keeps_the_frame_that_was_begun() {
        let mut outbox = Outbox::default();
        [frame(5), frame(6), frame(7)].into_iter().for_each(|frame| outbox.push(frame));
        outbox.advance(2);
        outbox.drop_unstarted(Started::Yes);
        assert_eq!(outbox.bytes(), 3);
        outbox.drop_unstarted(Started::No);
        assert!(outbox.is_empty());
        assert_eq!(outbox.bytes(), 0);
    }

    proptest! {
        /// Whatever the sizes of frames and writes, the bytes come out once and in order.
        #[test]
        fn bytes_come_out_once_and_in_order(lengths in prop::collection::vec(0usize..40, 0..20), writes in prop::collection::vec(1usize..64, 1..200)) {
            let mut outbox = Outbox::default();
            let mut expected = Vec::new();
            for (number, length) in lengths.iter().enumerate() {
                let bytes = vec![number as u8; *length];
                expected.extend_from_slice(&bytes);
                outbox.push(bytes.into());
            }
            let mut seen = Vec::new();
            for take in writes.iter().cycle() {
                let mut slices = [IoSlice::new(&[]); 3];
                let filled = outbox.slices(&mut slices);
                let offered: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect();
                let written = offered.len().min(*take);
                seen.extend_from_slice(&offered[..written]);
                outbox.advance(written);
                if outbox.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(seen, expected);
            prop_assert_eq!(outbox.bytes(), 0);
        }
    }
}
