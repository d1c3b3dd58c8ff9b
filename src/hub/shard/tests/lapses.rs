//! Subscriptions that stood, and whose bindings are then refused.

use super::*;
use crate::hub::interest::BindingKind;

const NO: &str = "no permission";

/// A source `a` that binds on demand, beside `b` that always stands.
fn bench() -> Bench {
    let (linger, bindings_max) = (std::time::Duration::ZERO, 9);
    let on_demand = BindingMode::OnDemand { kind: BindingKind::Topic, linger, bindings_max };
    let demanded = SourceState::new(Arc::new(test_info()), LogBounds::default(), on_demand);
    let hub = Hub::new(vec![demanded, hub().sources()[1].clone()]);
    let bench = Bench { shard: Shard::new(&hub, 2), hub, ..Bench::new() };
    bench.feed().link_up();
    bench
}

fn pattern(text: &str) -> Pattern {
    Pattern::parse(text).unwrap()
}

impl Bench {
    fn feed(&self) -> Feed {
        Feed::new(self.hub.sources()[0].clone())
    }

    /// Asks the broker for what bindings are wanted, of which it refuses one.
    fn bind_all_but(&self, refused: &str) {
        for wanted in self.feed().interest().plan(Instant::now()).bind {
            if wanted == pattern(refused) {
                self.feed().interest().refused(&wanted, NO.into());
            } else {
                self.feed().bound(&wanted);
            }
        }
    }

    /// A subscription that stands.
    fn stand(&mut self, subscriber: SubscriberId, text: &str) -> SubscriptionId {
        let request = self.request(text, &[]);
        let id = request.id;
        self.shard.subscribe(subscriber, request).unwrap();
        self.bind_all_but("");
        assert_eq!(self.shard.activate(subscriber, id).len(), 1);
        while self.turn() {}
        id
    }

    /// What is to be ended: which, with the reasons of its gaps.
    fn lapsed(&mut self) -> Vec<(SubscriberId, SubscriptionId, Vec<GapReason>)> {
        let lapsed = self.shard.lapsed().into_iter();
        let shown = lapsed.map(|lapsed| {
            assert_eq!(lapsed.sentence, NO);
            assert!(lapsed.gaps.iter().all(|missed| &*missed.source == "a"));
            let gaps = lapsed.gaps.iter().map(|missed| missed.reason).collect();
            (lapsed.subscriber, lapsed.subscription, gaps)
        });
        shown.collect()
    }
}

/// Not before the client has heard that the link is there again and what that cost, or it would not know what ended.
#[test]
fn what_is_refused_on_a_new_link_lapses_once_the_link_and_its_hole_are_told() {
    let mut bench = bench();
    let who = [(); 3].map(|()| bench.shard.join(CursorForm::Separate));
    let (stays, goes) = (bench.stand(who[0], "x"), bench.stand(who[0], "y"));
    let also_goes = bench.stand(who[1], "y");
    bench.feed().link_down(Meanwhile::Lost);
    while bench.turn() {}
    // One that waits is told when it is looked at as any other that waits.
    let waits = bench.request("y", &[]);
    let opening = bench.shard.subscribe(who[2], waits).unwrap();
    bench.bind_all_but("y");
    while bench.turn() {}
    assert_eq!(bench.lapsed(), []);
    bench.feed().link_up();
    assert_eq!(bench.lapsed(), []);
    while bench.turn() {}
    let told: Vec<&Notice> =
        bench.notices.iter().filter(|(subscriber, _)| *subscriber == who[1]).map(|(_, notice)| notice).collect();
    assert!(matches!(
        told[..],
        [Notice::Outage(_), Notice::Restored(_), Notice::Gap(Missed { reason: GapReason::Outage, .. })]
    ));
    let unbound = || vec![GapReason::Unbound];
    assert_eq!(bench.lapsed(), [(who[0], goes, unbound()), (who[1], also_goes, unbound())]);
    assert_eq!(bench.lapsed(), []);
    assert_eq!(Shard::stands(&opening), Err(Refusal::Refused(NO.into())));
    append(&bench.hub, 0, "x");
    while bench.turn() {}
    assert_eq!(
        bench.shard.live(who[0]).map(|(id, _, _)| id).collect::<Vec<_>>(),
        [stays, goes],
        "nothing ends by itself"
    );
}

/// A binding that is to go stays until what should come instead stands: until it is refused nothing was missed.
#[test]
fn what_is_still_bound_lapses_without_a_gap() {
    let mut bench = bench();
    let subscriber = bench.shard.join(CursorForm::Separate);
    let (wide, narrow) = (bench.stand(subscriber, "x.#"), bench.stand(subscriber, "x.y"));
    bench.shard.unsubscribe(subscriber, wide);
    bench.bind_all_but("x.y");
    assert_eq!(bench.lapsed(), [(subscriber, narrow, vec![])]);
    bench.shard.unsubscribe(subscriber, narrow);
    assert_eq!(bench.feed().interest().plan(Instant::now()).unbind, [pattern("x.#")]);
}

/// What is kept for who comes back would otherwise keep the refusal for them.
#[test]
fn a_claim_that_is_kept_for_who_comes_back_is_not_kept_refused() {
    let mut bench = bench();
    let subscriber = bench.shard.join(CursorForm::Joint);
    bench.stand(subscriber, "x");
    bench.shard.lease_claims(subscriber, Instant::now() + std::time::Duration::from_secs(60));
    bench.shard.leave(subscriber);
    bench.feed().link_down(Meanwhile::Lost);
    bench.bind_all_but("x");
    bench.feed().link_up();
    while bench.turn() {}
    assert_eq!((bench.lapsed(), bench.feed().interest().patterns(9)), (vec![], vec![]));
}

/// Fixed bindings are tried again on the next link, which comes as soon as one of them is refused.
#[test]
fn where_bindings_are_fixed_nothing_lapses() {
    let mut bench = Bench::new();
    let subscriber = bench.shard.join(CursorForm::Separate);
    bench.subscribe(subscriber, "x", &[]);
    bench.feed().link_down(Meanwhile::Lost);
    bench.bind_all_but("#");
    bench.feed().link_up();
    while bench.turn() {}
    assert_eq!(bench.lapsed(), []);
}
