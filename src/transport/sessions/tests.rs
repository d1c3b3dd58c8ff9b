//! Who has a session, step by step, and what becomes of what is left.

use std::time::Duration;

use super::*;
use crate::hub::index::SubscriberId;
use crate::model::cursor::JointCursor;
use crate::model::topic::Topic;

fn name() -> ClientName {
    ClientName { user: None, client: "anna".into() }
}

fn holder(shard: usize) -> Holder {
    Holder { shard, ticket: Ticket::of(SubscriberId(0)), controls: mpsc::channel(1).0 }
}

/// For so many sessions, and three subscriptions.
fn room(sessions: usize) -> Count {
    Count { sessions, subscriptions: 3 }
}

/// Of one that was subscribed to so much.
fn subscribed(subscriptions: usize) -> Option<Box<Kept>> {
    let place = |number: usize| {
        let pattern = Pattern::parse(&number.to_string()).unwrap();
        (pattern, Place { after: JointCursor::default(), claims: Vec::new() })
    };
    let places = (0..subscriptions).map(place).collect();
    kept(None).map(|kept| Box::new(Kept { places, ..*kept }))
}

fn kept(will: Option<(Instant, Outgoing)>) -> Option<Box<Kept>> {
    let timer = tokio::spawn(async {}).abort_handle();
    let expires_at = Instant::now() + Duration::from_secs(60);
    Some(Box::new(Kept { memory: Memory::empty(), places: BTreeMap::new(), expires_at, will, timer }))
}

fn is_given_at_once(claimed: &Claimed, is_kept: bool) -> bool {
    matches!(claimed, Claimed::Now(kept) if kept.is_some() == is_kept)
}

#[tokio::test]
async fn what_one_connection_leaves_the_next_one_gets_once() {
    let sessions = Sessions::new(room(1));
    assert!(is_given_at_once(&sessions.claim(&name(), &holder(0)), false));
    assert!(sessions.release(&name(), &holder(0), kept(None)).is_none());
    assert_eq!(sessions.kept().sessions, 1);
    assert!(is_given_at_once(&sessions.claim(&name(), &holder(1)), true));
    assert_eq!(sessions.kept(), Count::default());
    assert!(sessions.release(&name(), &holder(1), None).is_none());
    assert!(is_given_at_once(&sessions.claim(&name(), &holder(2)), false), "the one before left nothing");
}

#[tokio::test]
async fn a_session_that_is_held_passes_when_its_holder_has_let_go() {
    let sessions = Sessions::new(room(0));
    sessions.claim(&name(), &holder(0));
    assert!(matches!(sessions.claim(&name(), &holder(1)), Claimed::After(before) if before.shard == 0));
    let Claimed::Busy(mut is_over) = sessions.claim(&name(), &holder(2)) else { panic!("one passes at a time") };
    assert!(sessions.release(&name(), &holder(0), kept(None)).is_none(), "whatever room there is: it is taken up");
    assert_eq!(is_over.try_recv(), Err(oneshot::error::TryRecvError::Empty));
    assert!(sessions.settle(&name(), &holder(2)).is_none(), "it is not this one's");
    assert!(sessions.settle(&name(), &holder(1)).is_some());
    assert_eq!(is_over.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    assert!(matches!(sessions.claim(&name(), &holder(2)), Claimed::After(before) if before.shard == 1));
}

#[tokio::test]
async fn who_is_gone_before_it_has_it_leaves_it_as_it_was() {
    let sessions = Sessions::new(room(1));
    sessions.claim(&name(), &holder(0));
    sessions.claim(&name(), &holder(1));
    assert!(sessions.release(&name(), &holder(0), kept(None)).is_none());
    sessions.abandon(&name(), &holder(1));
    assert_eq!(sessions.kept().sessions, 1);
    assert!(is_given_at_once(&sessions.claim(&name(), &holder(2)), true));
    sessions.claim(&name(), &holder(1));
    sessions.abandon(&name(), &holder(1));
    assert!(is_given_at_once(&sessions.claim(&name(), &holder(2)), false), "the one before had left nothing");
}

#[tokio::test]
async fn there_is_room_for_so_many_and_who_is_no_holder_any_more_leaves_nothing() {
    let sessions = Sessions::new(room(1));
    let other = ClientName { user: Some("anna".into()), client: "anna".into() };
    for name in [&name(), &other] {
        sessions.claim(name, &holder(0));
    }
    assert!(sessions.release(&name(), &holder(0), kept(None)).is_none());
    assert!(sessions.release(&name(), &holder(0), kept(None)).is_some());
    assert!(sessions.release(&other, &holder(0), kept(None)).is_some(), "there is no room");
    assert_eq!(sessions.kept().sessions, 1);
    assert!(is_given_at_once(&sessions.claim(&other, &holder(0)), false));
}

#[tokio::test]
async fn there_is_room_for_so_many_subscriptions_of_all() {
    let sessions = Sessions::new(room(9));
    let names = ["anna", "bob", "carl"].map(|client| ClientName { user: None, client: client.into() });
    for (name, subscriptions, is_kept) in [(&names[0], 2, true), (&names[1], 2, false), (&names[2], 1, true)] {
        sessions.claim(name, &holder(0));
        let refused = sessions.release(name, &holder(0), subscribed(subscriptions));
        assert_eq!(refused.is_none(), is_kept);
    }
    assert_eq!(sessions.kept(), Count { sessions: 2, subscriptions: 3 });
    assert!(is_given_at_once(&sessions.claim(&names[0], &holder(0)), true));
    assert_eq!(sessions.kept(), Count { sessions: 1, subscriptions: 1 });
    let expires_at = Instant::now() + Duration::from_secs(3_600);
    sessions.due(&names[2], expires_at);
    assert_eq!(sessions.kept(), Count::default());
}

#[tokio::test]
async fn a_will_is_due_once_and_at_the_end_at_the_latest() {
    let sessions = Sessions::new(room(1));
    let now = Instant::now();
    let at = |seconds| now + Duration::from_secs(seconds);
    let will = Outgoing::new(Topic::parse("gone").unwrap(), bytes::Bytes::new());
    for will_at in [at(5), at(500)] {
        sessions.claim(&name(), &holder(0));
        let mut left = kept(Some((will_at, will.clone()))).unwrap();
        left.expires_at = at(60);
        assert_eq!(left.due_at(), will_at.min(at(60)));
        sessions.release(&name(), &holder(0), Some(left));
        assert_eq!(due(&sessions, at(1)), (None, Some(will_at.min(at(60)))));
        if will_at < at(60) {
            assert_eq!(due(&sessions, at(6)), (Some(will.clone()), Some(at(60))));
            assert_eq!(due(&sessions, at(60)), (None, None));
        } else {
            assert_eq!(due(&sessions, at(60)), (Some(will.clone()), None));
        }
        assert_eq!((sessions.kept(), due(&sessions, at(61))), (Count::default(), (None, None)));
    }
}

/// What is due, and when something is due next.
fn due(sessions: &Sessions, now: Instant) -> (Option<Outgoing>, Option<Instant>) {
    let Due { will, next } = sessions.due(&name(), now);
    let next = match next {
        Next::At(at) => Some(at),
        Next::Over(_) => panic!("it does not pass"),
        Next::Never => None,
    };
    (will, next)
}

#[tokio::test]
async fn what_is_due_while_a_session_passes_is_done_if_its_claimant_is_gone() {
    let sessions = Sessions::new(room(1));
    let will = Outgoing::new(Topic::parse("gone").unwrap(), bytes::Bytes::new());
    for is_gone in [true, false] {
        sessions.claim(&name(), &holder(0));
        sessions.claim(&name(), &holder(1));
        let left = kept(Some((Instant::now(), will.clone())));
        let expires_at = left.as_ref().unwrap().expires_at;
        sessions.release(&name(), &holder(0), left);
        let Due { will: None, next: Next::Over(mut is_over) } = sessions.due(&name(), expires_at) else {
            panic!("its client may have it in a moment")
        };
        assert_eq!(is_over.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        if is_gone {
            sessions.abandon(&name(), &holder(1));
        } else {
            sessions.settle(&name(), &holder(1));
        }
        assert_eq!(is_over.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        assert_eq!(due(&sessions, expires_at), (is_gone.then(|| will.clone()), None));
        assert_eq!(sessions.kept(), Count::default());
    }
}
