//! Claims as sessions and binders see them.

use super::*;

fn pattern(text: &str) -> Pattern {
    Pattern::parse(text).unwrap()
}

fn on_demand(kind: BindingKind) -> Interest {
    Interest::new("events", BindingMode::OnDemand { kind, linger: Duration::from_secs(1), bindings_max: 2 })
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("something must happen")
}

#[tokio::test]
async fn a_claim_settles_once_its_binding_stands() {
    let interest = on_demand(BindingKind::Topic);
    let claim = interest.claim(&pattern("a"));
    in_time(interest.changed()).await;
    assert_eq!(interest.plan(Instant::now()).bind, [pattern("a")]);
    assert_eq!(claim.standing(), Standing::Wanted);
    let settled = in_time(async { tokio::join!(claim.settled(), async { interest.stands(&pattern("a")) }) }).await;
    assert_eq!(settled.0, Ok(()));
    assert_eq!((interest.bindings(), interest.bound(9)), (1, vec![pattern("a")]));
    assert_eq!(interest.claim(&pattern("a")).standing(), Standing::Stands);
    drop(claim);
    in_time(interest.changed()).await;
    assert!(interest.plan(Instant::now()).next.is_some());
}

#[test]
fn a_hundred_thousand_claims_on_one_topic_are_one_binding() {
    let interest = on_demand(BindingKind::Topic);
    let claims: Vec<Claim> = (0..100_000).map(|_| interest.claim(&pattern("a"))).collect();
    assert_eq!(interest.plan(Instant::now()).bind, [pattern("a")]);
    interest.stands(&pattern("a"));
    assert!(claims.iter().all(|claim| claim.standing() == Standing::Stands));
    let wanted = Wanted { pattern: pattern("a"), claims: 100_000, standing: Standing::Stands };
    assert_eq!(interest.patterns(9), [wanted]);
    drop(claims);
    assert_eq!(interest.patterns(9), []);
}

#[tokio::test]
async fn a_direct_exchange_refuses_patterns_in_words() {
    let interest = on_demand(BindingKind::Direct);
    let sentence = "source 'events' is a direct exchange, which cannot be bound by patterns: \
                    subscribe to literal topics or list source.events.bindings";
    let first = interest.claim(&pattern("a.*"));
    assert_eq!(in_time(first.settled()).await, Err(sentence.to_owned()));
    assert_eq!(in_time(interest.claim(&pattern("a.*")).settled()).await, Err(sentence.to_owned()));
    let literal = interest.claim(&pattern("a.b"));
    assert_eq!(interest.plan(Instant::now()).bind, [pattern("a.b")]);
    drop((first, literal));
    assert_eq!(interest.patterns(9), []);
}

#[tokio::test]
async fn who_asks_again_after_a_refusal_gets_a_new_attempt() {
    let interest = on_demand(BindingKind::Topic);
    let first = interest.claim(&pattern("a"));
    interest.plan(Instant::now());
    interest.refused(&pattern("a"), "no permission".into());
    assert_eq!(in_time(first.settled()).await, Err("no permission".to_owned()));
    let second = interest.claim(&pattern("a"));
    assert_eq!(second.standing(), Standing::Wanted);
    assert_eq!(interest.plan(Instant::now()).bind, [pattern("a")]);
    drop(first);
    interest.stands(&pattern("a"));
    assert_eq!(in_time(second.settled()).await, Ok(()));
}

#[tokio::test]
async fn beyond_the_limit_of_a_direct_exchange_the_sentence_names_the_key_to_raise() {
    let interest = on_demand(BindingKind::Direct);
    let _claims = [interest.claim(&pattern("a")), interest.claim(&pattern("b"))];
    interest.plan(Instant::now());
    interest.stands(&pattern("a"));
    let third = interest.claim(&pattern("c"));
    interest.plan(Instant::now());
    assert_eq!(third.standing(), Standing::Wanted, "the broker may refuse the second");
    interest.stands(&pattern("b"));
    interest.plan(Instant::now());
    let sentence = in_time(third.settled()).await.unwrap_err();
    assert!(sentence.contains("all the 2 bindings") && sentence.contains("raise source.events.bindings_max"));
}

#[tokio::test]
async fn beyond_the_limit_of_a_topic_exchange_a_cover_serves_everybody() {
    let interest = on_demand(BindingKind::Topic);
    let first = interest.claim(&pattern("a.1"));
    assert_eq!(interest.plan(Instant::now()).bind, [pattern("a.1")]);
    interest.stands(&pattern("a.1"));
    let second = interest.claim(&pattern("a.2"));
    let plan = interest.plan(Instant::now());
    assert_eq!((plan.bind, plan.unbind), (vec![pattern("a.*")], vec![]));
    assert!(matches!(plan.folding, Some(Folding::Begun { wanted: 2, bindings_max: 2, .. })));
    interest.stands(&pattern("a.*"));
    assert_eq!(in_time(second.settled()).await, Ok(()));
    assert_eq!(interest.plan(Instant::now()).unbind, [pattern("a.1")]);
    assert_eq!(first.standing(), Standing::Stands);
}

#[tokio::test]
async fn a_lost_link_makes_every_claim_wanted_again() {
    let interest = on_demand(BindingKind::Topic);
    let claim = interest.claim(&pattern("a"));
    interest.plan(Instant::now());
    interest.stands(&pattern("a"));
    interest.lost();
    assert_eq!((claim.standing(), interest.bindings()), (Standing::Wanted, 0));
    assert_eq!(interest.plan(Instant::now()).bind, [pattern("a")]);
    interest.stands(&pattern("a"));
    assert_eq!(in_time(claim.settled()).await, Ok(()));
}

/// Of a direct exchange with two places: who stood keeps theirs, however often the link fails before it is up again, and
/// whoever came during the outage is told that there is none.
#[test]
fn who_comes_during_an_outage_takes_nobodys_place() {
    let interest = on_demand(BindingKind::Direct);
    let old = ["t1", "t2"].map(|topic| interest.claim(&pattern(topic)));
    bind(&interest);
    interest.lost();
    // Texts on both sides, so that it is not their order that decides.
    let new = ["a", "z"].map(|topic| interest.claim(&pattern(topic)));
    interest.lost();
    bind(&interest);
    assert!(old.iter().all(|claim| claim.standing() == Standing::Stands));
    assert!(new.iter().all(|claim| matches!(claim.standing(), Standing::Refused(_))));
    assert_eq!(interest.lapses(), 0);
}

/// Who stood and is refused has to be told, also where somebody else asks again before anybody has looked.
#[test]
fn what_stood_and_is_refused_lapses_each_time() {
    let interest = on_demand(BindingKind::Topic);
    let refuse = || {
        interest.plan(Instant::now());
        interest.refused(&pattern("a"), "no permission".into());
        interest.lapses()
    };
    let first = interest.claim(&pattern("a"));
    assert_eq!(refuse(), 0, "it never stood");
    let second = interest.claim(&pattern("a"));
    bind(&interest);
    interest.lost();
    assert_eq!(refuse(), 1);
    let third = interest.claim(&pattern("a"));
    assert_eq!(refuse(), 2);
    interest.lost();
    assert_eq!(refuse(), 3);
    drop((first, second, third));
    let _anew = interest.claim(&pattern("a"));
    assert_eq!(refuse(), 3, "it is wanted by others, who were told nothing");
}

/// Makes what bindings are wanted, until nothing is left to ask for.
fn bind(interest: &Interest) {
    loop {
        let Plan { bind, .. } = interest.plan(Instant::now());
        if bind.is_empty() {
            return;
        }
        bind.iter().for_each(|pattern| interest.stands(pattern));
    }
}

#[tokio::test]
async fn fixed_bindings_stand_for_everybody_once_all_of_them_do() {
    let interest = Interest::new("events", BindingMode::Fixed(vec![pattern("b"), pattern("a"), pattern("b")]));
    let early = interest.claim(&pattern("x.#"));
    assert_eq!(interest.plan(Instant::now()).bind, [pattern("a"), pattern("b")]);
    assert_eq!(interest.plan(Instant::now()).bind, []);
    interest.stands(&pattern("a"));
    assert_eq!((early.standing(), interest.bindings()), (Standing::Wanted, 1));
    interest.stands(&pattern("b"));
    assert_eq!(in_time(early.settled()).await, Ok(()));
    assert_eq!(interest.claim(&pattern("y")).standing(), Standing::Stands);
    interest.lost();
    assert_eq!(early.standing(), Standing::Wanted);
    interest.plan(Instant::now());
    interest.refused(&pattern("a"), "no permission".into());
    assert_eq!(in_time(early.settled()).await, Err("no permission".to_owned()));
    assert_eq!(interest.plan(Instant::now()).bind, []);
}
