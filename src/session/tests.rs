//! Rules of a session that no conversation shows well: bounds, orders that only a driver's race brings about, memory.
//! Conversations are [`transcripts`].

mod docs;
mod groups;
mod mqtt;
mod player;
mod stomp;
mod transcripts;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use super::limits::{CLOSE_DETAIL_BYTES_MAX, Terms};
use super::*;
use crate::auth::Grants;
use crate::config::{Presence, Presences, Settings};
use crate::model::gap::GapReason;
use crate::model::label::Label;
use crate::model::topic::{Pattern, Topic};
use crate::model::value::Headers;
use crate::protocol::{
    Command, Echo, ErrorCode, Fault, Subprotocol, Subscribe, Which, json, raw, stomp as stomp_protocol,
};

fn anybody() -> Arc<Identity> {
    let grants = Grants { subscribe: true, publish: true, consume: true };
    Arc::new(Identity { user: None, expires_at: None, grants })
}

fn small_terms() -> Terms {
    Terms {
        subscriptions_max: 3,
        publishes_in_flight_max: 2,
        calls_in_flight_max: 1,
        ..Terms::new(&Settings::default())
    }
}

fn session(protocol: &'static Subprotocol, admission: Result<Arc<Identity>, Arc<str>>) -> Session {
    let start = Start { connection: "c1".into(), protocol, admission, at: Instant::now() };
    Session::new(Arc::new(small_terms()), start)
}

fn json_session() -> Session {
    session(&json::SUBPROTOCOL, Ok(anybody()))
}

fn pattern(text: &str) -> Pattern {
    Pattern::parse(text).unwrap()
}

fn subscribe(text: &str) -> Command {
    Command::Subscribe(Subscribe::to(pattern(text)))
}

fn message() -> Outgoing {
    let topic = Topic::parse("up").unwrap();
    Outgoing::new(topic, Bytes::new())
}

fn publish() -> Command {
    Command::Publish { id: None, message: message(), mandatory: false, echo: Echo::All }
}

fn subscribed(key: u32) -> Completion {
    let (cursors, gaps) = (JointCursor::default(), Vec::new());
    Completion::Subscribed { subscription: SubscriptionKey(key), cursors, resumed: false, gaps, replay: false }
}

fn caught_up(key: u32) -> Completion {
    Completion::CaughtUp { subscription: SubscriptionKey(key), cursors: JointCursor::default() }
}

fn gap_on(text: &str) -> Gap {
    Gap { pattern: pattern(text), label: None, source: "events".into(), missed: Some(2), reason: GapReason::Slow }
}

fn after(session: &mut Session, step: impl FnOnce(&mut Session, &mut Vec<Action>)) -> Vec<Action> {
    let mut actions = Vec::new();
    step(session, &mut actions);
    actions
}

/// Codes of the errors among some actions.
fn errors(actions: &[Action]) -> Vec<ErrorCode> {
    let code = |action: &Action| match action {
        Action::Send(Event::Error { code, .. }) => Some(*code),
        _ => None,
    };
    actions.iter().filter_map(code).collect()
}

fn closed_with(actions: &[Action]) -> Option<(CloseReason, &str)> {
    match actions.last() {
        Some(Action::Close { reason, detail }) => Some((*reason, detail)),
        _ => None,
    }
}

#[test]
fn a_session_is_small() {
    let size = size_of::<Session>();
    assert!(size <= 160, "{size} bytes a session");
}

/// Two of its subscriptions on one pattern are two where labels tell them apart: it is there once, until the last has ended.
#[test]
fn who_subscribes_twice_to_a_pattern_counts_once() {
    let row = &stomp_protocol::SUBPROTOCOLS[0];
    let presence = Presence { name: "p".into(), pattern: pattern("a.#"), join_leave: true, members_max: 9 };
    let terms = Terms { presences: Presences(vec![presence]), ..small_terms() };
    let start = Start { connection: "c1".into(), protocol: row, admission: Ok(anybody()), at: Instant::now() };
    let mut session = Session::new(Arc::new(terms), start);
    let counted = |actions: Vec<Action>| {
        actions.iter().filter(|one| matches!(one, Action::Attend { .. } | Action::Depart { .. })).count()
    };
    let mut changes = Vec::new();
    for (key, label) in [(0, "one"), (1, "two")] {
        let subscribe = Subscribe { label: Some(Label::new(label)), ..Subscribe::to(pattern("a.b")) };
        after(&mut session, |session, actions| session.command(Command::Subscribe(subscribe), actions));
        changes.push(counted(after(&mut session, |session, actions| session.complete(subscribed(key), actions))));
    }
    for label in ["one", "two"] {
        let which = Which::Label(Label::new(label));
        let end = Command::Unsubscribe { id: None, which };
        changes.push(counted(after(&mut session, |session, actions| session.command(end, actions))));
    }
    assert_eq!(changes, [1, 0, 0, 1]);
}

#[test]
fn subscriptions_are_limited_but_one_can_be_replaced_at_the_limit() {
    let mut session = json_session();
    for text in ["a", "b", "c"] {
        assert!(errors(&after(&mut session, |session, actions| session.command(subscribe(text), actions))).is_empty());
    }
    let more = after(&mut session, |session, actions| session.command(subscribe("d"), actions));
    assert_eq!(errors(&more), [ErrorCode::Limit]);
    let replaced = after(&mut session, |session, actions| session.command(subscribe("c"), actions));
    assert!(matches!(replaced[..], [Action::Subscribe(_)]));
    let again = after(&mut session, |session, actions| session.command(subscribe("c"), actions));
    assert_eq!(errors(&again), [ErrorCode::Limit]);
    after(&mut session, |session, actions| session.complete(subscribed(2), actions));
    after(&mut session, |session, actions| session.complete(subscribed(3), actions));
    assert_eq!(session.describe(0).subscriptions, 3);
}

#[test]
fn a_failed_replacement_leaves_the_first_alone() {
    let mut session = json_session();
    let mut actions = Vec::new();
    session.command(subscribe("a"), &mut actions);
    session.complete(subscribed(0), &mut actions);
    session.command(subscribe("a"), &mut actions);
    let refusal = SubscribeRefusal::UnknownSource("x".into());
    session.complete(Completion::SubscribeFailed { subscription: SubscriptionKey(1), refusal }, &mut actions);
    let told = after(&mut session, |session, actions| session.gap(gap_on("a"), actions));
    assert_eq!(told.len(), 1);
    assert_eq!(session.describe(0).last_gap, Some(gap_on("a")));
}

#[test]
fn a_subscription_that_is_overtaken_is_answered_and_dropped() {
    let mut session = json_session();
    let mut actions = Vec::new();
    session.command(subscribe("a"), &mut actions);
    session.command(subscribe("a"), &mut actions);
    let overtaken = after(&mut session, |session, actions| session.complete(subscribed(1), actions));
    assert!(matches!(overtaken[0], Action::Unsubscribe { subscription: SubscriptionKey(0) }));
    assert_eq!(errors(&overtaken), [ErrorCode::NotFound]);
    assert!(matches!(overtaken[2], Action::Send(Event::Subscribed { .. })));
    assert!(after(&mut session, |session, actions| session.complete(subscribed(0), actions)).is_empty());
}

#[test]
fn gaps_concern_only_what_stands() {
    let mut session = json_session();
    assert!(after(&mut session, |session, actions| session.gap(gap_on("a"), actions)).is_empty());
    after(&mut session, |session, actions| session.command(subscribe("a"), actions));
    assert!(after(&mut session, |session, actions| session.gap(gap_on("a"), actions)).is_empty());
    after(&mut session, |session, actions| session.complete(subscribed(0), actions));
    assert_eq!(after(&mut session, |session, actions| session.gap(gap_on("a"), actions)).len(), 1);
}

#[test]
fn reading_stops_at_the_bound_and_goes_on_after_an_answer() {
    let mut session = json_session();
    let mut actions = Vec::new();
    assert!(session.reading());
    session.command(publish(), &mut actions);
    assert!(session.reading());
    session.command(publish(), &mut actions);
    assert!(!session.reading());
    let beyond = after(&mut session, |session, actions| session.command(publish(), actions));
    assert_eq!(errors(&beyond), [ErrorCode::Limit]);
    let outcome = PublishOutcome::Confirmed { routed: true };
    session.complete(Completion::Published { job: JobKey(0), outcome }, &mut actions);
    assert!(session.reading());
}

/// A service may take its time, and a client that waits for it has other things to say: a pong, or that it goes.
#[test]
fn a_call_too_many_is_refused_and_everything_else_is_read_on() {
    let mut session = json_session();
    let call = || Command::Call { id: None, message: message(), timeout: None };
    after(&mut session, |session, actions| session.command(call(), actions));
    assert!(session.reading());
    let beyond = after(&mut session, |session, actions| session.command(call(), actions));
    assert_eq!(errors(&beyond), [ErrorCode::Limit]);
    let published = after(&mut session, |session, actions| session.command(publish(), actions));
    assert!(matches!(published[..], [Action::Publish { .. }]));
    let answered = Completion::Called { job: JobKey(0), outcome: CallOutcome::TimedOut };
    after(&mut session, |session, actions| session.complete(answered, actions));
    let again = after(&mut session, |session, actions| session.command(call(), actions));
    assert!(matches!(again[..], [Action::Call { .. }]) && session.reading());
}

#[test]
fn nothing_is_read_while_it_is_found_out_who_this_is() {
    let mut session = session(&json::SUBPROTOCOL, Err("send a token".into()));
    let connect = Command::Connect { id: None, token: Some("t".into()), client: None, claim: None };
    after(&mut session, |session, actions| session.command(connect, actions));
    assert!(!session.reading());
    let result = Err("the token is no good".into());
    let refused = after(&mut session, |session, actions| {
        session.complete(Completion::Authenticated { job: JobKey(0), result }, actions);
    });
    assert_eq!(errors(&refused), [ErrorCode::Unauthenticated]);
    assert!(session.reading() && session.deadline().is_some());
}

#[test]
fn a_stranger_has_until_the_deadline() {
    let mut session = session(&json::SUBPROTOCOL, Err("send a token".into()));
    let deadline = session.deadline().unwrap();
    let early = deadline - Duration::from_millis(1);
    assert!(after(&mut session, |session, actions| session.expire(early, actions)).is_empty());
    let late = after(&mut session, |session, actions| session.expire(deadline, actions));
    assert_eq!(closed_with(&late), Some((CloseReason::Unauthenticated, "send a token")));
    assert!(session.has_ended() && session.deadline().is_none() && !session.reading());
}

#[test]
fn nobody_becomes_somebody_else() {
    let user = |name: &str| Arc::new(Identity { user: Some(name.into()), ..(*anybody()).clone() });
    let mut session = session(&json::SUBPROTOCOL, Ok(user("anna")));
    for (job, name, expected) in [(0, "anna", vec![]), (1, "boris", vec![ErrorCode::Forbidden])] {
        let connect = Command::Connect { id: None, token: Some("t".into()), client: None, claim: None };
        after(&mut session, |session, actions| session.command(connect, actions));
        let completion = Completion::Authenticated { job: JobKey(job), result: Ok(user(name)) };
        let answered = after(&mut session, |session, actions| session.complete(completion, actions));
        assert_eq!(errors(&answered), expected);
        assert_eq!(session.describe(0).user, "anna");
    }
}

#[test]
fn where_errors_have_no_words_they_end_the_session() {
    let mut stranger = session(&raw::SUBPROTOCOL, Err("send a token".into()));
    let begun = after(&mut stranger, Session::begin);
    assert_eq!(closed_with(&begun), Some((CloseReason::Unauthenticated, "send a token")));
    let cases = [
        (PublishOutcome::Refused("x".repeat(500)), CloseReason::Policy),
        (PublishOutcome::Unavailable("away".into()), CloseReason::TryLater),
    ];
    for (outcome, reason) in cases {
        let mut session = session(&raw::SUBPROTOCOL, Ok(anybody()));
        let mut actions = Vec::new();
        session.begin(&mut actions);
        session.command(publish(), &mut actions);
        session.complete(Completion::Published { job: JobKey(0), outcome }, &mut actions);
        let (ended_with, detail) = closed_with(&actions).unwrap();
        assert_eq!(ended_with, reason);
        assert!(detail.len() <= CLOSE_DETAIL_BYTES_MAX);
    }
}

#[test]
fn every_failure_has_an_ending_where_it_has_no_words() {
    for code in ErrorCode::ALL {
        let fault = || Fault::Reply { id: None, code: *code, message: "x".into() };
        let mut mute = session(&raw::SUBPROTOCOL, Ok(anybody()));
        let ended = after(&mut mute, |session, actions| session.fault(fault(), actions));
        assert!(closed_with(&ended).is_some_and(|(reason, _)| reason != CloseReason::Lost), "{code:?}");
        let mut told = json_session();
        assert_eq!(errors(&after(&mut told, |session, actions| session.fault(fault(), actions))), [*code]);
        assert!(!told.has_ended());
    }
}

#[test]
fn a_description_says_why_somebody_gets_nothing() {
    let mut session = json_session();
    let mut actions = Vec::new();
    session.command(subscribe("orders.#"), &mut actions);
    session.command(subscribe("x"), &mut actions);
    session.complete(subscribed(0), &mut actions);
    session.gap(gap_on("orders.#"), &mut actions);
    let line = session.describe(7).to_string();
    let expected = "c1: user \"anonymous\", passerelle.v1.json, 7 matched, 2 subscriptions, 1 of them waiting, \
                    patterns [\"orders.#\"], last gap slow on \"orders.#\"";
    assert_eq!(line, expected);
}

/// Anything that may happen to a session, in any order.
fn step(session: &mut Session, kind: u8, number: u32, actions: &mut Vec<Action>) {
    let name = format!("p.{}", number % 4);
    let key = number % 8;
    match kind {
        0 => session.command(subscribe(&name), actions),
        1 => session.command(Command::Unsubscribe { id: None, which: Which::Pattern(pattern(&name)) }, actions),
        2 => session.complete(subscribed(key), actions),
        3 => {
            let refusal = SubscribeRefusal::Refused("no".into());
            session.complete(Completion::SubscribeFailed { subscription: SubscriptionKey(key), refusal }, actions);
        }
        4 => session.complete(caught_up(key), actions),
        5 => session.command(publish(), actions),
        6 => {
            let outcome = PublishOutcome::Confirmed { routed: number.is_multiple_of(2) };
            session.complete(Completion::Published { job: JobKey(key), outcome }, actions);
        }
        7 => session.command(Command::Call { id: None, message: message(), timeout: None }, actions),
        8 => session.complete(Completion::Called { job: JobKey(key), outcome: CallOutcome::TimedOut }, actions),
        9 => session.command(Command::Ping { id: None }, actions),
        10 => session.gap(gap_on(&name), actions),
        11 => session.outage("events".into(), actions),
        12 => {
            let (code, message) = (ErrorCode::BadField, "x".to_owned());
            session.fault(Fault::Reply { id: None, code, message }, actions);
        }
        13 if number.is_multiple_of(16) => session.drain(Duration::ZERO, actions),
        _ => {
            session.command(Command::Connect { id: None, token: Some("t".into()), client: None, claim: None }, actions)
        }
    }
}

proptest! {
    #[test]
    fn in_any_order_bounds_hold_and_nothing_follows_a_close(
        steps in vec((0..15_u8, any::<u32>()), 0..80),
        speaks_raw in any::<bool>(),
    ) {
        let protocol = if speaks_raw { &raw::SUBPROTOCOL } else { &json::SUBPROTOCOL };
        let mut session = session(protocol, Ok(anybody()));
        let mut actions = Vec::new();
        session.begin(&mut actions);
        for (kind, number) in steps {
            let had_ended = session.has_ended();
            let before = actions.len();
            step(&mut session, kind, number, &mut actions);
            prop_assert!(!had_ended || actions.len() == before);
            prop_assert!(session.describe(0).subscriptions <= small_terms().subscriptions_max + 1);
            let is_command = matches!(kind, 0 | 1 | 5 | 7 | 9 | 14);
            prop_assert!(had_ended || !is_command || actions.len() > before, "a command was dropped without a word");
        }
        let closes = actions.iter().filter(|action| matches!(action, Action::Close { .. })).count();
        prop_assert_eq!(closes, usize::from(session.has_ended()));
    }
}
