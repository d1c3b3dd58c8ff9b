//! Plays one conversation through codec and session, with a script in place of the hub. How it is written says
//! [`super::transcripts`].

use super::*;
use crate::config::{Consume, Presence, Presences, Source};
use crate::model::cursor::Epoch;
use crate::model::delivery::{ConsumeRefusal, Delivery, DeliveryTag, QueueOrigin, Settled};
use crate::model::label::Label;
use crate::model::outgoing::{Reply, Target};
use crate::model::presence::{Member, Roster};
use crate::model::publication::{Attributes, Draft, Publication, PublishedAt, SourceId, SourceInfo};
use crate::model::queue::QueueTemplate;
use crate::model::selector::Selector;
use crate::protocol::mqtt::Version;
use crate::protocol::{
    Codec, CommandId, HandOut, Incoming, Labels, Message, Opening, Outbound, REGISTRY, Receiving, Said, Stage,
};

const EPOCH: Epoch = Epoch(1_234_567);
const FIRST_OFFSET: u64 = 101;
const TIME: u64 = 1_765_000_000_000;

pub(super) struct Player {
    row: &'static Subprotocol,
    codec: Box<dyn Codec + Send>,
    session: Session,
    source: Arc<SourceInfo>,
    next_offset: u64,
    /// Subscriptions and jobs that the session waits for, the oldest first.
    subscriptions: Vec<SubscriptionKey>,
    /// All subscriptions, with what they want.
    listening: Vec<(SubscriptionKey, Pattern)>,
    jobs: Vec<JobKey>,
    /// Questions who is subscribed, likewise.
    rosters: Vec<(CommandId, Pattern)>,
    /// The queues that were consumed, how they were called, and how many deliveries came from queues.
    consumptions: Vec<(ConsumeKey, Arc<str>)>,
    delivered: u64,
    /// The version of MQTT that is spoken, where that is the protocol.
    mqtt: Option<Version>,
}

impl Player {
    pub(super) fn new(settings: &[(&str, &str)]) -> (Self, Vec<String>) {
        let setting = |name: &str| settings.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        let name = setting("protocol").unwrap_or("passerelle.v1.json");
        let row = REGISTRY.iter().find(|row| row.name == name).unwrap();
        let publish = setting("publish").map(|text| Topic::parse(text).unwrap());
        let opening = Opening { publish, connection: "5f2c".into(), ..Opening::default() };
        let grants = |publish| Identity {
            grants: Grants { subscribe: true, publish, consume: publish },
            ..(*anybody()).clone()
        };
        let admission = match setting("identity").unwrap_or("anyone").split_once(' ') {
            Some(("stranger", sentence)) => Err(sentence.into()),
            Some(("user", name)) => Ok(Arc::new(Identity { user: Some(name.into()), ..grants(true) })),
            _ => Ok(Arc::new(grants(setting("identity") != Some("listener")))),
        };
        let start = Start { connection: "5f2c".into(), protocol: row, admission, at: Instant::now() };
        let consume = setting("consume").unwrap_or_default().split_whitespace().map(consumable).collect();
        let presences = Presences(setting("presence").unwrap_or_default().split_whitespace().map(attended).collect());
        let sources = vec![Source::events()];
        let settings = Settings { sources, consume, presences, ..Settings::default() };
        let mut session = Session::new(Arc::new(Terms::new(&settings)), start);
        let source = Arc::new(SourceInfo::new(SourceId(0), "events", EPOCH));
        let codec = (row.codec)(opening);
        let begun = after(&mut session, Session::begin);
        let (subscriptions, listening, jobs, rosters) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (next_offset, consumptions, delivered) = (FIRST_OFFSET, Vec::new(), 0);
        let mqtt = name.starts_with("mqtt").then_some(Version::V311);
        let mut player = Self {
            row,
            codec,
            session,
            source,
            next_offset,
            subscriptions,
            listening,
            jobs,
            rosters,
            consumptions,
            delivered,
            mqtt,
        };
        let lines = player.lines(begun);
        (player, lines)
    }

    pub(super) fn receive(&mut self, text: &str) -> Vec<String> {
        let mut lines = Vec::new();
        let text = if self.is_stomp() { stomp::frame(text) } else { text.to_owned() };
        let mut said = match &mut self.mqtt {
            Some(version) => self.codec.decode(Incoming::Binary(&mqtt::bytes(&text, version))),
            None => self.codec.decode(Incoming::Text(&text)),
        };
        loop {
            let mut actions = Vec::new();
            match said {
                Ok(Said::Command(command)) => self.session.command(command, &mut actions),
                Ok(Said::Answered(outbound) | Said::Delivered(outbound)) => lines.extend(self.shown(outbound)),
                Ok(Said::Nothing) => return lines,
                Err(fault) => self.session.fault(fault, &mut actions),
            }
            lines.extend(self.lines(actions));
            if self.session.has_ended() {
                return lines;
            }
            said = self.codec.more();
        }
    }

    /// Something on the server's side: `WORD REST`, where the rest depends on the word.
    pub(super) fn happen(&mut self, text: &str) -> Vec<String> {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        if word == "live" || word == "replay" {
            return self.message(word, rest);
        }
        if word == "gone" {
            let will = self.codec.testament().and_then(|will| self.session.testament(will));
            return will.iter().map(|will| format!("= will {}", described(will))).collect();
        }
        if word == "unseen" {
            self.next_offset += 1;
            return Vec::new();
        }
        let mut actions = Vec::new();
        let completion = self.completion(word, rest);
        let position = self.position();
        let gap = if word == "gap" { self.gap(rest) } else { gap("# events slow ?") };
        let session = &mut self.session;
        match word {
            // A query parameter asks for a pattern: `PATTERN [CURSOR]`.
            "query" => {
                let (text, after) = rest.split_once(' ').unwrap_or((rest, ""));
                let after = after.parse().unwrap_or_default();
                let subscribe = Subscribe { after, ..Subscribe::to(pattern(text)) };
                session.command(Command::Subscribe(subscribe), &mut actions);
            }
            // `PATTERN CONNECTION[=USER]…`, or `PATTERN COUNT` where they are too many to be named.
            "joined" | "left" | "present" => {
                let (text, rest) = rest.split_once(' ').unwrap();
                let (pattern, roster) = (pattern(text), roster(rest));
                let members = roster.members.clone().unwrap_or_default();
                match word {
                    "joined" => session.moved(&pattern, (&members, &[]), &mut actions),
                    "left" => session.moved(&pattern, (&[], &members), &mut actions),
                    _ => session.present(&pattern, roster, &mut actions),
                }
            }
            "gap" => session.gap(gap, &mut actions),
            "outage" => session.outage(rest.into(), &mut actions),
            "restored" => session.restored(rest.into(), &mut actions),
            "quiet" => actions.push(session.quiet(position)),
            "drain" => session.drain(Duration::from_millis(rest.parse().unwrap()), &mut actions),
            "deadline" => session.expire(session.deadline().unwrap(), &mut actions),
            other => session.complete(completion.unwrap_or_else(|| panic!("what is {other:?}?")), &mut actions),
        }
        self.lines(actions)
    }

    /// What became of the oldest subscription or job that waits.
    fn completion(&mut self, word: &str, rest: &str) -> Option<Completion> {
        Some(match word {
            // `[resumed] [replay] [gap:PATTERN:SOURCE:REASON:MISSED]`
            "stands" => self.stands(rest),
            "unknown-source" | "refuse-subscription" => self.fails(word, rest),
            // Of one that stood: `KEY SENTENCE`.
            "lapses" => {
                let (key, sentence) = rest.split_once(' ').unwrap();
                let refusal = SubscribeRefusal::Refused(sentence.into());
                Completion::SubscribeFailed { subscription: SubscriptionKey(key.parse().unwrap()), refusal }
            }
            "caught-up" => {
                Completion::CaughtUp { subscription: SubscriptionKey(rest.parse().unwrap()), cursors: self.position() }
            }
            "routed" | "unrouted" | "publish-refused" | "publish-unavailable" => self.published(word, rest),
            "reply" | "call-unroutable" | "call-timeout" | "call-refused" | "call-unavailable" => {
                self.called(word, rest)
            }
            "accept" | "reject" => self.authenticated(word, rest),
            "consumed" => self.consumed(rest),
            "roster" => {
                let (id, pattern) = self.rosters.remove(0);
                Completion::Roster { id, pattern, roster: roster(rest) }
            }
            _ => return None,
        })
    }

    fn position(&self) -> JointCursor {
        JointCursor(vec![self.source.named_cursor(self.next_offset - 1)])
    }

    fn stands(&mut self, options: &str) -> Completion {
        let subscription = self.subscriptions.remove(0);
        let has = |option: &str| options.split(' ').any(|word| word == option);
        let gaps = options
            .split(' ')
            .filter_map(|word| word.strip_prefix("gap:"))
            .map(|text| self.gap(&text.replace(':', " ")));
        Completion::Subscribed {
            subscription,
            cursors: self.position(),
            resumed: has("resumed"),
            gaps: gaps.collect(),
            replay: has("replay"),
        }
    }

    /// A gap, for the subscription that was made last on its pattern.
    fn gap(&self, text: &str) -> Gap {
        let gap = gap(text);
        let one = self.listening.iter().rev().find(|(_, pattern)| *pattern == gap.pattern);
        let label = one.and_then(|(key, _)| self.session.label(*key)).cloned();
        Gap { label, ..gap }
    }

    fn fails(&mut self, word: &str, rest: &str) -> Completion {
        let refusal = match word {
            "unknown-source" => SubscribeRefusal::UnknownSource(rest.into()),
            _ => SubscribeRefusal::Refused(rest.into()),
        };
        Completion::SubscribeFailed { subscription: self.subscriptions.remove(0), refusal }
    }

    fn published(&mut self, word: &str, rest: &str) -> Completion {
        let outcome = match word {
            "routed" => PublishOutcome::Confirmed { routed: true },
            "unrouted" => PublishOutcome::Confirmed { routed: false },
            "publish-refused" => PublishOutcome::Refused(rest.into()),
            _ => PublishOutcome::Unavailable(rest.into()),
        };
        Completion::Published { job: self.jobs.remove(0), outcome }
    }

    fn called(&mut self, word: &str, rest: &str) -> Completion {
        let outcome = match word {
            "reply" => CallOutcome::Replied(Reply {
                payload: Bytes::copy_from_slice(rest.as_bytes()),
                content_type: None,
                headers: Headers::default(),
            }),
            "call-unroutable" => CallOutcome::Unroutable,
            "call-timeout" => CallOutcome::TimedOut,
            "call-refused" => CallOutcome::Refused(rest.into()),
            _ => CallOutcome::Unavailable(rest.into()),
        };
        Completion::Called { job: self.jobs.remove(0), outcome }
    }

    fn authenticated(&mut self, word: &str, rest: &str) -> Completion {
        let user = Identity { user: Some(rest.into()), expires_at: Some(TIME), ..(*anybody()).clone() };
        let result = if word == "accept" { Ok(Arc::new(user)) } else { Err(rest.to_owned()) };
        Completion::Authenticated { job: self.jobs.remove(0), result }
    }

    /// News of the queue that was consumed last, or first of all the number of another: `stands`, `away`, `brings [again]
    /// [to=TOPIC] PAYLOAD`, `settled NUMBER`, `stale NUMBER`, `expired NUMBER`, `stopped`, `is missing|refused|taken SENTENCE`.
    fn consumed(&mut self, text: &str) -> Completion {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        let ((consumption, queue), (word, rest)) = match word.parse::<usize>() {
            Ok(number) => (self.consumptions[number].clone(), rest.split_once(' ').unwrap_or((rest, ""))),
            Err(_) => (self.consumptions.last().unwrap().clone(), (word, rest)),
        };
        let tag = |number: &str| tag(number.parse().unwrap());
        let news = match word {
            "stands" => ConsumeNews::Stands,
            "away" => ConsumeNews::Away,
            "brings" => {
                let payload = rest.trim_start_matches("again ");
                let attributes = Attributes { redelivered: rest != payload, ..Attributes::default() };
                let (topic, payload) = match payload.strip_prefix("to=") {
                    Some(addressed) => addressed.split_once(' ').unwrap(),
                    None => ("orders.eu", payload),
                };
                let payload = Bytes::copy_from_slice(payload.as_bytes());
                let draft = Draft { topic: Topic::parse(topic).unwrap(), payload, attributes, received_at: TIME };
                self.delivered += 1;
                ConsumeNews::Delivered(Box::new(Delivery { tag: self::tag(self.delivered), queue, draft }))
            }
            "settled" => ConsumeNews::Settled(tag(rest), Settled::Told),
            "stale" => ConsumeNews::Settled(tag(rest), Settled::Stale),
            "expired" => ConsumeNews::Expired(tag(rest)),
            "stopped" => ConsumeNews::Stopped,
            "is" => match rest.split_once(' ').unwrap() {
                ("taken", sentence) => ConsumeNews::Ended(ConsumeRefusal::InUse(sentence.into())),
                ("missing", sentence) => ConsumeNews::Ended(ConsumeRefusal::NotFound(sentence.into())),
                (_, sentence) => ConsumeNews::Ended(ConsumeRefusal::Refused(sentence.into())),
            },
            other => panic!("what is {other:?}?"),
        };
        Completion::Consumed { consumption, news }
    }

    /// A message on its way down: `TOPIC [type=TYPE] [id=ID] [again] … PAYLOAD`, live or in a replay.
    fn message(&mut self, word: &str, rest: &str) -> Vec<String> {
        let (topic, mut rest) = rest.split_once(' ').unwrap();
        let mut attributes =
            Attributes { published_at: PublishedAt::Millis(TIME + self.next_offset), ..Attributes::default() };
        while let Some((option, after)) = rest.split_once(' ') {
            match option.split_once('=') {
                Some(("type", value)) => attributes.content_type = Some(value.into()),
                Some(("id", value)) => attributes.message_id = Some(value.into()),
                Some(("tenant", value)) => {
                    attributes.headers.0.push(("tenant".into(), crate::model::value::Value::Text(value.into())));
                }
                Some(("correlation", value)) => attributes.correlation_id = Some(value.into()),
                Some(("reply", value)) => {
                    attributes
                        .headers
                        .0
                        .push(("x-reply-to-topic".into(), crate::model::value::Value::Text(value.into())));
                }
                Some(("origin", value)) => attributes.origin = Some(value.into()),
                None if option == "again" => attributes.redelivered = true,
                None if option == "retained" => attributes.retained = true,
                _ => break,
            }
            rest = after;
        }
        let payload = Bytes::from(rest.replace("\\n", "\n").replace("\\xff", "\u{1}").into_bytes());
        let payload = payload.iter().map(|byte| if *byte == 1 { 0xff } else { *byte }).collect();
        let draft = Draft { topic: Topic::parse(topic).unwrap(), payload, attributes, received_at: TIME };
        let publication = Arc::new(Publication { source: self.source.clone(), offset: self.next_offset, draft });
        self.next_offset += 1;
        let stage = if word == "live" { Stage::Live } else { Stage::Replay };
        let positions = [(self.source.clone(), publication.offset)];
        let labels: Vec<Label> = match self.row.labels {
            Labels::Absent => Vec::new(),
            Labels::Each | Labels::Together => self.labels_of(&publication),
        };
        let copies = match self.row.labels {
            Labels::Each => labels.chunks(1).collect(),
            Labels::Absent | Labels::Together => vec![labels.as_slice()],
        };
        let mut lines = Vec::new();
        for labels in copies {
            let message = Message { publication: &publication, positions: &positions, stage, labels };
            let outbound = match self.codec.receiving() {
                Receiving::Shared => (self.row.encode_message)(message).ok(),
                Receiving::Own(_) => self.codec.message(message),
            };
            lines.extend(outbound.map(|outbound| self.shown(outbound)).unwrap_or_default());
        }
        lines
    }

    /// What the subscriptions that want a message are called, in the order in which they were made.
    fn labels_of(&self, publication: &Publication) -> Vec<Label> {
        let wants = |(_, pattern): &&(SubscriptionKey, Pattern)| pattern.matches(&publication.draft.topic);
        let wanting = self.listening.iter().filter(wants);
        wanting.filter_map(|(key, _)| self.session.label(*key).cloned()).collect()
    }

    fn is_stomp(&self) -> bool {
        self.row.name.ends_with("stomp")
    }

    fn shown(&self, outbound: Outbound) -> Vec<String> {
        match self.mqtt {
            Some(version) => vec![mqtt::line(&outbound, version)],
            None if self.is_stomp() => vec![stomp::line(outbound)],
            None => shown(outbound),
        }
    }

    fn lines(&mut self, actions: Vec<Action>) -> Vec<String> {
        actions.into_iter().flat_map(|action| self.line(action)).collect()
    }

    /// Nobody else has it.
    fn claimed(&mut self, job: JobKey) -> Vec<String> {
        let welcome =
            after(&mut self.session, |session, actions| session.complete(Completion::Claimed { job }, actions));
        self.lines(welcome)
    }

    fn handed_out(&mut self, delivery: Box<Delivery>) -> Vec<String> {
        let tag = delivery.tag;
        match self.codec.hand_out(delivery) {
            HandOut::Written(outbound) => self.shown(outbound),
            HandOut::Kept => Vec::new(),
            HandOut::Settled(outbound, settlement) => {
                let mut lines = outbound.map(|outbound| self.shown(outbound)).unwrap_or_default();
                let settled =
                    after(&mut self.session, |session, actions| session.settle_at_once(tag, settlement, actions));
                lines.extend(self.lines(settled));
                lines
            }
        }
    }

    fn line(&mut self, action: Action) -> Vec<String> {
        let asked = match action {
            Action::Send(Event::Delivered(delivery)) => return self.handed_out(delivery),
            Action::Send(event) => {
                let outbound = self.codec.encode(&event);
                return outbound.map(|outbound| self.shown(outbound)).unwrap_or_default();
            }
            Action::Authenticate { job, token } => {
                self.jobs.push(job);
                format!("authenticate {token}")
            }
            Action::Claim { job, .. } => return self.claimed(job),
            Action::Subscribe(action) => {
                let SubscribeAction { subscription, wanted, after, last, retained, source, flow, max_rate } = action;
                let Selector { pattern, filter } = wanted;
                self.subscriptions.push(subscription);
                self.listening.push((subscription, pattern.clone()));
                let mut line = format!(
                    "subscribe {} {}",
                    subscription.0,
                    if pattern.as_str().is_empty() { "\"\"" } else { pattern.as_str() }
                );
                line += &if after.0.is_empty() { String::new() } else { format!(" after {after}") };
                line += if filter.is_some() { " filtered" } else { "" };
                line += &if last == 0 { String::new() } else { format!(" last {last}") };
                line += if retained { " retained" } else { "" };
                line += &source.map(|source| format!(" of {source}")).unwrap_or_default();
                line += &if flow == Flow::CatchUp { String::new() } else { format!(" {}", flow.name()) };
                line + &max_rate.map(|rate| format!(" at {} a second", rate.messages())).unwrap_or_default()
            }
            Action::Unsubscribe { subscription } => {
                self.subscriptions.retain(|key| *key != subscription);
                self.listening.retain(|(key, _)| *key != subscription);
                format!("unsubscribe {}", subscription.0)
            }
            Action::Publish { job, message, echo } => {
                self.jobs.push(job);
                let marked = if echo == Echo::Marked { "marked " } else { "" };
                format!("publish {marked}{}", described(&message))
            }
            Action::Call { job, message, timeout } => {
                self.jobs.push(job);
                format!("call within {} ms {}", timeout.as_millis(), described(&message))
            }
            Action::ForbiddenPublish | Action::ForbiddenCall => return Vec::new(),
            Action::Abandon { job } => {
                self.jobs.retain(|key| *key != job);
                "abandon".to_owned()
            }
            Action::Attend { pattern, member } => format!("attend {pattern} as {}", called(&member)),
            Action::Depart { pattern } => format!("depart {pattern}"),
            Action::Roster { id, pattern } => {
                let line = format!("roster {pattern}");
                self.rosters.push((id, pattern));
                line
            }
            Action::Consume { consumption, request } => {
                self.consumptions.push((consumption, request.asked.clone()));
                consuming(consumption, &request)
            }
            Action::Order { consumption, order } => ordered(consumption, order),
            Action::Close { reason, detail } => {
                let farewell = self.codec.farewell(reason, &detail).map(|outbound| self.shown(outbound));
                let close = format!("= close {} {detail}", reason.code());
                return farewell.unwrap_or_default().into_iter().chain([close.trim_end().to_owned()]).collect();
            }
        };
        vec![format!("= {asked}")]
    }
}

/// A queue that a session would consume.
fn consuming(ConsumeKey(number): ConsumeKey, request: &ConsumeRequest) -> String {
    let alone = if request.exclusive { ", alone" } else { "" };
    let bindings = match &request.origin {
        QueueOrigin::Opened { .. } => &[],
        QueueOrigin::Group { bindings, .. } => bindings.as_slice(),
    };
    let bound: String = bindings.iter().map(|one| format!(", bound to {} by {}", one.exchange, one.key)).collect();
    format!("consume {number} {}, {} at a time{alone}{bound}", request.queue, request.prefetch)
}

/// What a session wants of a queue that it consumes.
fn ordered(ConsumeKey(number): ConsumeKey, order: ConsumeOrder) -> String {
    match order {
        ConsumeOrder::Settle(tag, settlement) => format!("settle {number} {tag} {settlement:?}"),
        ConsumeOrder::Answer(tag, Reply { payload, content_type, headers }) => {
            let payload = String::from_utf8_lossy(&payload).into_owned();
            format!("answer {number} {tag} {payload:?} type={} {:?}", content_type.unwrap_or_default(), headers.0)
        }
        ConsumeOrder::Stop => format!("stop {number}"),
    }
}

/// A queue that is open to everybody here.
fn consumable(queue: &str) -> Consume {
    let name = queue.replace(['.', '{', '}'], "-");
    let queue = QueueTemplate::parse(queue).unwrap();
    let hold_max = Duration::from_secs(1_500);
    Consume { name, queue, declare: false, expires: None, prefetch_max: 10, hold_max }
}

/// Presence for the patterns that this one includes.
fn attended(text: &str) -> Presence {
    Presence { name: text.replace('.', "-"), pattern: pattern(text), join_leave: true, members_max: 100 }
}

/// `CONNECTION[=USER]…`, or how many there are.
fn roster(text: &str) -> Roster {
    if let Ok(count) = text.parse() {
        return Roster { count, members: None };
    }
    let member = |text: &str| match text.split_once('=') {
        Some((connection, user)) => Member { connection: connection.into(), user: Some(user.into()) },
        None => Member { connection: text.into(), user: None },
    };
    let members: Arc<[Member]> = text.split_whitespace().map(member).collect();
    Roster { count: members.len() as u64, members: Some(members) }
}

fn called(Member { connection, user }: &Member) -> String {
    user.as_ref().map_or_else(|| connection.to_string(), |user| format!("{connection}={user}"))
}

fn tag(number: u64) -> DeliveryTag {
    DeliveryTag { link: 0x9f3c_2a71_d05b_e846, number }
}

fn described(message: &Outgoing) -> String {
    let mut line = format!("{} {:?}", message.topic, String::from_utf8_lossy(&message.payload));
    line += &message.content_type.as_ref().map(|name| format!(" type={name}")).unwrap_or_default();
    line += &message.message_id.as_ref().map(|id| format!(" id={id}")).unwrap_or_default();
    line += &message.correlation_id.as_ref().map(|id| format!(" correlation={id}")).unwrap_or_default();
    line += if message.retained { " retained" } else { "" };
    line += if message.origin.is_some() { " not-back" } else { "" };
    line += &match &message.target {
        Target::Routed => String::new(),
        Target::Published => " published".into(),
        Target::Queue => " queue".into(),
        Target::Exchange(name) => format!(" exchange={name}"),
    };
    if message.headers.is_empty() { line } else { line + &format!(" headers={}", message.headers.0.len()) }
}

/// `PATTERN SOURCE REASON MISSED`, where `?` is an unknown number.
fn gap(text: &str) -> Gap {
    let words: Vec<&str> = text.split(' ').collect();
    let [text, source, reason, missed] = words[..] else { panic!("{text:?} is no gap") };
    let reasons =
        [GapReason::Slow, GapReason::Expired, GapReason::Outage, GapReason::Unbound, GapReason::UnknownCursor];
    let reason = reasons.into_iter().find(|known| known.name() == reason).unwrap();
    Gap { pattern: pattern(text), label: None, source: source.into(), missed: missed.parse().ok(), reason }
}

fn shown(outbound: Outbound) -> Vec<String> {
    match outbound {
        Outbound::Text(bytes) => {
            let text = String::from_utf8(bytes.to_vec()).unwrap();
            text.trim_end_matches('\n').split('\n').map(|line| format!("< {line}")).collect()
        }
        Outbound::Binary(bytes) => vec![format!("< (binary) {bytes:?}")],
    }
}
