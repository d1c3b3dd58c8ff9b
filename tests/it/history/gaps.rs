//! How the rule judges gaps: what is missing is covered by one in time, and one stands only where something was or may have
//! been missed, for the reason that it tells and with the right number.

use passerelle::model::gap::GapReason;
use passerelle::model::topic::Pattern;

use crate::history::ground::Stretch;
use crate::history::phase::{Pass, Phase};
use crate::history::record::{Fate, Moment, Number, Published, Received, Span, What};
use crate::history::rule::{Judge, Told};

impl Judge<'_> {
    /// A missing message is covered by a gap told in time, unless a newer one on its topic is enough.
    pub(super) fn is_covered(&mut self, number: Number, phase: &Phase, passes: &[Pass], gaps: &[Told]) {
        let message = self.ground.message(number);
        let next = passes.iter().find(|pass| message.at.before(pass.at));
        let until = next.map_or(phase.to, |pass| pass.place);
        let told_by = self.history.told.get(until).map_or(Moment::MAX, |told| told.at);
        if phase.latest
            && message.fate != Fate::Lost
            && self.ground.is_superseded(number, &self.history.wanted, told_by)
        {
            return;
        }
        if self.is_unseen(message) {
            return;
        }
        // What a resume judged was told at its beginning, before what else there was to be replayed.
        let judged = phase.resumes && phase.subscribed_at(self.history).is_some_and(|at| message.at.from <= at);
        // What `last` brings is older than the beginning, and says nothing of how far it has come.
        let is_after = |pass: &&Pass| phase.start.is_none_or(|start| pass.at.to > start.from);
        let before = passes.iter().filter(|pass| pass.place < until && pass.at.before(message.at)).filter(is_after);
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
        let covers =
            |gap: &&Told| Some(gap.place) > since && gap.place < until && self.may_cover(gap, (message, phase));
        if !gaps.iter().any(|gap| covers(&gap)) {
            let when = if until == phase.to { "by the end".to_owned() } else { format!("before {told_by}") };
            self.wrong.push(format!("#{number} of {} was missed without a gap {when}", message.at.from));
        }
    }

    /// Whether a message went with its stream while a node stood where it could not tell that another one took the name.
    fn is_unseen(&self, message: &Published) -> bool {
        message.cut.is_some_and(|cut| self.ground.truth.sources[message.source].unmarked.contains(&cut))
    }

    /// A gap stands only where something was or may have been missed, for the reason that it tells.
    pub(super) fn is_justified(&mut self, gap: &Told, start: Span, phase: &Phase, passes: &[Pass]) {
        let before = passes.iter().rfind(|pass| pass.place < gap.place);
        let after = passes.iter().find(|pass| pass.place > gap.place && pass.message);
        let is_first = before.is_none();
        let since = before.map_or(start.from, |pass| pass.at.from.max(start.from));
        let judged = is_first && phase.resumes;
        let until = after.filter(|_| !judged).map_or(gap.at, |pass| pass.at.to.min(gap.at));
        let source = phase.source;
        let stretches = self.ground.uncovered(source, &self.history.wanted.pattern);
        let mut within = stretches.iter().filter(|stretch| stretch.to > since && stretch.from <= until);
        // A log that is all there is tells at the beginning what is gone; a stream is cut, or deleted, whenever it is.
        let may_be_cut = self.is_stream(phase) || (is_first && phase.resumes);
        let is_right = match gap.reason {
            GapReason::Outage => within.any(|stretch| stretch.outage),
            GapReason::Unbound => phase.resumes && is_first && within.any(|stretch| stretch.unbound),
            GapReason::UnknownCursor => may_be_cut && self.ground.restarted(source, since, gap.at) > 0,
            GapReason::Expired => {
                let is_unsure = judged && gap.missed.is_none() && self.ground.is_cut(source, start, gap.at);
                may_be_cut && (is_unsure || self.lost_from_log(phase, since, gap))
            }
            GapReason::Slow => self.ground.dropped(source, since, until) || self.lost_from_log(phase, since, gap),
        };
        if !is_right || gap.missed == Some(0) {
            self.wrong.push(format!("the gap '{}' at {} is needless", gap.reason.name(), gap.at));
        }
    }

    /// Whether something that the log had is missing since a moment; without a number only if nobody can be expected to know.
    fn lost_from_log(&self, phase: &Phase, since: Moment, gap: &Told) -> bool {
        let is_uncounted = gap.missed.is_none();
        // Of what a stream has cut off a node may not know the topics either.
        let is_unseen = is_uncounted && self.is_stream(phase) && gap.reason == GapReason::Expired;
        let pattern = if is_unseen { Pattern::all() } else { self.history.wanted.pattern.clone() };
        let matching = self.ground.matching(phase.source, &pattern.into());
        let messages = matching.iter().map(|number| (*number, self.ground.message(*number)));
        let mut within = messages.filter(|(_, message)| message.at.to > since && message.at.from <= gap.at);
        let is_lost = |(number, message): (Number, &Published)| {
            if message.fate == Fate::Lost {
                return false;
            }
            // The log counts what came by the way of another subscription, and what only the filter holds back.
            let is_elsewhere = !message.is_wanted(&self.history.wanted) || self.is_early(number);
            let is_missing = self.places.get(&number).is_none_or(|place| *place >= phase.to || phase.is_later(*place));
            if is_elsewhere && !(phase.drops_oldest && self.is_early(number)) {
                return self.left(message, gap, phase);
            }
            (is_missing || is_elsewhere) && self.may_cover(gap, (message, phase))
        };
        let any = within.any(is_lost);
        let is_blank = |(at, cut): &(Moment, Option<Moment>)| *at > since && cut.is_some_and(|cut| cut <= gap.at);
        let any = any || (is_unseen && self.ground.truth.sources[phase.source].blanks.iter().any(is_blank));
        let may_forget = || self.ground.may_forget(phase.source, since, gap.at);
        let is_known = !is_uncounted || is_unseen || self.history.wanted.filter.is_some();
        (any || self.ground.brought_again(phase.source, since, gap.at)) && (is_known || may_forget())
    }

    fn is_stream(&self, phase: &Phase) -> bool {
        self.ground.truth.sources[phase.source].is_stream
    }

    /// Whether a gap can be about a message.
    fn may_cover(&self, gap: &Told, (message, phase): (&Published, &Phase)) -> bool {
        match (gap.reason, message.fate) {
            (GapReason::UnknownCursor, _) | (_, Fate::Unknown) => true,
            (GapReason::Slow, Fate::Dropped) => true,
            (GapReason::Slow, Fate::Logged) => phase.drops_oldest || self.left(message, gap, phase),
            (GapReason::Expired, Fate::Logged) => self.left(message, gap, phase),
            (GapReason::Expired | GapReason::Slow, _) => false,
            (GapReason::Outage | GapReason::Unbound, fate) => fate != Fate::Logged,
        }
    }

    /// Whether a message had left what a gap is about when that was told. Of a stream that is the log only for those who look
    /// nowhere else.
    fn left(&self, message: &Published, gap: &Told, phase: &Phase) -> bool {
        let left = match gap.reason {
            GapReason::Expired if self.is_stream(phase) => message.cut,
            GapReason::Slow if self.is_stream(phase) && !phase.latest && !phase.drops_oldest => None,
            _ => message.evicted.map(|evicted| evicted.from),
        };
        message.fate == Fate::Dropped || left.is_some_and(|at| at <= gap.at)
    }

    /// Whether a message came by the way of another subscription.
    fn is_early(&self, number: Number) -> bool {
        let place = self.places.get(&number).map(|place| &self.history.told[*place].what);
        matches!(place, Some(What::Message(Received { early: true, .. })))
    }

    /// How many messages came by the way of another subscription, or before this one began anew on a node that had not come so
    /// far, of those after one moment and up to another.
    fn elsewhere(&self, phase: &Phase, after: Moment, until: Moment) -> u64 {
        let elsewhere = self.history.told.iter().enumerate().filter_map(|(place, told)| match told.what {
            What::Message(received) if received.early || phase.is_later(place) => {
                Some(self.ground.message(received.number))
            }
            _ => None,
        });
        let within = elsewhere.filter(|message| message.source == phase.source && message.at.to > after);
        within.filter(|message| message.at.from <= until).count() as u64
    }

    /// An outage is told once.
    pub(super) fn outages_once(&mut self, start: Span, phase: &Phase, gaps: &[Told]) {
        let told: Vec<&Told> = gaps.iter().filter(|gap| gap.reason == GapReason::Outage).collect();
        let Some(last) = told.last() else { return };
        let stretches = self.ground.uncovered(phase.source, &self.history.wanted.pattern);
        let within = stretches.iter().filter(|stretch| stretch.to > start.from && stretch.from <= last.at);
        let outages = self.ground.truth.sources[phase.source].outages.iter();
        let lost = outages.filter(|(from, to)| *to > start.from && *from <= last.at).count();
        let happened = within.filter(|stretch| stretch.outage).count().max(lost);
        if told.len() > happened.max(1) {
            let outages = if happened == 1 { "outage was" } else { "outages were" };
            self.wrong.push(format!("{happened} {outages} told {} times by {}", told.len(), last.at));
        }
    }

    /// That a cursor is of another log is told once for what happened before it was handed back, and once for each time that
    /// its stream was made anew since.
    pub(super) fn unknown_once(&mut self, start: Span, phase: &Phase, gaps: &[Told]) {
        let told: Vec<&Told> = gaps.iter().filter(|gap| gap.reason == GapReason::UnknownCursor).collect();
        let Some(last) = told.last() else { return };
        let asked_at = self.history.told[phase.from].at;
        let before = self.ground.restarted(phase.source, start.from, asked_at).min(1);
        let happened = before + self.ground.restarted(phase.source, asked_at.max(start.from), last.at);
        if told.len() > happened {
            self.wrong.push(format!("{happened} other logs were told {} times by {}", told.len(), last.at));
        }
    }

    /// The numbers in gaps add up to what is missing of what the log or the broker let go of.
    pub(super) fn is_counted(&mut self, phase: &Phase, subscribed: usize, gaps: &[Told]) {
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
        // The log does not know what came by another way.
        let elsewhere = phase.start.map_or(0, |start| self.elsewhere(phase, start.from, reached));
        let (least, most) = (lost(kept), lost(reached).len() as u64 + elsewhere);
        if told > most {
            self.wrong.push(format!("gaps by {} tell {told} messages, {most} were missed", last.at));
        }
        let is_lost = |number: &&Number| {
            let is_superseded = phase.latest && self.ground.is_superseded(**number, &self.history.wanted, Moment::MAX);
            let is_unseen = self.is_unseen(self.ground.message(**number));
            !is_superseded && !is_unseen && !self.is_told_uncounted(**number, phase, gaps)
        };
        let least = least.iter().filter(is_lost).count() as u64;
        if told < least && counted.iter().all(|gap| gap.missed.is_some()) {
            self.wrong.push(format!("gaps by {} tell {told} messages, {least} were missed", last.at));
        }
    }

    /// Whether the broker dropped a message where nothing covered the pattern: the gap that says so counts nothing, and is told
    /// with the answer to who was away.
    fn is_told_uncounted(&self, number: Number, phase: &Phase, gaps: &[Told]) -> bool {
        let message = self.ground.message(number);
        let Some(answer) = phase.subscribed.filter(|_| phase.resumes) else { return false };
        let is_answer = |gap: &&Told| {
            let between = &self.history.told[answer + 1..gap.place];
            between.iter().all(|told| matches!(told.what, What::Gap { .. }))
        };
        let stretches = self.ground.uncovered(phase.source, &self.history.wanted.pattern);
        let is_within = |stretch: &Stretch| stretch.from <= message.at.from && message.at.to <= stretch.to;
        let mut answers = gaps.iter().filter(is_answer);
        message.fate == Fate::Dropped
            && message.at.from <= self.history.told[answer].at
            && stretches.iter().any(is_within)
            && answers.any(|gap| matches!(gap.reason, GapReason::Outage | GapReason::Unbound))
    }
}
