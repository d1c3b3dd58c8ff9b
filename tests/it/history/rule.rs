//! The rule, and the checker that finds where a run breaks it.
//!
//! For every subscription every message is delivered in order exactly once (again only when it says `redelivered`, on queue
//! sources), or covered by a gap that is told before the next message. A gap stands only where something was or may have
//! been missed, with the right reason, and a number in it is exact.
//!
//! The checker judges what was recorded: what clients were told, and what truly happened, in moments that may be spans.
//! What it cannot be certain of it lets pass.

use std::collections::{BTreeSet, HashMap};

use passerelle::model::gap::GapReason;

use crate::history::ground::{Ground, Stretch};
use crate::history::phase::{Pass, Phase, phases};
use crate::history::record::{self, Fate, History, Line, Moment, Number, Record, Span, What};

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
    violations
}

/// One connection: what is live comes once and in order, and a replay no more often than it was asked for.
fn check_line(ground: &Ground<'_>, line: &Line) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut live = BTreeSet::new();
    let mut replayed: HashMap<Number, usize> = HashMap::new();
    let mut last: HashMap<usize, Span> = HashMap::new();
    for received in line.messages.iter().filter(|received| !received.redelivered) {
        let message = ground.message(received.number);
        if received.replay {
            let times = replayed.entry(received.number).or_default();
            *times += 1;
            if *times > line.replays.iter().filter(|pattern| pattern.matches(&message.topic)).count() {
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
struct Judge<'a> {
    ground: &'a Ground<'a>,
    history: &'a History,
    /// Where each message came first.
    places: HashMap<Number, usize>,
    wrong: Vec<String>,
}

/// A gap of one phase.
#[derive(Debug, Clone, Copy)]
struct Told {
    place: usize,
    at: Moment,
    reason: GapReason,
    missed: Option<u64>,
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
            if !self.history.sources.contains(&message.source) || !self.history.pattern.matches(&message.topic) {
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
            if before.is_some() && !(redelivered && self.ground.truth.sources[message.source].is_queue) {
                self.wrong.push(format!("#{} came again", received.number));
            }
            self.places.entry(received.number).or_insert(place);
        }
    }

    /// `resumed` says that nothing was missed, and is said when nothing was.
    fn resumed(&mut self) {
        let told = &self.history.told;
        let asked = told.iter().enumerate().filter_map(|(place, told)| match &told.what {
            What::Asked { after, .. } => Some((place, after)),
            _ => None,
        });
        for (place, after) in asked {
            let everywhere = self.history.sources.iter().all(|source| after[*source].is_some());
            let answer = told[place + 1..].iter().enumerate().find_map(|(further, told)| match told.what {
                What::Subscribed { resumed, .. } => Some(Some((place + 1 + further, resumed))),
                What::Ended { .. } | What::Asked { .. } => Some(None),
                _ => None,
            });
            let Some(Some((answer, resumed))) = answer else { continue };
            let is_gap = told.get(answer + 1).is_some_and(|told| matches!(told.what, What::Gap { .. }));
            let later = told.get(answer + 1).is_some_and(|gap| self.came_later(gap, told[place].at));
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
    /// moment: the log let go of something, or the link was lost only then.
    fn came_later(&self, gap: &record::Told, asked_at: Moment) -> bool {
        let What::Gap { source, reason, .. } = gap.what else { return false };
        let mut outages = self.ground.truth.sources[source].outages.iter();
        match reason {
            GapReason::Slow => true,
            GapReason::Outage => outages.any(|(lost, _)| *lost > asked_at && *lost <= gap.at),
            _ => false,
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
            // What is live and late may come for the sake of another subscription.
            let is_old = phase.start.is_some_and(|start| pass.at.to <= start.from);
            if is_old && pass.replay && !phase.last {
                let at = self.history.told[pass.place].at;
                self.wrong.push(format!("at {at} a message came from before what was asked for"));
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
        if gaps.iter().all(|gap| gap.reason != GapReason::UnknownCursor) || phase.start.is_none() {
            self.is_counted(phase, subscribed, &gaps);
        }
    }

    /// What a phase owed up to a moment and did not bring by its end, nor any phase before it.
    fn missing(&self, phase: &Phase, until: Moment) -> Vec<Number> {
        let Some(start) = phase.start else { return Vec::new() };
        let matching = self.ground.matching(phase.source, &self.history.pattern);
        let at = |number: &Number| self.ground.message(*number).at;
        let first = matching.partition_point(|number| at(number).from <= start.to);
        let owed = matching[first..].iter().copied().take_while(|number| at(number).from <= until);
        let owed = owed.filter(|number| at(number).to <= until);
        owed.filter(|number| self.places.get(number).is_none_or(|place| *place >= phase.to)).collect()
    }

    /// A missing message is covered by a gap told in time, unless a newer one on its topic is enough.
    fn is_covered(&mut self, number: Number, phase: &Phase, passes: &[Pass], gaps: &[Told]) {
        let message = self.ground.message(number);
        let next = passes.iter().find(|pass| message.at.before(pass.at));
        let until = next.map_or(phase.to, |pass| pass.place);
        let told_by = self.history.told.get(until).map_or(Moment::MAX, |told| told.at);
        if phase.latest && message.fate != Fate::Lost && self.ground.is_superseded(number, told_by) {
            return;
        }
        // What a resume judged was told at its beginning, before what else there was to be replayed.
        let judged = phase.resumes && phase.subscribed_at(self.history).is_some_and(|at| message.at.from <= at);
        let before = passes.iter().filter(|pass| pass.place < until && pass.at.before(message.at));
        // What drops the oldest says so at once, though others of its session are still sent older messages.
        let dropped_by = message.at.from;
        let since = if phase.drops_oldest {
            let told = self.history.told.iter().position(|told| told.at >= dropped_by);
            told.map(|place| place.saturating_sub(1)).max(phase.subscribed)
        } else if judged {
            phase.subscribed
        } else {
            before.map(|pass| pass.place).max().or(phase.subscribed)
        };
        let covers = |gap: &&Told| Some(gap.place) > since && gap.place < until && may_cover(gap.reason, message.fate);
        if !gaps.iter().any(|gap| covers(&gap)) {
            let when = if until == phase.to { "by the end".to_owned() } else { format!("before {told_by}") };
            self.wrong.push(format!("#{number} of {} was missed without a gap {when}", message.at.from));
        }
    }

    /// A gap stands only where something was or may have been missed, for the reason that it tells.
    fn is_justified(&mut self, gap: &Told, start: Span, phase: &Phase, passes: &[Pass]) {
        let before = passes.iter().rfind(|pass| pass.place < gap.place);
        let after = passes.iter().find(|pass| pass.place > gap.place && pass.message);
        let is_first = before.is_none();
        let since = before.map_or(start.from, |pass| pass.at.from.max(start.from));
        let judged = is_first && phase.resumes;
        let until = after.filter(|_| !judged).map_or(gap.at, |pass| pass.at.to.min(gap.at));
        let source = phase.source;
        let stretches = self.ground.uncovered(source, &self.history.pattern);
        let mut within = stretches.iter().filter(|stretch| stretch.to > since && stretch.from <= until);
        let is_right = match gap.reason {
            GapReason::Outage => within.any(|stretch| stretch.outage),
            GapReason::Unbound => phase.resumes && is_first && within.any(|stretch| stretch.unbound),
            GapReason::UnknownCursor => is_first && phase.resumes && self.ground.restarted(source, start, gap.at),
            GapReason::Expired => is_first && phase.resumes && self.lost_from_log(phase, since, gap),
            GapReason::Slow => self.ground.dropped(source, since, until) || self.lost_from_log(phase, since, gap),
        };
        if !is_right || gap.missed == Some(0) {
            self.wrong.push(format!("the gap '{}' at {} is needless", gap.reason.name(), gap.at));
        }
    }

    /// Whether something that the log had is missing since a moment; without a number only if the log may forget it.
    fn lost_from_log(&self, phase: &Phase, since: Moment, gap: &Told) -> bool {
        let lost = self.missing(phase, gap.at).into_iter().map(|number| self.ground.message(number));
        let any = lost.filter(|message| message.at.to > since).any(|message| message.fate != Fate::Lost);
        let elsewhere = self.early(phase.source, since, gap.at) > 0;
        (any || elsewhere || self.ground.brought_again(phase.source, since, gap.at))
            && (gap.missed.is_some() || self.ground.may_forget(phase.source, since, gap.at))
    }

    /// How many messages of a source came early, of those after one moment and up to another.
    fn early(&self, source: usize, after: Moment, until: Moment) -> u64 {
        let early = self.history.told.iter().filter_map(|told| match told.what {
            What::Message(received) if received.early => Some(self.ground.message(received.number)),
            _ => None,
        });
        let within = early.filter(|message| message.source == source && message.at.to > after);
        within.filter(|message| message.at.from <= until).count() as u64
    }

    /// An outage is told once.
    fn outages_once(&mut self, start: Span, phase: &Phase, gaps: &[Told]) {
        let told: Vec<&Told> = gaps.iter().filter(|gap| gap.reason == GapReason::Outage).collect();
        let Some(last) = told.last() else { return };
        let stretches = self.ground.uncovered(phase.source, &self.history.pattern);
        let within = stretches.iter().filter(|stretch| stretch.to > start.from && stretch.from <= last.at);
        let outages = self.ground.truth.sources[phase.source].outages.iter();
        let lost = outages.filter(|(from, to)| *to > start.from && *from <= last.at).count();
        let happened = within.filter(|stretch| stretch.outage).count().max(lost);
        if told.len() > happened.max(1) {
            let outages = if happened == 1 { "outage was" } else { "outages were" };
            self.wrong.push(format!("{happened} {outages} told {} times by {}", told.len(), last.at));
        }
    }

    /// The numbers in gaps add up to what is missing of what the log or the broker let go of.
    fn is_counted(&mut self, phase: &Phase, subscribed: usize, gaps: &[Told]) {
        let counted: Vec<&Told> =
            gaps.iter().filter(|gap| matches!(gap.reason, GapReason::Expired | GapReason::Slow)).collect();
        let Some(last) = counted.last() else { return };
        let told: u64 = counted.iter().filter_map(|gap| gap.missed).sum();
        let kept = phase.end.map_or(0, |end| end.from);
        let reached = kept.max(last.at).max(self.history.told[subscribed].at);
        if phase.start.is_some_and(|start| self.ground.brought_again(phase.source, start.from, reached)) {
            return;
        }
        let lost = |until| {
            let missing = self.missing(phase, until).into_iter();
            missing.filter(|number| self.ground.message(*number).fate != Fate::Lost).collect::<Vec<Number>>()
        };
        // The log does not know what came by the way of another subscription.
        let early = phase.start.map_or(0, |start| self.early(phase.source, start.from, reached));
        let (least, most) = (lost(kept), lost(reached).len() as u64 + early);
        if told > most {
            self.wrong.push(format!("gaps by {} tell {told} messages, {most} were missed", last.at));
        }
        let is_lost = |number: &&Number| {
            let is_superseded = phase.latest && self.ground.is_superseded(**number, Moment::MAX);
            !is_superseded && !self.is_told_uncounted(**number, phase, gaps)
        };
        let least = least.iter().filter(is_lost).count() as u64;
        if told < least && counted.iter().all(|gap| gap.missed.is_some()) {
            self.wrong.push(format!("gaps by {} tell {told} messages, {least} were missed", last.at));
        }
    }

    /// Whether the broker dropped a message where nothing covered the pattern: the gap that says so counts nothing.
    fn is_told_uncounted(&self, number: Number, phase: &Phase, gaps: &[Told]) -> bool {
        let message = self.ground.message(number);
        let stretches = self.ground.uncovered(phase.source, &self.history.pattern);
        let is_within = |stretch: &Stretch| stretch.from <= message.at.from && message.at.to <= stretch.to;
        let tells = |gap: &Told| matches!(gap.reason, GapReason::Outage | GapReason::Unbound);
        message.fate == Fate::Dropped && phase.resumes && stretches.iter().any(is_within) && gaps.iter().any(tells)
    }
}

/// Whether a gap of this reason can be about a message with this fate.
fn may_cover(reason: GapReason, fate: Fate) -> bool {
    match (reason, fate) {
        (GapReason::UnknownCursor, _) | (_, Fate::Unknown) => true,
        (GapReason::Expired, fate) => fate == Fate::Logged,
        (GapReason::Slow, fate) => fate != Fate::Lost,
        (GapReason::Outage | GapReason::Unbound, fate) => fate != Fate::Logged,
    }
}
