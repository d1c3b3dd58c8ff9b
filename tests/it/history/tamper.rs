//! Planted bugs: what lies between a server and its client is changed once, as a broken hub would have it. The checker must
//! find each of them.

use fastrand::Rng;
use passerelle::model::gap::GapReason;

use crate::history::node::{Frame, LineId};

/// A bug to plant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tampering {
    /// A message is skipped.
    Skip,
    /// A message comes twice.
    Repeat,
    /// Two messages of one source change places.
    Swap,
    /// A gap is not told.
    LostGap,
    /// The first live message after a replay is lost.
    LostAtBoundary,
    /// The last message of a replay comes live once more.
    DoubledAtBoundary,
    /// A gap is told where nothing was missed.
    NeedlessGap,
    /// A gap tells one more than was missed.
    WideGap,
    /// A gap tells one less than was missed.
    NarrowGap,
    /// A good cursor is called unknown.
    UnknownCursor,
    /// That nothing was missed is said when something was, or the other way round.
    FalseResume,
    /// A message comes that was sent to somebody else.
    Stray,
}

impl Tampering {
    pub(crate) const ALL: [Self; 12] = [
        Self::Skip,
        Self::Repeat,
        Self::Swap,
        Self::LostGap,
        Self::LostAtBoundary,
        Self::DoubledAtBoundary,
        Self::NeedlessGap,
        Self::WideGap,
        Self::NarrowGap,
        Self::UnknownCursor,
        Self::FalseResume,
        Self::Stray,
    ];
}

/// Passes frames on, and plants one bug at the chosen one of its chances.
pub(crate) struct Tamper {
    tampering: Option<Tampering>,
    /// Chances to let pass before.
    chances: usize,
    pub(crate) planted: bool,
    /// The connection whose replay just ended, and its last message.
    boundary: Option<(LineId, Option<Frame>)>,
    replayed: Option<(LineId, Frame)>,
    /// The last live message, and on which connection.
    sent: Option<(LineId, Frame)>,
}

impl Tamper {
    pub(crate) fn new(tampering: Option<Tampering>, seed: u64) -> Self {
        let chances = Rng::with_seed(seed ^ 0x7a3).usize(..6);
        Self { tampering, chances, planted: false, boundary: None, replayed: None, sent: None }
    }

    /// What the client reads instead.
    pub(crate) fn pass(&mut self, line: LineId, frames: Vec<Frame>) -> Vec<Frame> {
        let Some(tampering) = self.tampering.filter(|_| !self.planted) else { return frames };
        let mut passed: Vec<Frame> = Vec::with_capacity(frames.len());
        for frame in frames {
            let is_chance = !self.planted && self.is_chance(tampering, line, &frame, passed.last());
            if is_chance && self.chances == 0 {
                self.planted = true;
                self.plant(tampering, frame, &mut passed);
                continue;
            }
            self.chances -= usize::from(is_chance);
            if matches!(&frame, Frame::Message(message) if !message.replay) {
                self.sent = Some((line, frame.clone()));
            }
            passed.push(frame);
        }
        passed
    }

    fn is_chance(&mut self, tampering: Tampering, line: LineId, frame: &Frame, before: Option<&Frame>) -> bool {
        let ended = self.boundary.take_if(|(known, _)| *known == line);
        match frame {
            Frame::Message(message) if message.replay => self.replayed = Some((line, frame.clone())),
            Frame::CaughtUp { .. } => {
                let last = self.replayed.take().filter(|(known, _)| *known == line).map(|(_, frame)| frame);
                self.boundary = Some((line, last));
            }
            _ => {}
        }
        let live = matches!(frame, Frame::Message(message) if !message.replay);
        match tampering {
            Tampering::Skip => matches!(frame, Frame::Message(_)),
            Tampering::Repeat => live,
            Tampering::Swap => match (frame, before) {
                (Frame::Message(one), Some(Frame::Message(other))) => {
                    one.source == other.source && one.replay == other.replay && one.number != other.number
                }
                _ => false,
            },
            Tampering::LostGap => matches!(frame, Frame::Gap { .. }),
            Tampering::LostAtBoundary => live && ended.is_some(),
            Tampering::DoubledAtBoundary => self.boundary.as_ref().is_some_and(|(_, last)| last.is_some()),
            Tampering::NeedlessGap | Tampering::UnknownCursor => {
                matches!(frame, Frame::Subscribed { resumed: true, .. })
            }
            Tampering::FalseResume => matches!(frame, Frame::Subscribed { .. }),
            Tampering::Stray => live && self.sent.as_ref().is_some_and(|(known, _)| *known != line),
            Tampering::WideGap | Tampering::NarrowGap => matches!(frame, Frame::Gap { missed: Some(_), .. }),
        }
    }

    fn plant(&mut self, tampering: Tampering, frame: Frame, passed: &mut Vec<Frame>) {
        match (tampering, frame) {
            (Tampering::Skip | Tampering::LostGap | Tampering::LostAtBoundary, _) => {}
            (Tampering::Repeat, frame) => passed.extend([frame.clone(), frame]),
            (Tampering::Swap, frame) => passed.insert(passed.len() - 1, frame),
            (Tampering::DoubledAtBoundary, frame) => {
                let last = self.boundary.take().and_then(|(_, last)| last);
                passed.push(frame);
                if let Some(Frame::Message(mut last)) = last {
                    last.replay = false;
                    passed.push(Frame::Message(last));
                }
            }
            (Tampering::Stray, frame) => {
                passed.extend(self.sent.take().map(|(_, sent)| sent).into_iter().chain([frame]))
            }
            (Tampering::FalseResume, Frame::Subscribed { id, pattern, cursors, resumed }) => {
                passed.push(Frame::Subscribed { id, pattern, cursors, resumed: !resumed });
            }
            (Tampering::NeedlessGap | Tampering::UnknownCursor, frame) => {
                let is_outage = tampering == Tampering::NeedlessGap;
                let gap = match &frame {
                    Frame::Subscribed { pattern, cursors, .. } => cursors.0.first().map(|(source, _)| Frame::Gap {
                        pattern: pattern.clone(),
                        source: source.as_str().into(),
                        reason: if is_outage { GapReason::Outage } else { GapReason::UnknownCursor },
                        missed: None,
                    }),
                    _ => None,
                };
                passed.extend([frame].into_iter().chain(gap));
            }
            (_, Frame::Gap { pattern, source, reason, missed }) => {
                let missed = missed.map(|missed| if tampering == Tampering::WideGap { missed + 1 } else { missed - 1 });
                passed.push(Frame::Gap { pattern, source, reason, missed });
            }
            (_, frame) => passed.push(frame),
        }
    }
}
