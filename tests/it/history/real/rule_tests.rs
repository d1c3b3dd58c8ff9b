//! The rule for real judged by short histories that a person can check.

use passerelle::model::flow::Flow;
use passerelle::model::gap::GapReason;
use passerelle::model::topic::{Pattern, Topic};

use crate::history::real::account::{Account, Harmed, Journey, Life};
use crate::history::real::rule::check;
use crate::history::real::schedule::{Kind, Source};
use crate::history::record::{
    Cursors, Fate, History, Moment, Number, Published, Received, Record, SourceTruth, Span, Told, Truth, What,
};

/// An exchange, a stream and a queue. In each the publisher 0 sends a message at 100, 120, 140, 160, confirmed 5 later, and
/// publisher 1 at 110, 130, 150, 170: in the exchange those are the numbers 0 to 7, in the stream 8 to 15, then the queue.
fn account() -> Account {
    let sources = [Kind::OnDemand, Kind::Stream, Kind::Queue].map(|kind| Source { kind, keeps_ms: None }).to_vec();
    let truth_of = |source: &Source| SourceTruth { name: source.kind.name().into(), ..SourceTruth::default() };
    let topic = Topic::parse("a").unwrap();
    let message = |number: u64| {
        let from = 100 + number % 8 * 10;
        let at = Span { from, to: from + 5 };
        Published::new(number as usize / 8, topic.clone(), at, Fate::Logged)
    };
    let truth = Truth {
        sources: sources.iter().map(truth_of).collect(),
        messages: (0..24).map(message).collect(),
        ..Truth::default()
    };
    Account {
        record: Record { truth, ..Record::default() },
        sources,
        publishers: (0..24).map(|number| number % 2).collect(),
        lives: vec![0, 1, 0],
        ..Account::default()
    }
}

fn message(number: Number) -> What {
    What::Message(Received { number, ..Received::default() })
}

fn messages(numbers: impl IntoIterator<Item = Number>) -> Vec<What> {
    numbers.into_iter().map(message).collect()
}

fn gap(source: usize, reason: GapReason) -> What {
    What::Gap { source, reason, missed: None }
}

fn at(source: usize, from: Moment, to: Moment) -> Cursors {
    let mut cursors = vec![None; 3];
    cursors[source] = Some(Span { from, to });
    cursors
}

fn asked(after: Cursors) -> What {
    What::Asked { after, last: false, flow: Flow::CatchUp }
}

fn subscribed(resumed: bool) -> What {
    What::Subscribed { cursors: vec![None; 3], resumed }
}

fn ended() -> What {
    What::Ended { kept: vec![None; 3] }
}

fn journey(visits: Vec<(Moment, Life)>) -> Journey {
    Journey { flow: Flow::CatchUp, publisher: None, is_raw: false, beside: Vec::new(), visits, finished: true }
}

/// A client that reads one source; told from moment 50 on, ten after each other.
fn judge(account: &mut Account, source: usize, told: Vec<What>) -> Vec<String> {
    let told = told.into_iter().zip((50..).step_by(10)).map(|(what, at)| Told { at, what }).collect();
    let (name, wanted) = ("one".to_owned(), Pattern::all().into());
    account.record.histories = vec![History { name, wanted, sources: vec![source], told }];
    if account.journeys.is_empty() {
        account.journeys = vec![journey(vec![(50, 0)])];
    }
    check(account).into_iter().map(|violation| violation.sentence).collect()
}

/// Fresh, and standing before anything is sent.
fn fresh(source: usize, told: Vec<What>) -> Vec<String> {
    let begin = vec![asked(vec![None; 3]), subscribed(false)];
    judge(&mut account(), source, [begin, told].concat())
}

/// Two messages at the life 0, then it comes back to another life with their cursor, which came at 80.
fn moved(source: usize, (life, resumed): (usize, bool), told: Vec<What>) -> Vec<String> {
    let mut account = account();
    let visits = vec![(50, 0), (100, life)];
    account.journeys = vec![journey(visits)];
    let first = source * 8;
    let begin = vec![asked(vec![None; 3]), subscribed(false), message(first), message(first + 1), ended()];
    let again = vec![asked(at(source, 110, 80)), subscribed(resumed)];
    judge(&mut account, source, [begin, again, told].concat())
}

#[test]
fn everything_once_and_in_order_keeps_the_rule() {
    for source in 0..3 {
        assert_eq!(fresh(source, messages(source * 8..source * 8 + 8)), Vec::<String>::new());
    }
    assert_eq!(moved(1, (1, true), messages(10..16)), Vec::<String>::new());
    assert_eq!(moved(0, (0, true), messages(2..8)), Vec::<String>::new());
}

#[test]
fn what_is_skipped_repeated_or_swapped_is_found() {
    let skipped = fresh(1, messages([8, 9, 11, 12, 13, 14, 15]));
    assert_eq!(skipped, ["#10 of stored at 120 a was missed without a gap before 100"]);
    let last = fresh(0, messages(0..7));
    assert_eq!(last, ["#7 of events at 170 a was missed without a gap by the end"]);
    assert_eq!(fresh(0, messages([0, 1, 2, 2, 3, 4, 5, 6, 7])), ["#2 came again at 100"]);
    // Of one publisher, and of two.
    assert!(!fresh(0, messages([0, 1, 4, 3, 2, 5, 6, 7])).is_empty());
    assert!(!fresh(0, messages([0, 1, 3, 2, 4, 5, 6, 7])).is_empty());
    assert!(!moved(1, (1, true), messages([10, 11, 13, 14, 15])).is_empty(), "resumed, and then a loss");
}

#[test]
fn what_was_sent_at_the_same_time_may_come_in_either_order_and_what_was_not_confirmed_not_at_all() {
    let mut account = account();
    account.record.truth.messages[2].at.to = 135;
    account.record.truth.messages[4].fate = Fate::Unknown;
    account.record.truth.messages[4].at.to = Moment::MAX;
    let told = [vec![asked(vec![None; 3]), subscribed(false)], messages([0, 1, 3, 2, 5, 6, 7])].concat();
    assert_eq!(judge(&mut account, 0, told), Vec::<String>::new());
}

#[test]
fn a_queue_may_bring_a_message_again_when_it_says_so() {
    let again = |redelivered| What::Message(Received { number: 18, redelivered, ..Received::default() });
    let told = |redelivered| [messages(16..24), vec![again(redelivered)]].concat();
    assert_eq!(fresh(2, told(true)), Vec::<String>::new());
    assert!(!fresh(2, told(false)).is_empty());
    let of_stream = What::Message(Received { number: 10, redelivered: true, ..Received::default() });
    assert!(!fresh(1, [messages(8..16), vec![of_stream]].concat()).is_empty());
}

#[test]
fn a_gap_needs_a_cause_and_stands_where_something_was_missed() {
    let harmed = |node, told: Vec<What>| {
        let mut account = account();
        account.harms.push(Harmed { node, from: 85, to: 135 });
        judge(&mut account, 0, [vec![asked(vec![None; 3]), subscribed(false)], told].concat())
    };
    let outage = || gap(0, GapReason::Outage);
    let told = [messages([0, 1]), vec![outage()], messages([4, 5, 6, 7])].concat();
    assert_eq!(harmed(0, told.clone()), Vec::<String>::new());
    assert!(!harmed(1, told).is_empty(), "another node's link was lost");
    let late = [messages([0, 1, 4]), vec![outage()], messages([5, 6, 7])].concat();
    assert!(!harmed(0, late).is_empty(), "it is told after the next message");
    let twice = [messages([0, 1]), vec![outage(), outage()], messages([4, 5, 6, 7])].concat();
    assert!(!harmed(0, twice).is_empty(), "it is told twice");
    assert!(!harmed(0, messages([0, 1, 4, 5, 6, 7])).is_empty(), "it is lost");
    let of_stream = [messages(8..12), vec![gap(1, GapReason::Outage)], messages(12..16)].concat();
    assert_eq!(fresh(1, of_stream).len(), 1, "a stream has no gap");
    for reason in GapReason::ALL {
        let told = [messages(0..4), vec![gap(0, reason)], messages(4..8)].concat();
        assert_eq!(fresh(0, told).len(), 1, "{reason:?}");
    }
}

#[test]
fn a_cursor_from_another_log_is_told_and_no_other() {
    let told = || [vec![gap(0, GapReason::UnknownCursor)], messages(4..8)].concat();
    assert_eq!(moved(0, (1, false), told()), Vec::<String>::new());
    assert_eq!(moved(0, (2, false), told()), Vec::<String>::new(), "the same node, after a start");
    assert!(!moved(0, (0, false), told()).is_empty(), "the cursor is of this log");
    assert!(!moved(0, (1, true), told()).is_empty(), "it was not resumed");
    assert!(!moved(0, (1, false), messages(2..8)).is_empty(), "the gap is lost");
    let of_stream = [vec![gap(1, GapReason::UnknownCursor)], messages(10..16)].concat();
    assert!(!moved(1, (1, false), of_stream).is_empty(), "a stream's cursor is good everywhere");
    assert!(!moved(1, (1, false), messages(10..16)).is_empty(), "resumed, and it is not said");
}

/// It goes when it has all of the stream and two of the exchange, and comes back as if for the first time.
#[test]
fn who_goes_is_owed_no_more_of_a_source_than_came_of_it() {
    let mut account = account();
    let begin = || vec![asked(vec![None; 3]), subscribed(false)];
    let told = [begin(), messages([0, 1]), messages(8..16), vec![ended()], begin()].concat();
    let told = told.into_iter().zip((50..).step_by(10)).map(|(what, at)| Told { at, what }).collect();
    account.record.histories =
        vec![History { name: "one".into(), wanted: Pattern::all().into(), sources: vec![0, 1], told }];
    let visits = vec![(50, 0), (180, 0)];
    account.journeys = vec![journey(visits)];
    assert_eq!(check(&account), []);
}

/// A raw client that asked for everything in the stream, and for `beside`; the third and the sixth message are on another
/// topic, which `*.b` does not match.
fn raw(beside: &[&str], came: impl IntoIterator<Item = Number>) -> Vec<String> {
    let mut account = account();
    for (number, published) in account.record.truth.messages.iter_mut().enumerate() {
        published.topic = Topic::parse(if [10, 13].contains(&number) { "a.c" } else { "a.b" }).unwrap();
    }
    let beside = beside.iter().map(|text| Pattern::parse(text).unwrap()).collect();
    account.journeys = vec![Journey { is_raw: true, beside, ..journey(vec![(50, 0)]) }];
    judge(&mut account, 1, [vec![asked(vec![None; 3])], messages(came)].concat())
}

/// On a node that had just started `*.b` was bound first, and the stream's messages came for it while the other pattern of the
/// same client still waited for the broker: nobody is owed yet what only that one matches.
#[test]
fn what_came_may_have_come_for_another_pattern_of_a_raw_client() {
    let before_it_stood = [8, 9, 11, 12, 13, 14, 15];
    assert_eq!(raw(&["*.b"], before_it_stood), Vec::<String>::new());
    let sixth = "#13 of stored at 150 a.c was missed without a gap before 120";
    assert_eq!(raw(&["*.b"], [8, 9, 10, 11, 12, 14, 15]), [sixth], "the third can have come for it only");
    let fourth = "#11 of stored at 130 a.b was missed without a gap before 100";
    assert_eq!(raw(&["*.b"], [8, 9, 10, 12, 13, 14, 15]), [fourth]);
    let fourth = "#11 of stored at 130 a.b was missed without a gap before 90";
    assert_eq!(raw(&["*.b"], [8, 9, 12, 13, 14, 15]), [fourth], "whichever of the two stood before");
    let third = "#10 of stored at 120 a.c was missed without a gap before 90";
    assert_eq!(raw(&[], before_it_stood), [third]);
    assert_eq!(raw(&["*.b"], 10..16), Vec::<String>::new(), "nothing shows that anything stood earlier");
}

/// What came ahead of its subscription, for another one of the same client.
fn early(number: Number) -> What {
    What::Message(Received { number, early: true, ..Received::default() })
}

/// Two messages at the life 0; elsewhere the third, for another subscription; then back with the cursor of the second.
fn there_and_back(resumed: bool, told: Vec<What>) -> Vec<String> {
    let mut account = account();
    account.sources[0].keeps_ms = Some(0);
    account.journeys = vec![journey(vec![(50, 0), (100, 1), (130, 0)])];
    let begin = vec![asked(vec![None; 3]), subscribed(false), message(0), message(1), ended()];
    let elsewhere = vec![asked(at(0, 110, 80)), early(2), ended()];
    let back = vec![asked(at(0, 110, 80)), subscribed(resumed)];
    judge(&mut account, 0, [begin, elsewhere, back, told].concat())
}

#[test]
fn each_log_of_an_exchange_brings_and_counts_what_another_has_brought() {
    assert_eq!(there_and_back(true, messages(2..8)), Vec::<String>::new());
    assert_eq!(
        there_and_back(true, messages([2, 3, 2, 4, 5, 6, 7])),
        ["#2 came again at 170", "#2 came at 170 after a later one"]
    );
    let expired = |missed| vec![What::Gap { source: 0, reason: GapReason::Expired, missed: Some(missed) }];
    let gone = |missed| there_and_back(false, [expired(missed), messages(4..8)].concat());
    assert_eq!(gone(2), Vec::<String>::new());
    assert!(!gone(3).is_empty(), "the log let go of two");
}

/// A queue brought a message, the log let go of it, and the queue brings it again.
#[test]
fn what_a_queue_brings_again_may_be_missed_once() {
    let mut account = account();
    account.sources[2].keeps_ms = Some(0);
    for (number, at) in [(16, 60), (17, 75), (18, 85)] {
        account.record.truth.messages[number].at = Span { from: at, to: at + 5 };
    }
    account.journeys = vec![journey(vec![(50, 0), (90, 0)])];
    let begin = vec![asked(vec![None; 3]), subscribed(false), message(16), ended()];
    let expired = What::Gap { source: 2, reason: GapReason::Expired, missed: Some(2) };
    let again = What::Message(Received { number: 18, redelivered: true, ..Received::default() });
    let back = vec![asked(at(2, 60, 70)), subscribed(false), expired, again];
    let told = [begin, back, messages(19..24)].concat();
    assert_eq!(judge(&mut account, 2, told), Vec::<String>::new());
}
