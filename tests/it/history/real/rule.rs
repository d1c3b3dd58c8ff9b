//! The rule of the history checker, for runs against a real broker: what nobody sees into is judged by what must be so.
//!
//! A publisher's messages rise in each source, so between two that came all those came that the broker had confirmed and
//! that match, or a gap was told there; and of two messages of which one was confirmed before the other was sent, the first
//! comes first. A gap needs a cause that the test knows of: it harmed the link, the cursor came from another log, a log is
//! short. On a stream, which keeps everything, there is none whatever happens.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

use passerelle::model::flow::Flow;
use passerelle::model::gap::GapReason;

use crate::history::ground::Ground;
use crate::history::real::account::{Account, Journey, Life};
use crate::history::real::schedule::Kind;
use crate::history::real::visit::{Answer, Chain, Visit, chains, visits};
use crate::history::record::{Fate, History, Moment, Number, Published, Received, What};
use crate::history::rule::Violation;

/// Everything in a run that breaks the rule.
pub(crate) fn check(account: &Account) -> Vec<Violation> {
    check_some(account, 0..account.record.histories.len())
}

/// Likewise, of some histories.
pub(crate) fn check_some(account: &Account, histories: Range<usize>) -> Vec<Violation> {
    let ground = Ground::new(&account.record.truth);
    let of_history = |number| {
        let sentences = Judge::new(account, &ground, number).judge();
        sentences.into_iter().map(move |sentence| Violation { history: Some(number), sentence })
    };
    histories.flat_map(of_history).collect()
}

/// Judges one history.
struct Judge<'a> {
    account: &'a Account,
    ground: &'a Ground<'a>,
    number: usize,
    history: &'a History,
    journey: &'a Journey,
    visits: Vec<Visit>,
    wrong: Vec<String>,
}

/// A gap that was told.
#[derive(Debug, Clone, Copy)]
struct Gap {
    place: usize,
    at: Moment,
    reason: GapReason,
    missed: Option<u64>,
}

/// What of one source came from one log.
#[derive(Debug, Default)]
struct Came {
    /// Each message, and whether it said that it comes again.
    said_so: HashMap<Number, bool>,
    /// The last of each publisher.
    last: BTreeMap<usize, Number>,
    last_at: Moment,
}

impl<'a> Judge<'a> {
    fn new(account: &'a Account, ground: &'a Ground<'a>, number: usize) -> Self {
        let (history, journey) = (&account.record.histories[number], &account.journeys[number]);
        Self { account, ground, number, history, journey, visits: visits(history, journey), wrong: Vec::new() }
    }

    fn judge(mut self) -> Vec<String> {
        if !self.journey.finished {
            self.wrong.push("it never came to the end".to_owned());
        }
        let visits = std::mem::take(&mut self.visits);
        visits.iter().for_each(|visit| self.answer(visit));
        for source in self.history.sources.clone() {
            self.order(source);
            for chain in chains(&visits, source) {
                let missing = self.missing(source, &chain);
                for number in &missing {
                    self.is_covered(source, *number, &chain);
                }
                for visit in chain.visits {
                    self.gaps(source, visit, &missing);
                }
            }
        }
        self.wrong
    }

    fn message(&self, number: Number) -> &'a Published {
        self.ground.message(number)
    }

    fn kind(&self, source: usize) -> Kind {
        self.account.sources[source].kind
    }

    /// What came, with its places.
    fn received(&self, places: Range<usize>) -> impl Iterator<Item = (usize, Received)> + '_ {
        places.filter_map(|place| match self.history.told[place].what {
            What::Message(received) => Some((place, received)),
            _ => None,
        })
    }

    fn gaps_told(&self, source: usize, places: Range<usize>) -> impl Iterator<Item = Gap> + '_ {
        places.filter_map(move |place| match self.history.told[place] {
            crate::history::record::Told { at, what: What::Gap { source: of, reason, missed } } if of == source => {
                Some(Gap { place, at, reason, missed })
            }
            _ => None,
        })
    }

    /// Whether a cursor is of another log than the one that a visit reads.
    fn is_foreign(&self, source: usize, visit: &Visit) -> bool {
        let after = visit.after[source];
        !self.kind(source).is_stream() && after.is_some_and(|after| self.journey.life_at(after.to) != visit.life)
    }

    /// `resumed` says that nothing was missed, and is said when nothing was.
    fn answer(&mut self, visit: &Visit) {
        let Some(Answer { at, resumed, gaps }) = &visit.answer else { return };
        let was_cut_off =
            gaps.end >= visit.places.end || matches!(self.history.told[gaps.end].what, What::Ended { .. });
        let (mut missed, mut perhaps) = (false, false);
        for source in self.history.sources.clone() {
            let told: Vec<Gap> = self.gaps_told(source, gaps.clone()).collect();
            let is_foreign = self.is_foreign(source, visit);
            if is_foreign && !was_cut_off && !told.iter().any(|gap| gap.reason == GapReason::UnknownCursor) {
                self.wrong.push(format!("at {at} a cursor from another log was taken without a gap"));
            }
            missed |= is_foreign || visit.after[source].is_none();
            missed |= told.iter().any(|gap| !self.came_later(gap, visit));
            perhaps |= !told.is_empty();
        }
        if *resumed && missed {
            self.wrong.push(format!("resumed was said at {at} and something was or may have been missed"));
        }
        if !*resumed && !missed && !perhaps && !was_cut_off {
            self.wrong.push(format!("resumed was not said at {at} and nothing was missed"));
        }
    }

    /// Whether a gap right after an answer may tell of what happened after the answer was given.
    fn came_later(&self, gap: &Gap, visit: &Visit) -> bool {
        match gap.reason {
            GapReason::Slow => true,
            GapReason::Outage => self.account.was_harmed(visit.life, visit.asked_at, gap.at),
            _ => false,
        }
    }

    /// Whose log brings a source's messages at a moment: that of an exchange each node has for itself, and it knows nothing of
    /// what a client has from another; of all others nodes agree.
    fn log_at(&self, source: usize, moment: Moment) -> Option<Life> {
        self.kind(source).is_exchange().then(|| self.journey.life_at(moment)).flatten()
    }

    /// What comes was asked for, comes in order, and once from each log, but for what a queue says it brings again. A log that
    /// does not know a cursor may begin with what the client has.
    fn order(&mut self, source: usize) {
        let mut logs: HashMap<Option<Life>, Came> = HashMap::new();
        for told in &self.history.told {
            match told.what {
                What::Asked { .. } if self.journey.is_raw => logs.clear(),
                What::Gap { source: of, reason: GapReason::UnknownCursor, .. } if of == source => logs.clear(),
                What::Message(received) if self.message(received.number).source == source => {
                    let Received { number, redelivered, early, .. } = received;
                    if !self.account.wants(self.number, number) {
                        self.wrong.push(format!("#{number} came at {} and was not asked for", told.at));
                    }
                    let came = logs.entry(self.log_at(source, told.at)).or_default();
                    // Raw frames have no word for it.
                    let said_so = (redelivered || self.journey.is_raw) && self.kind(source).has_queue();
                    let before = came.said_so.insert(number, said_so);
                    if before.is_some_and(|before| !before) && !said_so {
                        self.wrong.push(format!("#{number} came again at {}", told.at));
                    }
                    if said_so || early {
                        continue;
                    }
                    let before = came.last.insert(self.account.publishers[number], number);
                    let at = self.message(number).at;
                    if before.is_some_and(|before| before > number) || at.to < came.last_at {
                        self.wrong.push(format!("#{number} came at {} after a later one", told.at));
                    }
                    came.last_at = came.last_at.max(at.from);
                }
                _ => {}
            }
        }
    }

    /// What shows that messages of a source are owed to a chain, and since when. All but raw clients are told.
    ///
    /// A raw client knows by what comes: one of all that it asked for and that this matches stands, nobody says which, for each
    /// stands when its own bindings do. So whatever matches all of those is owed after it.
    fn shown(&self, source: usize, chain: &Chain<'_>) -> BTreeMap<BTreeSet<usize>, Moment> {
        if !self.journey.is_raw {
            let answer = chain.visits.iter().find_map(|visit| visit.answer.as_ref());
            return answer.map(|answer| (BTreeSet::new(), answer.at)).into_iter().collect();
        }
        let mut shown = BTreeMap::new();
        let came = self.received(chain.places()).map(|(_, received)| self.message(received.number));
        for message in came.filter(|message| message.source == source) {
            let since = shown.entry(self.journey.beside(&message.topic)).or_insert(Moment::MAX);
            *since = message.at.to.min(*since);
        }
        shown
    }

    /// What was confirmed, is owed and did not come.
    fn missing(&self, source: usize, chain: &Chain<'_>) -> Vec<Number> {
        let shown = self.shown(source, chain);
        let is_shown = |message: &Published| {
            let beside = self.journey.beside(&message.topic);
            shown.iter().any(|(matched, since)| message.at.from > *since && matched.is_subset(&beside))
        };
        let came: BTreeSet<Number> =
            self.received(0..chain.places().end).map(|(_, received)| received.number).collect();
        let mut newest: BTreeMap<usize, Number> = BTreeMap::new();
        let of_source = |received: &Received| self.message(received.number).source == source && !received.early;
        for (_, received) in self.received(chain.places()).filter(|(_, received)| of_source(received)) {
            let newest = newest.entry(self.account.publishers[received.number]).or_default();
            *newest = received.number.max(*newest);
        }
        let is_due = |number: Number| {
            chain.is_last || newest.get(&self.account.publishers[number]).is_some_and(|newest| number < *newest)
        };
        let matching = self.ground.matching(source, &self.history.wanted);
        let owed = matching.iter().copied().filter(|number| !came.contains(number)).filter(|number| {
            let message = self.message(*number);
            message.fate == Fate::Logged && is_shown(message) && self.account.wants(self.number, *number)
        });
        owed.filter(|number| is_due(*number)).collect()
    }

    /// Before and after which places a missing message ought to have come.
    fn neighbours(&self, number: Number, chain: &Chain<'_>) -> Range<usize> {
        let (places, source) = (chain.places(), self.message(number).source);
        let same = self.received(places.clone()).filter(|(_, received)| {
            let is_same = self.account.publishers[received.number] == self.account.publishers[number];
            is_same && !received.early && !received.redelivered && self.message(received.number).source == source
        });
        let (before, after): (Vec<_>, Vec<_>) = same.partition(|(_, received)| received.number < number);
        let before = before.last().map_or(places.start, |(place, _)| *place);
        before..after.first().map_or(places.end, |(place, _)| *place)
    }

    /// A missing message is covered by a gap told in time, unless a newer one on its topic is enough.
    fn is_covered(&mut self, source: usize, number: Number, chain: &Chain<'_>) {
        let neighbours = self.neighbours(number, chain);
        if self.journey.flow == Flow::Latest && self.ground.is_superseded(number, &self.history.wanted, Moment::MAX) {
            return;
        }
        // Raw clients cannot be told.
        let life = chain.visits.first().and_then(|visit| visit.life);
        if self.journey.is_raw && self.kind(source).is_exchange() && self.account.was_harmed(life, 0, Moment::MAX) {
            return;
        }
        let covers = |gap: Gap| self.covers(gap, number, (neighbours.clone(), chain.visits));
        if !self.gaps_told(source, chain.places()).any(covers) {
            let until = self.history.told.get(neighbours.end).map(|told| told.at);
            let when = until.map_or("by the end".to_owned(), |at| format!("before {at}"));
            let missed = self.account.record.truth.named(number);
            self.wrong.push(format!("{missed} was missed without a gap {when}"));
        }
    }

    /// Whether a gap was told where a message ought to have come; what a resume judged was told at its beginning, before what
    /// else there was to be replayed.
    fn covers(&self, gap: Gap, number: Number, (neighbours, visits): (Range<usize>, &[Visit])) -> bool {
        let answers = visits.iter().filter_map(|visit| visit.answer.as_ref());
        let mut judged = answers.filter(|answer| answer.gaps.contains(&gap.place));
        let sent_at = self.message(number).at.from;
        gap.place < neighbours.end && (gap.place > neighbours.start || judged.any(|answer| sent_at <= answer.at))
    }

    /// The gaps of one visit have causes, and no outage is told more often than there was one.
    fn gaps(&mut self, source: usize, visit: &Visit, missing: &[Number]) {
        let gaps: Vec<Gap> = self.gaps_told(source, visit.places.clone()).collect();
        for gap in &gaps {
            let cause = self.has_cause(source, gap, visit);
            let counted = self.is_counted(gap, source, visit);
            if !cause || !counted {
                let missed = gap.missed.map_or("?".to_owned(), |missed| missed.to_string());
                let (name, at) = (gap.reason.name(), gap.at);
                let count = missing.len();
                self.wrong
                    .push(format!("the gap '{name}', missed {missed}, at {at} is needless or wrong ({count} in all)"));
            }
        }
        let outages = gaps.iter().filter(|gap| gap.reason == GapReason::Outage);
        let Some(last) = outages.clone().next_back() else { return };
        let harms = self.account.harms_of(visit.life, self.since(source, last, visit, false), last.at);
        if outages.count() > harms.max(1) {
            self.wrong.push(format!("{harms} outages were told more often by {}", last.at));
        }
    }

    /// Up to when everything was accounted for before a gap: by the cursor, and by what came since if that counts.
    fn since(&self, source: usize, gap: &Gap, visit: &Visit, counts: bool) -> Moment {
        let began = visit.after[source].map_or(visit.asked_at, |after| after.from);
        let came = self.received(visit.places.start..gap.place).filter(|(_, received)| counts && !received.early);
        let came = came.map(|(_, received)| self.message(received.number)).filter(|message| message.source == source);
        came.map(|message| message.at.from).max().unwrap_or(0).max(began)
    }

    /// Whether the test knows why something was or may have been missed.
    fn has_cause(&self, source: usize, gap: &Gap, visit: &Visit) -> bool {
        let opens = visit.answer.as_ref().is_some_and(|answer| answer.gaps.contains(&gap.place));
        let resumes = opens && visit.after[source].is_some();
        let since = self.since(source, gap, visit, true);
        let drops = matches!(self.journey.flow, Flow::DropOldest | Flow::Latest);
        let kind = self.kind(source);
        if kind.is_stream() {
            return gap.reason == GapReason::Slow && drops;
        }
        let is_foreign = self.is_foreign(source, visit);
        let keeps = self.account.sources[source].keeps_ms.map(|keeps_ms| keeps_ms * 1_000);
        let was_harmed = self.account.was_harmed(visit.life, since, gap.at);
        let was_away = gap.at - visit.left_at.unwrap_or(visit.asked_at);
        match gap.reason {
            GapReason::Outage => kind.is_exchange() && was_harmed,
            GapReason::UnknownCursor => resumes && is_foreign,
            GapReason::Unbound => {
                let lapsed = keeps.is_some_and(|keeps| was_away >= keeps);
                kind == Kind::OnDemand && resumes && !is_foreign && (was_harmed || lapsed)
            }
            GapReason::Expired => resumes && !is_foreign && keeps.is_some_and(|keeps| gap.at - since >= keeps),
            GapReason::Slow => drops || keeps.is_some(),
        }
    }

    /// Whether something is missing that a gap of the log or of a slow reader can be about, and no fewer than it tells.
    fn is_counted(&self, gap: &Gap, source: usize, visit: &Visit) -> bool {
        if !matches!(gap.reason, GapReason::Expired | GapReason::Slow) {
            return gap.missed != Some(0);
        }
        let since = visit.after[source].map_or(visit.asked_at, |after| after.from);
        // The log counts what came by the way of another subscription, and what another log brought; of what a queue brings
        // again it may have had another copy.
        let is_known = |(place, one): &(usize, Received)| {
            !one.early
                && !one.redelivered
                && self.log_at(source, self.history.told[*place].at) == self.log_at(source, gap.at)
        };
        let came = self.received(0..self.history.told.len()).filter(is_known);
        let came: BTreeSet<Number> = came.map(|(_, one)| one.number).collect();
        let matching = self.ground.matching(source, &self.history.wanted);
        let lost = matching.iter().filter(|number| !came.contains(number)).map(|number| self.message(*number).at);
        let most = lost.filter(|at| at.to > since && at.from <= gap.at).count() as u64;
        (1..=most).contains(&gap.missed.unwrap_or(1))
    }
}
