//! The rule, and the checker that finds where a run breaks it.
//!
//! For every subscription every message is delivered in order exactly once (again only when it says `redelivered`, on queue
//! sources), or covered by a gap that is told before the next message. A gap stands only where something was or may have
//! been missed, with the right reason, and a number in it is exact.
//!
//! The checker judges what was recorded: what clients were told, and what truly happened, in moments that may be spans.
//! What it cannot be certain of it lets pass. How it judges gaps stands in [`super::gaps`].

use std::collections::{BTreeSet, HashMap};

use passerelle::model::flow::Flow;
use passerelle::model::gap::GapReason;

use crate::history::ground::Ground;
use crate::history::phase::{Phase, phases};
use crate::history::record::{
    self, AskedFor, Fate, History, Line, Moment, Number, Published, Received, Record, Span, What,
};

/// A place at which the rule is broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    /// Whose history it is, if it is not a whole connection's.
    pub(crate) history: Option<usize>,
    pub(crate) sentence: String,
}

/// Everything in a run that breaks the rule.
pub(crate) fn check(record: &Record) -> Vec<Violation> {
    let ground = Ground::new(&record.truth);
    let of_history = |(number, history): (usize, &History)| {
        let sentences = Judge::new(&ground, history).judge();
        sentences.into_iter().map(move |sentence| Violation { history: Some(number), sentence })
    };
    let mut violations: Vec<Violation> = record.histories.iter().enumerate().flat_map(of_history).collect();
    let lines = record.lines.iter().flat_map(|line| check_line(&ground, line));
    violations.extend(lines.map(|sentence| Violation { history: None, sentence }));
    let stuck = record.stuck.iter().map(|history| (*history, "it never came to rest".to_owned()));
    violations.extend(stuck.map(|(history, sentence)| Violation { history: Some(history), sentence }));
    violations
}

/// One connection: nothing comes that nobody asked for, what is live comes once and in order, and a replay no more often than
/// it was asked for.
fn check_line(ground: &Ground<'_>, line: &Line) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut live = BTreeSet::new();
    let mut replayed: HashMap<Number, usize> = HashMap::new();
    let mut last: HashMap<usize, Span> = HashMap::new();
    for received in &line.messages {
        let message = ground.message(received.number);
        let is_for = |asked: &&AskedFor| {
            asked.source.is_none_or(|source| source == message.source) && message.is_wanted(&asked.wanted)
        };
        let mut asked = line.asked.iter().filter(is_for);
        if asked.clone().next().is_none() {
            wrong.push(format!("{}: #{} came and nobody asked for it", line.name, received.number));
        }
        if received.redelivered {
            continue;
        }
        if received.replay {
            let times = replayed.entry(received.number).or_default();
            *times += 1;
            if *times > asked.by_ref().filter(|asked| asked.replays).count() {
                wrong.push(format!("{}: #{} was replayed more often than asked for", line.name, received.number));
            }
            continue;
        }
        if !live.insert(received.number) {
            wrong.push(format!("{}: #{} came live twice", line.name, received.number));
        } else if last.insert(message.source, message.at).is_some_and(|before| message.at.before(before)) {
            wrong.push(format!("{}: #{} came live after a later one", line.name, received.number));
        }
    }
    wrong
}

/// Judges one history.
pub(super) struct Judge<'a> {
    pub(super) ground: &'a Ground<'a>,
    pub(super) history: &'a History,
    /// Where each message came first.
    pub(super) places: HashMap<Number, usize>,
    pub(super) wrong: Vec<String>,
}

/// A gap of one phase.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told {
    pub(super) place: usize,
    pub(super) at: Moment,
    pub(super) reason: GapReason,
    pub(super) missed: Option<u64>,
}

impl<'a> Judge<'a> {
    fn new(ground: &'a Ground<'a>, history: &'a History) -> Self {
        Self { ground, history, places: HashMap::new(), wrong: Vec::new() }
    }

    fn judge(mut self) -> Vec<String> {
        self.receipts();
        self.resumed();
        for source in self.history.sources.clone() {
            for phase in phases(self.history, source) {
                self.order(&phase);
                self.phase(&phase);
            }
        }
        self.wrong
    }

    /// Only what was asked for comes, and once.
    fn receipts(&mut self) {
        for (place, told) in self.history.told.iter().enumerate() {
            let What::Message(received) = told.what else { continue };
            let message = self.ground.message(received.number);
            if !self.history.sources.contains(&message.source) || !message.is_wanted(&self.history.wanted) {
                self.wrong.push(format!("#{} came and does not match", received.number));
            }
            if message.fate != Fate::Logged && message.fate != Fate::Unknown {
                self.wrong.push(format!("#{} came and was never taken", received.number));
            }
            // Of two that `last` brings in another order the first may be the one that says so.
            let says_so =
                |place: &usize| matches!(self.history.told[*place].what, What::Message(known) if known.redelivered);
            let before = self.places.get(&received.number);
            let redelivered = received.redelivered || before.is_some_and(says_so);
            let may_come_again = redelivered && self.ground.truth.sources[message.source].is_queue;
            if before.is_some_and(|before| !may_come_again && !self.began_anew((*before, place), message)) {
                self.wrong.push(format!("#{} came again", received.number));
            }
            self.places.entry(received.number).or_insert(place);
        }
    }

    /// Whether between two places the subscription began as if for the first time, on a node that had not come so far yet.
    fn began_anew(&self, (before, again): (usize, usize), message: &Published) -> bool {
        let phases = phases(self.history, message.source);
        let phase = phases.iter().find(|phase| (phase.from..phase.to).contains(&again));
        phase.is_some_and(|phase| phase.is_later(before) && !phase.is_before(message.at))
    }

    /// `resumed` says that nothing was missed, and is said when nothing was.
    fn resumed(&mut self) {
        let told = &self.history.told;
        let asked = told.iter().enumerate().filter_map(|(place, told)| match &told.what {
            What::Asked { after, flow, .. } => Some((place, after, *flow)),
            _ => None,
        });
        for (place, after, flow) in asked {
            let everywhere = self.history.sources.iter().all(|source| after[*source].is_some());
            let answer = told[place + 1..].iter().enumerate().find_map(|(further, told)| match told.what {
                What::Subscribed { resumed, .. } => Some(Some((place + 1 + further, resumed))),
                What::Ended { .. } | What::Asked { .. } => Some(None),
                _ => None,
            });
            let Some(Some((answer, resumed))) = answer else { continue };
            let is_gap = told.get(answer + 1).is_some_and(|told| matches!(told.what, What::Gap { .. }));
            let later = told.get(answer + 1).is_some_and(|gap| self.came_later(gap, told[place].at, flow));
            if resumed && ((is_gap && !later) || !everywhere) {
                self.wrong.push(format!("resumed was said at {} and something was missed", told[answer].at));
            }
            // The gap may have been on its way when the line was lost.
            let next = told.get(answer + 1).map(|told| &told.what);
            if !resumed && everywhere && !is_gap && !matches!(next, None | Some(What::Ended { .. })) {
                self.wrong.push(format!("resumed was not said at {} and nothing was missed", told[answer].at));
            }
        }
    }

    /// Whether a gap that follows an answer may tell of what happened after the answer was given, to what was asked at a
    /// moment: the log or the stream let go of something, or the link was lost, or the stream deleted, only then.
    fn came_later(&self, gap: &record::Told, asked_at: Moment, flow: Flow) -> bool {
        let What::Gap { source, reason, .. } = gap.what else { return false };
        let truth = &self.ground.truth.sources[source];
        let is_later = |at: Moment| at > asked_at && at <= gap.at;
        let any_message = |of: &dyn Fn(&Published) -> Option<Moment>| {
            let messages = self.ground.truth.messages.iter().filter(|message| message.source == source);
            messages.filter_map(of).any(is_later)
        };
        match reason {
            GapReason::Slow => {
                let dropped = truth.drops.iter().any(|at| is_later(*at));
                flow == Flow::DropOldest || dropped || any_message(&|message| message.evicted.map(|evicted| evicted.to))
            }
            GapReason::Outage => truth.outages.iter().any(|(lost, _)| is_later(*lost)),
            // What the stream has cut off the log may have had for longer.
            GapReason::Expired => {
                let evicted = |message: &Published| message.evicted.map_or(0, |evicted| evicted.to);
                truth.is_stream && any_message(&|message| message.cut.map(|cut| cut.max(evicted(message))))
            }
            GapReason::UnknownCursor => truth.is_stream && truth.restarts.iter().any(|at| is_later(*at)),
            GapReason::Unbound => false,
        }
    }

    /// What is live comes in order, what is replayed likewise, and nothing from before what was asked for.
    fn order(&mut self, phase: &Phase) {
        let mut last: [Option<Span>; 2] = [None, None];
        for pass in phase.passes(self.history, self.ground).into_iter().filter(|pass| pass.message) {
            let before = last[usize::from(pass.replay)].replace(pass.at);
            if before.is_some_and(|before| pass.at.before(before)) {
                self.wrong.push(format!("at {} a message came after a later one", self.history.told[pass.place].at));
            }
            let is_old = phase.start.is_some_and(|start| pass.at.to <= start.from);
            if is_old && pass.replay && !phase.last {
                let at = self.history.told[pass.place].at;
                self.wrong.push(format!("at {at} a message came from before what was asked for"));
            }
        }
        for (place, told) in phase.told(self.history) {
            // What is live and late may come for the sake of another subscription.
            let What::Message(received @ Received { replay: false, redelivered: false, alone: true, .. }) = told.what
            else {
                continue;
            };
            let message = self.ground.message(received.number);
            if phase.is_before(message.at) && message.source == phase.source && Some(place) > phase.subscribed {
                self.wrong.push(format!("at {} a message came live from before what was asked for", told.at));
            }
        }
    }

    fn phase(&mut self, phase: &Phase) {
        let (Some(start), Some(subscribed)) = (phase.start, phase.subscribed) else { return };
        let passes = phase.passes(self.history, self.ground);
        let gaps: Vec<Told> = phase
            .told(self.history)
            .filter_map(|(place, told)| match told.what {
                // Before `subscribed` it is about the one that this one replaces.
                What::Gap { source, reason, missed } if source == phase.source && place > subscribed => {
                    Some(Told { place, at: told.at, reason, missed })
                }
                _ => None,
            })
            .collect();
        if let Some(end) = phase.end {
            for number in self.missing(phase, end.from) {
                self.is_covered(number, phase, &passes, &gaps);
            }
        }
        for gap in &gaps {
            self.is_justified(gap, start, phase, &passes);
        }
        self.outages_once(start, phase, &gaps);
        self.unknown_once(start, phase, &gaps);
        if gaps.iter().all(|gap| gap.reason != GapReason::UnknownCursor) || phase.start.is_none() {
            self.is_counted(phase, subscribed, &gaps);
        }
    }

    /// What a phase owed up to a moment and did not bring by its end, nor any phase before it.
    pub(super) fn missing(&self, phase: &Phase, until: Moment) -> Vec<Number> {
        let Some(start) = phase.start else { return Vec::new() };
        let matching = self.ground.matching(phase.source, &self.history.wanted);
        let at = |number: &Number| self.ground.message(*number).at;
        let first = matching.partition_point(|number| at(number).from <= start.to);
        let owed = matching[first..].iter().copied().take_while(|number| at(number).from <= until);
        let owed = owed.filter(|number| at(number).to <= until);
        owed.filter(|number| self.places.get(number).is_none_or(|place| *place >= phase.to)).collect()
    }
}
