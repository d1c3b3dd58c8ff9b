//! Subscriptions that wait for their bindings, clients that do not wait so long, and bindings that do not come again.

use std::io::ErrorKind;

use super::*;
use crate::hub::feed::Meanwhile;
use crate::hub::interest::BindingKind;
use crate::protocol::{Only, Subprotocol, Which, event_stream, poll};
use crate::transport::driver::connection::{Ending, Keep};

/// Answers a subscribe that stands.
const SUBSCRIBED: &str = "\"subscribed\"";

/// A source that makes what bindings are wanted, and one that never comes to stand.
fn bench() -> Bench {
    let bindings_max = 100;
    let on_demand =
        BindingMode::OnDemand { kind: BindingKind::Topic, linger: Duration::from_secs(3_600), bindings_max };
    let away = source(1, "away", BindingMode::Fixed(vec![Pattern::all()]));
    let bench = Bench::of(vec![source(0, "a", on_demand), away]);
    bench.feed.link_up();
    bench
}

fn subscribe(pattern: &str) -> Subscribe {
    Subscribe::to(Pattern::parse(pattern).unwrap())
}

/// What stands whatever becomes of the other source.
fn of_a(pattern: &str) -> Subscribe {
    Subscribe { only: Some(Only::Source("a".into())), ..subscribe(pattern) }
}

fn unsubscribe(pattern: &str) -> Command {
    Command::Unsubscribe { id: None, which: Which::Pattern(Pattern::parse(pattern).unwrap()) }
}

impl Bench {
    /// One more client on a WebSocket, which asks for these.
    fn enter(&mut self, subscribes: Vec<Subscribe>) -> TcpStream {
        let (client, server) = self.connect(None);
        let commands = subscribes.into_iter().map(Command::Subscribe).collect();
        let admission = Admission { commands, ..self.admission(&json::SUBPROTOCOL, server) };
        self.driver.admit(admission);
        self.serve();
        client
    }

    /// One more event stream likewise.
    fn listen(&mut self, subscribe: Subscribe) -> TcpStream {
        let (client, server) = self.connect(None);
        let admission = self.joint(server, subscribe, &event_stream::SUBPROTOCOL);
        self.driver.admit(Admission { framing: Framing::EventStream, ..admission });
        self.serve();
        client
    }

    /// One more poll likewise.
    fn poll(&mut self, subscribe: Subscribe) -> oneshot::Receiver<Answered> {
        let (answer, answered) = oneshot::channel();
        let asked = PollRequest { after: "a~1.1".parse().unwrap(), timeout: PATIENCE, answer };
        let admission = self.joint(Socket::Absent, subscribe, &poll::SUBPROTOCOL);
        self.driver.admit(Admission { framing: Framing::Collected, poll: Some(asked), ..admission });
        self.serve();
        answered
    }

    fn joint(&self, socket: Socket, subscribe: Subscribe, row: &'static Subprotocol) -> Admission {
        let commands = vec![Command::Subscribe(subscribe)];
        Admission { commands, form: CursorForm::Joint, ..self.admission(row, socket) }
    }

    /// The link is there again, and on this one the broker refuses whatever is wanted.
    fn refuse_anew(&mut self, sentence: &str) {
        for pattern in self.feed.interest().plan(Instant::now()).bind {
            self.feed.interest().refused(&pattern, sentence.into());
        }
        self.feed.link_up();
        self.serve();
    }

    fn command(&mut self, number: u32, command: Command) {
        let subscriber = SubscriberId(number);
        self.driver.with(subscriber, |driver, connection| driver.command(subscriber, connection, command));
    }

    /// How many subscriptions wait, and how many patterns are claimed.
    fn waiting(&self) -> (usize, usize) {
        (self.driver.openings.len(), self.feed.interest().patterns(usize::MAX).len())
    }
}

/// What a client has been sent: up to these words, which come, and whatever else is there.
fn sent(client: &mut TcpStream, words: &str) -> String {
    let (mut sent, mut buffer) = (String::new(), [0; 4_096]);
    while !sent.contains(words) {
        let count = client.read(&mut buffer).unwrap();
        assert!(count > 0, "no {words} in {sent}");
        sent += &String::from_utf8_lossy(&buffer[..count]);
    }
    sent
}

/// Whether a client has been sent nothing for now.
fn is_silent(client: &TcpStream) -> bool {
    client.set_nonblocking(true).unwrap();
    let peeked = client.peek(&mut [0]);
    client.set_nonblocking(false).unwrap();
    peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

/// Ids are given out again: what those wait for who are gone must not keep who comes after them from being served.
#[test]
fn who_leaves_before_their_bindings_stand_leaves_nothing() {
    let mut bench = bench();
    let (left, closed) = (bench.enter(vec![subscribe("x")]), bench.enter(vec![subscribe("y")]));
    let polled = bench.poll(subscribe("z"));
    assert_eq!(bench.waiting(), (3, 3));
    drop(left);
    bench.driver.with(SubscriberId(1), |driver, connection| {
        driver.end(
            SubscriberId(1),
            connection,
            Ending { reason: CloseReason::Policy, detail: "", keep: Keep::Waiting },
        );
    });
    bench.serve_until("the other has left", |driver| driver.openings.len() < 2);
    assert_eq!(bench.waiting(), (1, 1), "the end of a session is enough, whatever becomes of its socket");
    drop((closed, polled));
    let ticket = bench.driver.ticket(SubscriberId(2));
    bench.driver.with_ticket(ticket, |driver, connection| driver.look_at_poll(ticket, connection, Instant::now()));
    bench.serve_until("all have gone", |driver| driver.open == 0);
    assert_eq!(bench.waiting(), (0, 1), "what a poll wants stays wanted for a while");
    let mut streams: Vec<TcpStream> = (0..3).map(|_| bench.listen(of_a("x"))).collect();
    bench.bind();
    streams.iter_mut().for_each(|stream| _ = sent(stream, "event: subscribed"));
}

#[test]
fn who_unsubscribes_before_their_bindings_stand_leaves_nothing() {
    let mut bench = bench();
    let _client = bench.enter(vec![subscribe("stays")]);
    for number in 0..100 {
        let pattern = format!("x.{number}");
        bench.command(0, Command::Subscribe(subscribe(&pattern)));
        bench.command(0, unsubscribe(&pattern));
        bench.serve();
    }
    assert_eq!(bench.waiting(), (1, 1));
}

/// A later subscribe on the same pattern waits by itself, also where the earlier one is told that it was overtaken.
#[test]
fn what_takes_the_place_of_another_goes_on_waiting() {
    let mut bench = bench();
    let mut client = bench.enter(vec![subscribe("x"), of_a("x"), subscribe("x")]);
    assert_eq!(bench.waiting(), (3, 1));
    bench.bind();
    assert_eq!(bench.waiting(), (1, 1), "the second stands, the first was overtaken");
    assert_eq!(sent(&mut client, SUBSCRIBED).matches(SUBSCRIBED).count(), 1);
    assert!(is_silent(&client), "nothing else stands");
    Feed::new(bench.driver.shared.hub.sources()[1].clone()).link_up_bound(Instant::now());
    bench.serve();
    assert_eq!(bench.waiting(), (0, 1));
    assert_eq!(sent(&mut client, SUBSCRIBED).matches(SUBSCRIBED).count(), 1);
}

/// With a joint cursor everything waits for the last; that is of this client only, whoever had its id before.
#[test]
fn streams_wait_for_all_that_they_asked_for_and_for_nothing_else() {
    let mut bench = bench();
    let mut waits = bench.listen(subscribe("x"));
    let mut stands = bench.listen(of_a("x"));
    bench.bind();
    sent(&mut stands, "event: subscribed");
    sent(&mut waits, "event: outage");
    assert!(is_silent(&waits));
    assert_eq!(bench.waiting(), (1, 1));
    Feed::new(bench.driver.shared.hub.sources()[1].clone()).link_up_bound(Instant::now());
    bench.serve();
    sent(&mut waits, "event: subscribed");
}

/// Silence would be all that they get from then on.
#[test]
fn whose_bindings_are_refused_after_an_outage_are_told_each_in_their_way() {
    let mut bench = bench();
    let id = serde_json::value::to_raw_value(&7).ok();
    let mut client = bench.enter(vec![Subscribe { id, ..of_a("x") }, of_a("y")]);
    let mut stream = bench.listen(of_a("x"));
    bench.bind();
    let mut answered = bench.poll(of_a("x"));
    sent(&mut stream, "event: subscribed");
    sent(&mut client, SUBSCRIBED);
    assert!(answered.try_recv().is_err(), "it waits for messages");
    bench.feed.link_down(Meanwhile::Lost);
    bench.serve();
    assert!(matches!(answered.try_recv(), Ok(Answered::Body(_))), "it is told of the outage, and asks again");
    let mut again = bench.poll(of_a("x"));
    bench.refuse_anew("no permission");
    let told = sent(&mut client, "the subscription to \\\"x\\\" has ended: no permission");
    let place = |text: &str| told.find(text).unwrap_or_else(|| panic!("no {text} in {told}"));
    let ended = place("\"id\":7,\"code\":\"refused\"");
    assert!(place("\"op\":\"restored\"") < place("\"reason\":\"unbound\"") && place("\"reason\":\"unbound\"") < ended);
    let mut told = String::new();
    stream.read_to_string(&mut told).unwrap();
    let place = |text: &str| told.find(text).unwrap_or_else(|| panic!("no {text} in {told}"));
    assert!(told.contains("event: gap") && place("\"reason\":\"unbound\"") < place("event: refused"), "{told}");
    assert_eq!(bench.driver.open, 1, "nothing is left to say on the stream");
    assert!(
        matches!(again.try_recv(), Ok(Answered::Refused(CloseReason::Policy, sentence)) if sentence == "no permission")
    );
    assert_eq!(bench.waiting(), (0, 0));
    let _later = bench.poll(of_a("x"));
    bench.bind();
    assert_eq!(bench.waiting(), (0, 1), "who asks later is not refused unasked");
}
