//! The checker judged by short histories that a person can check: what keeps the rule passes, and each way to break it is
//! found, with truths that are certain and with such as a real broker gives.

use passerelle::model::filter::{Combination, Filter, Scalar};
use passerelle::model::flow::Flow;
use passerelle::model::gap::GapReason;
use passerelle::model::selector::Selector;
use passerelle::model::topic::{Pattern, Topic};
use passerelle::model::value::{Headers, Value};

use crate::history::record::{
    AskedFor, Binding, Cursors, FORGED, Fate, History, Line, Moment, Number, Published, Received, Record, SourceTruth,
    Span, Told, Truth, What,
};
use crate::history::rule::check;

/// One source, bound to everything from moment 1 on; messages on `a` at 10, 20, 30 and 40.
fn record() -> Record {
    let binding = Binding { pattern: Pattern::all(), from: 1, to: None };
    let source = SourceTruth { name: "events".into(), bindings: vec![binding], ..SourceTruth::default() };
    let topic = Topic::parse("a").unwrap();
    let message = |at| Published::new(0, topic.clone(), Span::at(at), Fate::Logged);
    let messages = [10, 20, 30, 40].map(message).to_vec();
    Record { truth: Truth { sources: vec![source], messages, remembered: 1000 }, ..Record::default() }
}

fn at(moment: Moment) -> Cursors {
    vec![Some(Span::at(moment))]
}

fn message(number: Number, replay: bool) -> What {
    What::Message(Received { number, replay, ..Received::default() })
}

fn gap(reason: GapReason, missed: Option<u64>) -> What {
    What::Gap { source: 0, reason, missed }
}

fn asked(after: Cursors) -> What {
    What::Asked { after, last: false, flow: Flow::CatchUp }
}

/// Fresh since moment 5, then these, told at moments from 50 on.
fn fresh(record: &mut Record, told: Vec<What>) -> Vec<String> {
    let begin = [asked(vec![None]), What::Subscribed { cursors: at(5), resumed: false }];
    judge(record, begin.into_iter().chain(told).collect())
}

/// Resumed after moment 10.
fn resumed(record: &mut Record, resumed: bool, told: Vec<What>) -> Vec<String> {
    let begin = [asked(at(10)), What::Subscribed { cursors: at(10), resumed }];
    judge(record, begin.into_iter().chain(told).collect())
}

fn judge(record: &mut Record, told: Vec<What>) -> Vec<String> {
    judge_for(record, Pattern::parse("a").unwrap().into(), told)
}

fn judge_for(record: &mut Record, wanted: Selector, told: Vec<What>) -> Vec<String> {
    let told = told.into_iter().zip(50..).map(|(what, at)| Told { at, what }).collect();
    record.histories = vec![History { name: "one".into(), wanted, sources: vec![0], told }];
    check(record).into_iter().map(|violation| violation.sentence).collect()
}

fn live(numbers: &[Number]) -> Vec<What> {
    numbers.iter().map(|number| message(*number, false)).collect()
}

#[test]
fn everything_once_and_in_order_keeps_the_rule() {
    assert_eq!(fresh(&mut record(), live(&[0, 1, 2, 3])), Vec::<String>::new());
    let replay = vec![message(1, true), message(2, true), What::CaughtUp { cursors: at(30) }, message(3, false)];
    assert_eq!(resumed(&mut record(), true, replay), Vec::<String>::new());
}

#[test]
fn what_is_skipped_repeated_or_swapped_is_found() {
    assert_eq!(fresh(&mut record(), live(&[0, 2, 3])), ["#1 of 20 was missed without a gap before 53"]);
    assert_eq!(fresh(&mut record(), live(&[0, 1, 2])), ["#3 of 40 was missed without a gap by the end"]);
    assert!(fresh(&mut record(), live(&[0, 1, 1, 2, 3])).contains(&"#1 came again".to_owned()));
    assert!(!fresh(&mut record(), live(&[0, 2, 1, 3])).is_empty());
}

#[test]
fn at_the_boundary_nothing_is_lost_or_doubled() {
    let caught_up = || What::CaughtUp { cursors: at(30) };
    let lost = vec![message(1, true), caught_up(), message(3, false)];
    assert_eq!(resumed(&mut record(), true, lost), ["#2 of 30 was missed without a gap before 54"]);
    let doubled = vec![message(1, true), message(2, true), caught_up(), message(2, false), message(3, false)];
    assert_eq!(resumed(&mut record(), true, doubled), ["#2 came again"]);
}

#[test]
fn a_queue_may_bring_a_message_again_when_it_says_so() {
    let again = |redelivered| What::Message(Received { number: 1, redelivered, ..Received::default() });
    let told = |redelivered| [live(&[0, 1, 2, 3]), vec![again(redelivered)]].concat();
    let mut record = record();
    assert!(!fresh(&mut record, told(true)).is_empty(), "this is no queue");
    record.truth.sources[0].is_queue = true;
    assert_eq!(fresh(&mut record, told(true)), Vec::<String>::new());
    assert!(!fresh(&mut record, told(false)).is_empty());
}

#[test]
fn what_is_missing_is_covered_by_a_gap_before_the_next_message_with_its_number() {
    let told = |gap: What, place: usize| {
        let mut told = live(&[0, 2, 3]);
        told.insert(place, gap);
        told
    };
    let evicted = |at| {
        let mut record = record();
        record.truth.messages[1].evicted = Some(Span::at(at));
        record
    };
    assert_eq!(fresh(&mut evicted(30), told(gap(GapReason::Slow, Some(1)), 1)), Vec::<String>::new());
    assert!(!fresh(&mut evicted(30), told(gap(GapReason::Slow, Some(1)), 2)).is_empty(), "too late");
    assert!(!fresh(&mut evicted(30), told(gap(GapReason::Slow, Some(2)), 1)).is_empty(), "too wide");
    assert!(!fresh(&mut evicted(30), told(gap(GapReason::Outage, None), 1)).is_empty(), "the wrong reason");
    assert!(!fresh(&mut evicted(30), told(gap(GapReason::Slow, None), 1)).is_empty(), "the number is known");
    assert!(!fresh(&mut record(), told(gap(GapReason::Slow, Some(1)), 1)).is_empty(), "the log has it");
    assert!(!fresh(&mut evicted(60), told(gap(GapReason::Slow, Some(1)), 1)).is_empty(), "the log had it then");
}

#[test]
fn a_gap_where_nothing_was_missed_is_needless() {
    for reason in GapReason::ALL {
        let mut told = live(&[0, 1, 2, 3]);
        told.insert(2, gap(reason, None));
        assert!(!fresh(&mut record(), told).is_empty(), "{reason:?}");
        let told = vec![gap(reason, None), message(1, true), message(2, true), message(3, true)];
        assert!(!resumed(&mut record(), false, told).is_empty(), "{reason:?} at a resume");
    }
}

#[test]
fn an_outage_is_told_once_and_to_those_who_were_there() {
    let outage = || {
        let mut record = record();
        record.truth.sources[0].outages.push((15, 25));
        record.truth.sources[0].bindings[0].to = Some(15);
        record.truth.sources[0].bindings.push(Binding { pattern: Pattern::all(), from: 25, to: None });
        record.truth.messages[1].fate = Fate::Lost;
        record
    };
    let told = || gap(GapReason::Outage, None);
    let once = vec![message(0, false), told(), message(2, false), message(3, false)];
    assert_eq!(fresh(&mut outage(), once.clone()), Vec::<String>::new());
    let twice = [vec![message(0, false), told()], once[1..].to_vec()].concat();
    assert!(!fresh(&mut outage(), twice).is_empty());
    let later = vec![asked(vec![None]), What::Subscribed { cursors: at(26), resumed: false }, told()];
    assert!(!judge(&mut outage(), [later, live(&[2, 3])].concat()).is_empty());
    assert!(!resumed(&mut outage(), true, vec![message(2, true), message(3, true)]).is_empty(), "it was not resumed");
}

#[test]
fn latest_may_leave_out_what_was_superseded_and_nothing_else() {
    let begin = || {
        let asked = What::Asked { after: vec![None], last: false, flow: Flow::Latest };
        vec![asked, What::Subscribed { cursors: at(5), resumed: false }]
    };
    assert_eq!(judge(&mut record(), [begin(), live(&[0, 3])].concat()), Vec::<String>::new());
    assert!(!judge(&mut record(), [begin(), live(&[0, 2])].concat()).is_empty());
}

#[test]
fn a_lost_line_owes_nothing_beyond_the_cursor_that_is_kept() {
    let lost = |kept: Moment| [live(&[0, 1]), vec![What::Ended { kept: at(kept) }]].concat();
    assert_eq!(fresh(&mut record(), lost(20)), Vec::<String>::new());
    assert_eq!(fresh(&mut record(), lost(30)), ["#2 of 30 was missed without a gap by the end"]);
    let again = vec![asked(at(20)), What::Subscribed { cursors: at(20), resumed: true }, message(2, true)];
    let again = [lost(20), again, vec![message(3, true)]].concat();
    assert_eq!(fresh(&mut record(), again), Vec::<String>::new());
}

/// As a real broker is known: somewhere between a publish and its confirm, and whether it came nobody can say.
#[test]
fn what_is_not_certain_passes() {
    let mut record = record();
    record.truth.messages[1].at = Span { from: 20, to: 35 };
    assert_eq!(fresh(&mut record, live(&[0, 2, 1, 3])), Vec::<String>::new(), "either may have been first");
    record.truth.messages[1].fate = Fate::Unknown;
    record.truth.sources[0].outages.push((15, 25));
    record.truth.sources[0].bindings[0].to = Some(15);
    record.truth.sources[0].bindings.push(Binding { pattern: Pattern::all(), from: 25, to: None });
    let told = vec![message(0, false), gap(GapReason::Outage, None), message(2, false), message(3, false)];
    assert_eq!(fresh(&mut record, told), Vec::<String>::new());
}

/// Messages 1 and 3 are for us.
#[test]
fn what_a_filter_holds_back_is_not_owed_and_does_not_come() {
    let for_us = || {
        let fields = [("to".to_owned(), Scalar::Text("us".to_owned()))].into();
        let filter = Filter::new(Combination::All, fields).unwrap().map(std::sync::Arc::new);
        Selector { filter, pattern: Pattern::parse("a").unwrap() }
    };
    let judge = |record: &mut Record, told: Vec<What>| {
        let header = ("to".to_owned(), Value::Text("us".to_owned()));
        for number in [1, 3] {
            record.truth.messages[number].headers = Headers(vec![header.clone()]);
        }
        let begin = vec![asked(vec![None]), What::Subscribed { cursors: at(5), resumed: false }];
        judge_for(record, for_us(), [begin, told].concat())
    };
    assert_eq!(judge(&mut record(), live(&[1, 3])), Vec::<String>::new());
    assert!(!judge(&mut record(), live(&[3])).is_empty(), "it is for us");
    assert!(!judge(&mut record(), live(&[1, 2, 3])).is_empty(), "it is not");
    let told = |missed| [live(&[1]), vec![gap(GapReason::Slow, missed)], live(&[3])].concat();
    assert!(!judge(&mut record(), told(None)).is_empty(), "nothing left the log");
    let mut evicted = record();
    evicted.truth.messages[2].evicted = Some(Span::at(40));
    assert_eq!(judge(&mut evicted, told(None)), Vec::<String>::new(), "who knows for whom it was");
    assert!(!judge(&mut evicted, told(Some(1))).is_empty(), "it was not for us");
}

fn stream() -> Record {
    let mut record = record();
    record.truth.sources[0].is_stream = true;
    record.truth.sources[0].restarts = vec![1];
    record
}

#[test]
fn of_a_stream_what_was_cut_off_is_missed_and_nothing_else() {
    let cut = || {
        let mut record = stream();
        record.truth.messages[1].cut = Some(45);
        record.truth.messages[1].evicted = Some(Span::at(45));
        record
    };
    let told = |reason, missed| vec![message(0, false), gap(reason, missed), message(2, false), message(3, false)];
    for missed in [Some(1), None] {
        assert_eq!(fresh(&mut cut(), told(GapReason::Expired, missed)), Vec::<String>::new());
        assert!(!fresh(&mut stream(), told(GapReason::Expired, missed)).is_empty(), "the stream has it");
    }
    assert!(!fresh(&mut cut(), told(GapReason::Expired, Some(2))).is_empty(), "it was one");
    assert!(!fresh(&mut cut(), told(GapReason::Slow, Some(1))).is_empty(), "a slow reader reads the stream");
}

#[test]
fn that_a_stream_was_made_anew_is_told_once() {
    let remade = || {
        let mut record = stream();
        record.truth.sources[0].restarts.push(25);
        record
    };
    let unknown = || gap(GapReason::UnknownCursor, None);
    let told = |times: usize| [live(&[0]), vec![unknown(); times], live(&[2, 3])].concat();
    assert_eq!(fresh(&mut remade(), told(1)), Vec::<String>::new());
    assert!(!fresh(&mut remade(), told(0)).is_empty(), "1 is gone with the other stream");
    assert!(!fresh(&mut remade(), told(2)).is_empty());
    assert!(!fresh(&mut stream(), told(1)).is_empty(), "it is the same stream");
    let forged = |told: Vec<What>| {
        let begin = [asked(vec![Some(FORGED)]), What::Subscribed { cursors: at(20), resumed: false }];
        judge(&mut stream(), begin.into_iter().chain(told).collect())
    };
    assert_eq!(forged([vec![unknown()], live(&[2, 3])].concat()), Vec::<String>::new());
    assert!(!forged(live(&[2, 3])).is_empty(), "nobody gave that cursor");
}

/// As a node has it that lags behind the one that gave the cursor.
#[test]
fn nothing_comes_live_from_before_the_cursor_unless_another_subscription_wants_it() {
    let told = |alone| {
        let early = What::Message(Received { number: 0, alone, ..Received::default() });
        [vec![early], live(&[1, 2, 3])].concat()
    };
    assert_eq!(resumed(&mut stream(), true, told(false)), Vec::<String>::new());
    assert!(!resumed(&mut stream(), true, told(true)).is_empty());
}

#[test]
fn on_a_connection_nothing_comes_that_nobody_asked_for() {
    let line = |asked: &str, source| Line {
        asked: vec![AskedFor { wanted: Pattern::parse(asked).unwrap().into(), source, replays: false }],
        messages: vec![Received::default()],
        ..Line::default()
    };
    for (line, right) in [(line("#", None), true), (line("b", None), false), (line("#", Some(1)), false)] {
        let record = Record { lines: vec![line], ..record() };
        assert_eq!(check(&record).is_empty(), right, "{:?}", record.lines);
    }
}

#[test]
fn what_never_comes_to_rest_is_found() {
    let mut record = Record { stuck: vec![0], ..record() };
    assert_eq!(fresh(&mut record, live(&[0, 1, 2, 3])), ["it never came to rest"]);
}
