//! What one connection still has to be sent after its socket would not take more: whole frames in order. Answers among them
//! are bounded here, in frames and bytes; what else waits is bounded by whoever adds it, and the results of calls are counted
//! for that. While the socket keeps up, an outbox is empty and owns no memory. It knows no socket.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

/// Bounds of the answers in one outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxBounds {
    /// Frames that may wait.
    pub frames_max: usize,
    /// Bytes that may wait.
    pub bytes_max: usize,
}

/// More answers wait than the bounds allow: the reader is too slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overflow;

/// Frames waiting for a socket to drain. The first may be partly written.
#[derive(Debug, Default)]
pub struct Outbox {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    answers: Answers,
    result_bytes: usize,
}

/// A frame, or what is left of it.
#[derive(Debug)]
struct Waiting {
    frame: Bytes,
    kind: Kind,
}

/// What a frame is, as far as it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Answer,
    /// Of a call.
    Result,
    Other,
}

/// How much of what waits are answers.
#[derive(Debug, Default)]
struct Answers {
    frames: usize,
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

    /// Bytes of results among them.
    pub fn result_bytes(&self) -> usize {
        self.result_bytes
    }

    /// Adds a frame that is no answer: messages, of which others see to it that there are not too many, and endings.
    pub fn push(&mut self, frame: Bytes) {
        self.add(frame, Kind::Other);
    }

    /// Adds the result of a call. It takes nothing of the answers' room: there are as many as there were calls, and whoever
    /// adds them takes no more calls while too much of them waits.
    pub fn push_result(&mut self, result: Bytes) {
        self.add(result, Kind::Result);
    }

    /// Adds an answer. Messages that wait take nothing of its room: who is sent much is not slow for that.
    ///
    /// # Errors
    /// [`Overflow`] when it would pass the bounds; then nothing was added. An answer always fits where no other waits.
    pub fn push_bounded(&mut self, answer: Bytes, bounds: OutboxBounds) -> Result<(), Overflow> {
        let Answers { frames, bytes } = self.answers;
        if frames > 0 && (bytes + answer.len() > bounds.bytes_max || frames >= bounds.frames_max) {
            return Err(Overflow);
        }
        self.add(answer, Kind::Answer);
        Ok(())
    }

    fn add(&mut self, frame: Bytes, kind: Kind) {
        if frame.is_empty() {
            return;
        }
        let one = Waiting { frame, kind };
        self.count(&one);
        self.waiting.push_back(one);
    }

    fn count(&mut self, Waiting { frame, kind }: &Waiting) {
        self.bytes += frame.len();
        match kind {
            Kind::Answer => {
                self.answers.frames += 1;
                self.answers.bytes += frame.len();
            }
            Kind::Result => self.result_bytes += frame.len(),
            Kind::Other => {}
        }
    }

    /// Takes all that waits, in order.
    pub fn take_all(&mut self) -> impl Iterator<Item = Bytes> + use<> {
        std::mem::take(self).waiting.into_iter().map(|one| one.frame)
    }

    /// Fills `slices` with what comes next, for one vectored write, and says how many were filled.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slice, one) in slices.iter_mut().zip(&self.waiting) {
            *slice = IoSlice::new(&one.frame);
            filled += 1;
        }
        filled
    }

    /// Forgets what the socket took. An outbox that became empty gives its memory back.
    pub fn advance(&mut self, mut written: usize) {
        self.bytes = self.bytes.saturating_sub(written);
        while let Some(Waiting { frame, kind }) = self.waiting.front_mut() {
            let taken = written.min(frame.len());
            match kind {
                Kind::Answer => {
                    self.answers.bytes -= taken;
                    self.answers.frames -= usize::from(taken == frame.len());
                }
                Kind::Result => self.result_bytes -= taken,
                Kind::Other => {}
            }
            if taken < frame.len() {
                frame.advance(taken);
                return;
            }
            written -= taken;
            self.waiting.pop_front();
        }
        self.waiting = VecDeque::new();
    }

    /// Drops everything that no byte was written of, as when only an ending is left to be said.
    ///
    /// `started` says whether the first frame was partly written; it is then kept, so that the stream stays readable.
    pub fn drop_unstarted(&mut self, started: Started) {
        let kept = match started {
            Started::Yes => self.waiting.pop_front(),
            Started::No => None,
        };
        *self = Self::default();
        if let Some(one) = kept {
            self.count(&one);
            self.waiting.push_back(one);
        }
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
        let pushed = [5, 3, 2].map(|length| outbox.push_bounded(frame(length), BOUNDS));
        assert_eq!(pushed, [Ok(()); 3]);
        outbox.advance(2);
        outbox.drop_unstarted(Started::Yes);
        assert_eq!(outbox.bytes(), 3);
        assert_eq!(outbox.push_bounded(frame(7), BOUNDS), Ok(()), "what was dropped takes no room");
        outbox.drop_unstarted(Started::No);
        assert!(outbox.is_empty());
        assert_eq!(outbox.bytes(), 0);
    }

    /// What is done to an outbox: a frame of this length comes, or the socket takes so many bytes.
    #[derive(Debug, Clone)]
    enum Step {
        Message(usize),
        Result(usize),
        Answer(usize),
        Taken(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0usize..30).prop_map(Step::Message),
            (0usize..30).prop_map(Step::Result),
            (1usize..8).prop_map(Step::Answer),
            (0usize..30).prop_map(Step::Taken),
        ]
    }

    proptest! {
        /// Against a list of bytes that each know whose they are, and which is the last of its frame.
        #[test]
        fn answers_are_bounded_as_if_nothing_else_waited(steps in prop::collection::vec(step(), 0..80)) {
            let (mut outbox, mut naive) = (Outbox::default(), VecDeque::<(Kind, bool)>::new());
            let bytes_of = |naive: &VecDeque<(Kind, bool)>, kind| naive.iter().filter(|byte| byte.0 == kind).count();
            for step in steps {
                match step {
                    Step::Message(length) => {
                        outbox.push(frame(length));
                        naive.extend(vec![(Kind::Other, false); length]);
                    }
                    Step::Result(length) => {
                        outbox.push_result(frame(length));
                        naive.extend(vec![(Kind::Result, false); length]);
                    }
                    Step::Answer(length) => {
                        let bytes = bytes_of(&naive, Kind::Answer);
                        let frames = naive.iter().filter(|byte| byte.1).count();
                        let fits = frames == 0 || bytes + length <= BOUNDS.bytes_max && frames < BOUNDS.frames_max;
                        prop_assert_eq!(outbox.push_bounded(frame(length), BOUNDS), if fits { Ok(()) } else { Err(Overflow) });
                        naive.extend((1..=length).filter(|_| fits).map(|at| (Kind::Answer, at == length)));
                    }
                    Step::Taken(count) => {
                        let count = count.min(naive.len());
                        outbox.advance(count);
                        naive.drain(..count);
                    }
                }
                prop_assert_eq!(outbox.bytes(), naive.len());
                prop_assert_eq!(outbox.result_bytes(), bytes_of(&naive, Kind::Result));
            }
        }

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
