//! The loop's own work over real sockets: what ninety-nine who read cost is counted, alone and beside one more who has
//! stopped reading. Allocations are this thread's, so nothing that runs beside the test is among them.
//!
//! What single clients are owed stands apart: [`answers`] beside large messages, to be heard at their [`greeting`] and when
//! they are [`leaving`], [`polls`] as a whole, what waits for bindings: [`openings`] or for a stream: [`awaiting`], and what
//! comes with time: [`quiet`]. Sessions that outlive their connections: [`claiming`]; queues: [`consuming`].

mod answers;
mod awaiting;
mod claiming;
mod consuming;
mod greeting;
mod leaving;
mod openings;
mod polls;
mod quiet;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use allocation_counter::AllocationInfo;
use socket2::{Domain, SockRef, Type};

use super::*;
use crate::auth::{Grants, Identity};
use crate::config::LogBounds;
use crate::hub::feed::{Feed, SourceState};
use crate::hub::interest::BindingMode;
use crate::hub::upstream::UpstreamJobs;
use crate::model::cursor::Epoch;
use crate::model::publication::{Attributes, Draft, SourceId, SourceInfo};
use crate::model::topic::{Pattern, Topic};
use crate::protocol::{Command, Opening, Subprotocol, Subscribe, json};
use crate::session::Start;
use crate::session::limits::Terms;
use crate::transport::liveness::Peer;
use crate::transport::seats::Seats;
use crate::transport::sessions::Count;

const READERS: usize = 99;

/// Messages until the one who does not read is far behind: several times what its socket and its outbox take.
const FILLING: usize = 400;

/// Turns that are counted, and how many messages come together in each: a lone one goes out as it is, several are joined.
const TURNS: usize = 60;
const TOGETHER: [usize; 2] = [1, 5];

const PAYLOAD_BYTES: usize = 1_000;

/// The kernel's buffers of the one who does not read; it gives some more.
const STALLED_BUFFER_BYTES: usize = 8 << 10;

const PATIENCE: Duration = Duration::from_secs(60);

const HEARTBEAT: Duration = Duration::from_secs(3_600);

/// Subscriptions of sessions that are kept.
const KEPT_MAX: usize = 10_000;

/// A driver with its clients, all on the test's own thread: nothing happens but what the test does.
struct Bench {
    driver: Driver,
    poll: Poll,
    events: Events,
    feed: Feed,
    /// What clients have sent up.
    jobs: UpstreamJobs,
    /// What shards tell this one.
    controlled: mpsc::Receiver<Control>,
    listener: TcpListener,
    seats: Seats,
    terms: Arc<Terms>,
    readers: Vec<TcpStream>,
}

/// What it took to serve those who read.
#[derive(Debug, PartialEq, Eq)]
struct Work {
    allocations: AllocationInfo,
    /// Rounds of the loop: a turn, and a look at the sockets.
    rounds: usize,
    /// What the readers were sent.
    bytes: usize,
}

impl Bench {
    fn new() -> Self {
        let bench = Self::with(Settings::default());
        bench.feed.link_up_bound(Instant::now());
        bench
    }

    /// With a broker that is yet to come.
    fn with(settings: Settings) -> Self {
        Self::made_of(settings, vec![source(0, "a", BindingMode::Fixed(vec![Pattern::all()]))])
    }

    /// With these sources, of which the first is fed.
    fn of(sources: Vec<Arc<SourceState>>) -> Self {
        Self::made_of(Settings::default(), sources)
    }

    fn made_of(mut settings: Settings, sources: Vec<Arc<SourceState>>) -> Self {
        let feed = Feed::new(sources[0].clone());
        // A heartbeat is of each connection and comes with time: none is to come by itself here.
        settings.server.heartbeat = HEARTBEAT;
        let (upstream, jobs) = Upstream::new(READERS, &settings.publish);
        let terms = Arc::new(Terms::new(&settings));
        let names: Vec<&str> = sources.iter().map(|source| &*source.info().name).collect();
        let metrics = Arc::new(Metrics::new(&names).unwrap());
        let sessions = Arc::new(Sessions::new(Count { sessions: READERS, subscriptions: KEPT_MAX }));
        let shared = Arc::new(Shared { settings, hub: Hub::new(sources), upstream, metrics, sessions });
        let (controls, controlled) = mpsc::channel(READERS);
        let poll = Poll::new().unwrap();
        let registry = poll.registry().try_clone().unwrap();
        Self {
            driver: Driver::new(shared, registry, Arc::new(Notify::new()), (0, controls)),
            controlled,
            poll,
            events: Events::with_capacity(EVENTS_MAX),
            feed,
            jobs,
            listener: TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(),
            seats: Seats::new(READERS + 1),
            terms,
            readers: Vec::new(),
        }
    }

    /// One more client that is subscribed to everything; answers its end of the socket.
    fn join(&mut self, buffer_bytes: Option<usize>) -> TcpStream {
        let (mut client, socket) = self.connect(buffer_bytes);
        let commands = vec![Command::Subscribe(Subscribe::to(Pattern::all()))];
        let admission = Admission { commands, ..self.admission(&json::SUBPROTOCOL, socket) };
        self.driver.admit(admission);
        let subscribed = text(&mut client);
        assert!(subscribed.contains("\"subscribed\""), "{subscribed}");
        client
    }

    /// Both ends of one more socket.
    fn connect(&mut self, buffer_bytes: Option<usize>) -> (TcpStream, Socket) {
        let client = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        // Before it connects: the window that it offers is of this size.
        buffer_bytes.inspect(|bytes| client.set_recv_buffer_size(*bytes).unwrap());
        client.connect(&self.listener.local_addr().unwrap().into()).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let (server, _) = self.listener.accept().unwrap();
        buffer_bytes.inspect(|bytes| SockRef::from(&server).set_send_buffer_size(*bytes).unwrap());
        server.set_nodelay(true).unwrap();
        server.set_nonblocking(true).unwrap();
        (TcpStream::from(client), Socket::Tcp(mio::net::TcpStream::from_std(server)))
    }

    /// Somebody who asks for nothing yet.
    fn admission(&self, row: &'static Subprotocol, socket: Socket) -> Admission {
        let grants = Grants { subscribe: true, publish: true, consume: false };
        let anybody = Arc::new(Identity { user: None, expires_at: None, grants });
        let start = Start { connection: "c".into(), protocol: row, admission: Ok(anybody), at: Instant::now() };
        Admission {
            socket,
            leftover: Vec::new(),
            head: Bytes::new(),
            framing: Framing::WebSocket,
            deflate: None,
            protocol: row.index,
            codec: (row.codec)(Opening::default()),
            session: Session::new(self.terms.clone(), start),
            refusal: None,
            commands: Vec::new(),
            form: CursorForm::Separate,
            peer: None,
            poll: None,
            seat: std::rc::Rc::new(self.seats.take().unwrap()),
        }
    }

    /// Makes what bindings are wanted.
    fn bind(&mut self) {
        let plan = self.feed.interest().plan(Instant::now());
        plan.bind.iter().for_each(|pattern| self.feed.bound(pattern));
        self.serve();
    }

    fn publish(&self, count: usize) {
        self.feed.append((0..count).map(|_| draft("news", PAYLOAD_BYTES)).collect(), 0);
    }

    /// Everything that there is to do at present, as the loop does it; answers in how many rounds.
    fn serve(&mut self) -> usize {
        for round in 1.. {
            let more = self.driver.work();
            let seen = look(&mut self.poll, &mut self.events).unwrap();
            self.driver.sockets(&self.events);
            if !more && seen == Seen::All {
                return round;
            }
        }
        unreachable!("there is an end of rounds")
    }

    /// Serves until something is so. What one end of a socket has sent may still be on its way to the other.
    fn serve_until(&mut self, what: &str, is_so: impl Fn(&Driver) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(&self.driver) {
            assert!(Instant::now() < deadline, "never: {what}");
            self.serve();
        }
    }

    /// Likewise, with what goes up and its answers coming on.
    async fn serve_jobs_until(&mut self, what: &str, mut is_so: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(self) {
            assert!(Instant::now() < deadline, "never: {what}");
            self.serve_jobs().await;
        }
    }

    /// What is there to be done now, with what goes up and its answers.
    async fn serve_jobs(&mut self) {
        for _ in 0..10 {
            self.serve();
            tokio::task::yield_now().await;
            while let Ok(answer) = self.driver.answered.try_recv() {
                self.driver.answer(answer);
            }
            while let Ok(control) = self.controlled.try_recv() {
                self.driver.control(control);
            }
        }
    }

    /// The first client.
    fn connection(&mut self) -> &mut Connection {
        self.driver.slots[0].connection.as_deref_mut().expect("it is there")
    }

    /// Each reader takes so many messages; answers how many bytes that was.
    fn read(&mut self, count: usize) -> usize {
        let messages = self.readers.iter_mut().flat_map(|reader| (0..count).map(|_| text(reader)));
        messages
            .map(|text| {
                assert!(text.starts_with("{\"op\":\"message\""), "{text}");
                text.len()
            })
            .sum()
    }

    /// Waits for the kernel to have settled that a client takes no more: whatever was under way to it has arrived.
    fn wait_until_full(&mut self, client: &TcpStream) {
        let (local, remote) = (client.peer_addr().unwrap(), client.local_addr().unwrap());
        let deadline = Instant::now() + PATIENCE;
        // Where the kernel cannot be asked, there is only what was published.
        while cfg!(target_os = "linux") && self.driver.liveness.of(local, remote) != Peer::Full {
            assert!(Instant::now() < deadline, "the window does not close");
            std::thread::yield_now();
        }
        self.serve();
    }

    /// How often anybody fell behind.
    fn fell_behind(&self) -> u64 {
        let text = self.driver.shared.metrics.render();
        let value = text.lines().find_map(|line| line.strip_prefix("passerelle_fell_behind_total "));
        value.unwrap().parse().unwrap()
    }

    /// Publishes in turn after turn, and counts what the loop does.
    fn count(&mut self, together: usize) -> Work {
        let mut work = Work { allocations: AllocationInfo::default(), rounds: 0, bytes: 0 };
        for _ in 0..TURNS {
            self.publish(together);
            work.allocations += allocation_counter::measure(|| work.rounds += self.serve());
            work.bytes += self.read(together);
        }
        work
    }
}

fn source(number: u16, name: &str, bindings: BindingMode) -> Arc<SourceState> {
    let info = SourceInfo::new(SourceId(number), name, Epoch(1));
    SourceState::new(Arc::new(info), LogBounds::default(), bindings)
}

fn draft(topic: &str, payload_bytes: usize) -> Draft {
    Draft {
        topic: Topic::parse(topic).unwrap(),
        payload: vec![b'x'; payload_bytes].into(),
        attributes: Attributes::default(),
        received_at: 0,
    }
}

/// Says something in one frame.
fn say(client: &mut TcpStream, opcode: u8, payload: &[u8]) {
    client.write_all(&frame_of(opcode, payload)).unwrap();
}

/// A frame of a client, under a mask that changes nothing.
fn frame_of(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u16).to_be_bytes();
    let length = if payload.len() < 126 { vec![0x80 | length[1]] } else { vec![0x80 | 126, length[0], length[1]] };
    [&[0x80 | opcode], &length[..], &[0; 4], payload].concat()
}

/// The next text of a server.
fn text(client: &mut TcpStream) -> String {
    let (opcode, text) = frame(client);
    assert_eq!(opcode, 1, "a text: {text}");
    text
}

/// The next frame of a server: its opcode, and what it says.
fn frame(client: &mut TcpStream) -> (u8, String) {
    let (opcode, payload) = raw_frame(client);
    (opcode, String::from_utf8(payload).unwrap())
}

fn raw_frame(client: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut head = [0; 2];
    client.read_exact(&mut head).unwrap();
    assert_eq!(head[0] & 0xf0, 0x80, "all of it in one frame");
    let length = match head[1] {
        126 => {
            let mut length = [0; 2];
            client.read_exact(&mut length).unwrap();
            usize::from(u16::from_be_bytes(length))
        }
        short => usize::from(short),
    };
    let mut payload = vec![0; length];
    client.read_exact(&mut payload).unwrap();
    (head[0] & 0x0f, payload)
}

/// Counts with and without one more who has long stopped reading.
fn count(has_stalled: bool) -> [Work; TOGETHER.len()] {
    let mut bench = Bench::new();
    for _ in 0..READERS {
        let reader = bench.join(None);
        bench.readers.push(reader);
    }
    let stalled = has_stalled.then(|| bench.join(Some(STALLED_BUFFER_BYTES)));
    for _ in 0..FILLING {
        bench.publish(1);
        bench.serve();
        bench.read(1);
    }
    stalled.iter().for_each(|stalled| bench.wait_until_full(stalled));
    let fell_behind = bench.fell_behind();
    assert_eq!(fell_behind > 0, has_stalled, "who does not read falls behind, and nobody else");
    let work = TOGETHER.map(|together| bench.count(together));
    assert_eq!((bench.fell_behind(), bench.driver.open), (fell_behind, READERS + usize::from(has_stalled)));
    if has_stalled {
        assert!(bench.driver.shard.has_replay(SubscriberId(READERS as u32)), "it is behind to the end");
    }
    work
}

/// Not one allocation more, neither in number nor in bytes nor in what is held, however many turns the other is behind.
#[test]
fn who_has_stopped_reading_costs_the_others_no_allocation() {
    let (alone, beside) = (count(false), count(true));
    println!("{alone:#?}");
    assert_eq!(beside, alone);
    for work in alone {
        assert!(work.rounds >= TURNS && work.bytes >= TURNS * READERS * PAYLOAD_BYTES);
        assert!(work.allocations.count_total >= TURNS as u64, "allocations are counted");
    }
}
