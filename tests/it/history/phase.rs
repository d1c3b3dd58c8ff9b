//! A history, cut into phases: from where a subscription began or went on in one source, to what it kept in the end.

use passerelle::model::flow::Flow;

use crate::history::ground::Ground;
use crate::history::record::{History, Moment, Received, Span, Told, What};

/// One phase of one subscription in one source. Places are places in the history.
#[derive(Debug, Clone)]
pub(crate) struct Phase {
    pub(crate) source: usize,
    /// Everything up to here is accounted for; nothing while a fresh subscription does not stand.
    pub(crate) start: Option<Span>,
    /// Whether the client handed a cursor back.
    pub(crate) resumes: bool,
    /// Where it begins by the answer: what is not after that comes for the sake of others.
    pub(crate) begins: Option<Span>,
    pub(crate) last: bool,
    pub(crate) latest: bool,
    pub(crate) drops_oldest: bool,
    /// Where `subscribed` stands.
    pub(crate) subscribed: Option<usize>,
    pub(crate) from: usize,
    pub(crate) to: usize,
    /// What the client keeps: everything up to here must have come or be covered. Nothing: it began afresh.
    pub(crate) end: Option<Span>,
}

/// How far a phase is known to have come at a place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pass {
    pub(crate) place: usize,
    pub(crate) at: Span,
    pub(crate) replay: bool,
    pub(crate) message: bool,
}

/// The phases of a history in one source, in order.
pub(crate) fn phases(history: &History, source: usize) -> Vec<Phase> {
    let mut phases: Vec<Phase> = Vec::new();
    let mut open = false;
    for (place, Told { what, .. }) in history.told.iter().enumerate() {
        match what {
            What::Asked { after, last, flow } => {
                let asked = after[source];
                if let (true, Some(phase)) = (open, phases.last_mut()) {
                    if asked.is_none() {
                        // Asked anew without a cursor, it goes on where it is.
                        phase.note_flow(*flow);
                        continue;
                    }
                    (phase.to, phase.end) = (place, asked);
                }
                phases.push(Phase::new(source, place, asked, *last && asked.is_none(), *flow));
                open = true;
            }
            What::Subscribed { cursors, .. } => {
                if let (true, Some(phase)) = (open, phases.last_mut()) {
                    phase.start = phase.start.map(|start| start.unsure_as(cursors[source])).or(cursors[source]);
                    if phase.subscribed.is_none() {
                        (phase.begins, phase.subscribed) = (cursors[source].or(phase.begins), Some(place));
                    }
                }
            }
            What::Ended { kept } => {
                if let (true, Some(phase)) = (std::mem::take(&mut open), phases.last_mut()) {
                    (phase.to, phase.end) = (place, kept[source]);
                }
            }
            What::Message(_) | What::Gap { .. } | What::CaughtUp { .. } => {}
        }
    }
    if let (true, Some(phase)) = (open, phases.last_mut()) {
        (phase.to, phase.end) = (history.told.len(), Some(Span::at(Moment::MAX)));
    }
    phases
}

impl Phase {
    fn new(source: usize, place: usize, asked: Option<Span>, last: bool, flow: Flow) -> Self {
        let mut phase = Self {
            source,
            start: asked,
            resumes: asked.is_some(),
            begins: asked,
            last,
            latest: false,
            drops_oldest: false,
            subscribed: None,
            from: place,
            to: place,
            end: None,
        };
        phase.note_flow(flow);
        phase
    }

    fn note_flow(&mut self, flow: Flow) {
        self.latest |= flow == Flow::Latest;
        self.drops_oldest |= flow == Flow::DropOldest;
    }

    /// Its lines, with their places.
    pub(crate) fn told<'a>(&self, history: &'a History) -> impl Iterator<Item = (usize, &'a Told)> {
        let from = self.from;
        history.told[from..self.to].iter().enumerate().map(move |(number, told)| (from + number, told))
    }

    /// What came in its own order, and where it caught up.
    pub(crate) fn passes(&self, history: &History, ground: &Ground<'_>) -> Vec<Pass> {
        let pass = |(place, told): (usize, &Told)| match &told.what {
            What::Message(Received { number, replay, redelivered, early, .. }) => {
                let message = ground.message(*number);
                // What is older than its beginning and not replayed comes late, for the sake of another subscription.
                let foreign = !replay && self.is_before(message.at);
                let counts = message.source == self.source && !early && !redelivered && !foreign;
                counts.then_some(Pass { place, at: message.at, replay: *replay, message: true })
            }
            What::CaughtUp { cursors } => {
                cursors[self.source].map(|at| Pass { place, at, replay: true, message: false })
            }
            _ => None,
        };
        self.told(history).filter_map(pass).collect()
    }

    /// Whether something was there before it begins.
    pub(crate) fn is_before(&self, at: Span) -> bool {
        self.begins.is_some_and(|begins| at.to <= begins.from)
    }

    /// Whether it began as if for the first time after a place.
    pub(crate) fn is_later(&self, place: usize) -> bool {
        !self.resumes && place < self.from
    }

    /// When `subscribed` was told.
    pub(crate) fn subscribed_at(&self, history: &History) -> Option<Moment> {
        self.subscribed.map(|place| history.told[place].at)
    }
}
