//! One channel's side of the conversation: methods, contents put together from frames, confirms. What it changes, it
//! changes in the broker; it knows no socket.

use amq_protocol::protocol::{AMQPClass, access, basic, channel, confirm, exchange, queue};
use bytes::{Bytes, BytesMut};

use super::broker::{Broker, ChannelRef, Link, Published, Verdict, Which};
use super::fault::{Code, Fault, short};
use super::limits::{ASSEMBLING_BYTES_MAX, BODY_BYTES_MAX};
use super::message::{Account, Charge, Name, Publish};
use super::output::put_outgoing;
use super::wire::{ContentHeader, Frame, put_content, put_method};

/// What a channel has at hand while it answers a frame.
pub(crate) struct Turn<'a> {
    pub(crate) broker: &'a mut Broker,
    pub(crate) at: ChannelRef,
    pub(crate) out: &'a mut Vec<u8>,
    pub(crate) frame_bytes_max: usize,
    pub(crate) assembling: &'a Account,
}

impl Turn<'_> {
    /// Writes an answer, after everything that the broker meant to be sent before it.
    fn reply(&mut self, method: AMQPClass) {
        for outgoing in self.broker.take_outbox(self.at.session) {
            put_outgoing(self.out, outgoing, self.frame_bytes_max);
        }
        put_method(self.out, self.at.number, method);
    }

    /// Writes an answer unless the client wants none.
    fn reply_unless(&mut self, nowait: bool, method: AMQPClass) {
        if !nowait {
            self.reply(method);
        }
    }
}

/// A channel. See the module.
#[derive(Debug, Default)]
pub(crate) struct Channel {
    /// Whether we ended it and await the answer.
    is_closing: bool,
    content: Option<Content>,
    confirms: Option<Confirms>,
    /// What an empty queue name stands for.
    last_queue: Option<Name>,
}

/// A publish whose content is not whole yet.
#[derive(Debug)]
struct Content {
    method: basic::Publish,
    header: Option<Box<ContentHeader>>,
    body: BytesMut,
    charge: Charge,
}

/// The numbers of publishes on a channel in confirm mode.
#[derive(Debug, Default)]
struct Confirms {
    last: u64,
    /// How many acks up to `last` are not written yet.
    unwritten: u64,
}

fn basic_ok(method: basic::AMQPMethod) -> AMQPClass {
    AMQPClass::Basic(method)
}

/// The method that tells a client that its consumer is gone.
pub(crate) fn cancel_notice(consumer_tag: &str) -> AMQPClass {
    basic_ok(basic::AMQPMethod::Cancel(basic::Cancel { consumer_tag: short(consumer_tag), nowait: true }))
}

fn not_for_servers() -> Fault {
    Fault::new(Code::CommandInvalid, "this method is for the server to send")
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

impl Channel {
    /// Whether we ended it and await the answer.
    pub(crate) fn is_closing(&self) -> bool {
        self.is_closing
    }

    /// Whether the content of a publish is awaited.
    pub(crate) fn has_content(&self) -> bool {
        self.content.is_some()
    }

    /// Ends it: from here on only the answer to that counts.
    pub(crate) fn end(&mut self) {
        *self = Self { is_closing: true, ..Self::default() };
    }

    /// Whether acks are still to be written.
    pub(crate) fn has_confirms(&self) -> bool {
        self.confirms.as_ref().is_some_and(|confirms| confirms.unwritten > 0)
    }

    /// Writes the acks that are due, as one.
    pub(crate) fn flush_confirms(&mut self, number: u16, out: &mut Vec<u8>) {
        let Some(confirms) = self.confirms.as_mut().filter(|confirms| confirms.unwritten > 0) else { return };
        let multiple = std::mem::take(&mut confirms.unwritten) > 1;
        let ack = basic::Ack { delivery_tag: confirms.last, multiple };
        put_method(out, number, basic_ok(basic::AMQPMethod::Ack(ack)));
    }

    /// Answers a frame. Whether that completed a publish.
    ///
    /// # Errors
    /// Whatever the frame did wrong; the code says whether channel or connection end.
    pub(crate) fn receive(&mut self, frame: Frame, turn: &mut Turn<'_>) -> Result<bool, Fault> {
        match (frame, self.content.is_some()) {
            (Frame::Method(method), false) => {
                // A publish is asked for no answer that the confirms could have to come before.
                if !matches!(*method, AMQPClass::Basic(basic::AMQPMethod::Publish(_))) {
                    self.flush_confirms(turn.at.number, turn.out);
                }
                self.method(*method, turn).map(|()| false)
            }
            (Frame::Header(header), true) => self.header(header, turn),
            (Frame::Body(piece), true) => self.body(&piece, turn),
            (Frame::Heartbeat, _) => Err(Fault::new(Code::UnexpectedFrame, "heartbeats belong on channel 0")),
            (Frame::Method(_), true) => {
                Err(Fault::new(Code::UnexpectedFrame, "expected the rest of a content, got a method"))
            }
            (Frame::Header(_) | Frame::Body(_), false) => {
                Err(Fault::new(Code::UnexpectedFrame, "expected a method, got a content"))
            }
        }
    }

    fn method(&mut self, method: AMQPClass, turn: &mut Turn<'_>) -> Result<(), Fault> {
        match method {
            AMQPClass::Basic(method) => self.basic(method, turn),
            AMQPClass::Queue(method) => self.queue(method, turn),
            AMQPClass::Exchange(method) => exchange_method(method, turn),
            AMQPClass::Confirm(confirm::AMQPMethod::Select(method)) => {
                self.confirms.get_or_insert_default();
                let ok = confirm::AMQPMethod::SelectOk(confirm::SelectOk {});
                turn.reply_unless(method.nowait, AMQPClass::Confirm(ok));
                Ok(())
            }
            AMQPClass::Channel(channel::AMQPMethod::Flow(method)) if method.active => {
                let ok = channel::AMQPMethod::FlowOk(channel::FlowOk { active: true });
                turn.reply(AMQPClass::Channel(ok));
                Ok(())
            }
            AMQPClass::Channel(channel::AMQPMethod::Flow(_)) => Err(Fault::unsupported("flow that a client stops")),
            AMQPClass::Access(access::AMQPMethod::Request(_)) => {
                turn.reply(AMQPClass::Access(access::AMQPMethod::RequestOk(access::RequestOk {})));
                Ok(())
            }
            AMQPClass::Tx(_) => Err(Fault::unsupported("transactions")),
            AMQPClass::Connection(_) => {
                Err(Fault::new(Code::CommandInvalid, "methods of class connection belong on channel 0"))
            }
            AMQPClass::Channel(_) | AMQPClass::Confirm(_) | AMQPClass::Access(_) => Err(not_for_servers()),
        }
    }

    fn basic(&mut self, method: basic::AMQPMethod, turn: &mut Turn<'_>) -> Result<(), Fault> {
        match method {
            basic::AMQPMethod::Publish(method) => return self.publish(method, turn),
            basic::AMQPMethod::Ack(method) => {
                let which = Which::new(method.delivery_tag, method.multiple);
                turn.broker.settle(turn.at, which, Verdict::Acknowledge)?;
            }
            basic::AMQPMethod::Nack(method) => {
                let which = Which::new(method.delivery_tag, method.multiple);
                turn.broker.settle(turn.at, which, refusal(method.requeue))?;
            }
            basic::AMQPMethod::Reject(method) => {
                turn.broker.settle(turn.at, Which::One(method.delivery_tag), refusal(method.requeue))?;
            }
            basic::AMQPMethod::Recover(method) => {
                recover(method.requeue, turn)?;
                turn.reply(basic_ok(basic::AMQPMethod::RecoverOk(basic::RecoverOk {})));
            }
            basic::AMQPMethod::RecoverAsync(method) => recover(method.requeue, turn)?,
            basic::AMQPMethod::Qos(method) => {
                turn.broker.set_prefetch(turn.at, &method)?;
                turn.reply(basic_ok(basic::AMQPMethod::QosOk(basic::QosOk {})));
            }
            basic::AMQPMethod::Consume(method) => self.consume(method, turn)?,
            basic::AMQPMethod::Cancel(method) => {
                turn.broker.cancel(turn.at, method.consumer_tag.as_str());
                let ok = basic::AMQPMethod::CancelOk(basic::CancelOk { consumer_tag: method.consumer_tag });
                turn.reply_unless(method.nowait, basic_ok(ok));
            }
            // The answer to our own `basic.cancel`, which asks for none; some clients send it all the same.
            basic::AMQPMethod::CancelOk(_) => {}
            basic::AMQPMethod::Get(method) => self.get(method, turn)?,
            _ => return Err(not_for_servers()),
        }
        Ok(())
    }

    fn consume(&mut self, mut method: basic::Consume, turn: &mut Turn<'_>) -> Result<(), Fault> {
        method.queue = short(&self.resolve(method.queue.as_str())?);
        // What consumers before it are to get comes first; what it gets comes after the answer.
        for outgoing in turn.broker.take_outbox(turn.at.session) {
            put_outgoing(turn.out, outgoing, turn.frame_bytes_max);
        }
        let tag = turn.broker.consume(turn.at, &method)?;
        if !method.nowait {
            let ok = basic::AMQPMethod::ConsumeOk(basic::ConsumeOk { consumer_tag: short(&tag) });
            put_method(turn.out, turn.at.number, basic_ok(ok));
        }
        Ok(())
    }

    fn get(&mut self, mut method: basic::Get, turn: &mut Turn<'_>) -> Result<(), Fault> {
        method.queue = short(&self.resolve(method.queue.as_str())?);
        let Some(fetched) = turn.broker.get(turn.at, &method)? else {
            turn.reply(basic_ok(basic::AMQPMethod::GetEmpty(basic::GetEmpty {})));
            return Ok(());
        };
        let ok = basic::GetOk {
            delivery_tag: fetched.delivery_tag,
            redelivered: fetched.redelivered,
            exchange: short(&fetched.message.exchange),
            routing_key: short(&fetched.message.routing_key),
            message_count: count(fetched.left),
        };
        turn.reply(basic_ok(basic::AMQPMethod::GetOk(ok)));
        put_content(turn.out, turn.at.number, &fetched.message, turn.frame_bytes_max);
        Ok(())
    }

    /// The queue that a name means: the empty one is the last declared on this channel.
    fn resolve(&self, name: &str) -> Result<Name, Fault> {
        match (name, &self.last_queue) {
            ("", Some(last)) => Ok(last.clone()),
            ("", None) => Err(Fault::new(Code::NotFound, "no previously declared queue")),
            (name, _) => Ok(name.into()),
        }
    }

    /// The queue and the key of a binding. One that names neither is by the queue's name (`queue.bind`, field `queue`).
    fn bound(&self, name: &str, key: &str) -> Result<(Name, Name), Fault> {
        let queue = self.resolve(name)?;
        let key = if name.is_empty() && key.is_empty() { queue.clone() } else { key.into() };
        Ok((queue, key))
    }

    fn queue(&mut self, method: queue::AMQPMethod, turn: &mut Turn<'_>) -> Result<(), Fault> {
        match method {
            queue::AMQPMethod::Declare(mut method) => {
                if method.passive {
                    method.queue = short(&self.resolve(method.queue.as_str())?);
                }
                let ok = turn.broker.declare_queue(turn.at, &method)?;
                self.last_queue = Some(ok.queue.as_str().into());
                turn.reply_unless(method.nowait, AMQPClass::Queue(queue::AMQPMethod::DeclareOk(ok)));
            }
            queue::AMQPMethod::Bind(method) => {
                let (queue, key) = self.bound(method.queue.as_str(), method.routing_key.as_str())?;
                let link = Link { source: method.exchange.as_str(), key: &key, arguments: &method.arguments };
                turn.broker.bind_queue(turn.at, &queue, &link)?;
                turn.reply_unless(method.nowait, AMQPClass::Queue(queue::AMQPMethod::BindOk(queue::BindOk {})));
            }
            queue::AMQPMethod::Unbind(method) => {
                let (queue, key) = self.bound(method.queue.as_str(), method.routing_key.as_str())?;
                let link = Link { source: method.exchange.as_str(), key: &key, arguments: &method.arguments };
                turn.broker.unbind_queue(turn.at, &queue, &link)?;
                turn.reply(AMQPClass::Queue(queue::AMQPMethod::UnbindOk(queue::UnbindOk {})));
            }
            queue::AMQPMethod::Purge(method) => {
                let queue = self.resolve(method.queue.as_str())?;
                let message_count = count(turn.broker.purge_queue(turn.at, &queue)?);
                let ok = queue::AMQPMethod::PurgeOk(queue::PurgeOk { message_count });
                turn.reply_unless(method.nowait, AMQPClass::Queue(ok));
            }
            queue::AMQPMethod::Delete(mut method) => {
                method.queue = short(&self.resolve(method.queue.as_str())?);
                let message_count = count(turn.broker.delete_queue(turn.at, &method)?);
                let ok = queue::AMQPMethod::DeleteOk(queue::DeleteOk { message_count });
                turn.reply_unless(method.nowait, AMQPClass::Queue(ok));
            }
            _ => return Err(not_for_servers()),
        }
        Ok(())
    }

    fn publish(&mut self, method: basic::Publish, turn: &Turn<'_>) -> Result<(), Fault> {
        if method.immediate {
            return Err(Fault::unsupported("publishes with the flag immediate"));
        }
        self.content = Some(Content { method, header: None, body: BytesMut::new(), charge: turn.assembling.charge(0) });
        Ok(())
    }

    fn header(&mut self, header: Box<ContentHeader>, turn: &mut Turn<'_>) -> Result<bool, Fault> {
        let Some(content) = self.content.as_mut().filter(|content| content.header.is_none()) else {
            return Err(Fault::new(Code::UnexpectedFrame, "expected the rest of a body, got a content header"));
        };
        if header.class != 60 {
            let text = format!("expected a content header for class 60, got one for class {}", header.class);
            return Err(Fault::new(Code::UnexpectedFrame, text));
        }
        if header.body_bytes > BODY_BYTES_MAX {
            return Err(Fault::precondition(format!(
                "message size {} is larger than the embedded broker's maximum {BODY_BYTES_MAX}: use RabbitMQ",
                header.body_bytes
            )));
        }
        let is_whole = header.body_bytes == 0;
        content.header = Some(header);
        if is_whole { self.complete(Bytes::new(), turn) } else { Ok(false) }
    }

    fn body(&mut self, piece: &Bytes, turn: &mut Turn<'_>) -> Result<bool, Fault> {
        let Some((content, wanted)) = self.content.as_mut().and_then(|content| {
            content
                .header
                .as_ref()
                .map(|header| header.body_bytes)
                .zip(Some(content))
                .map(|(wanted, content)| (content, wanted))
        }) else {
            return Err(Fault::new(Code::UnexpectedFrame, "expected a content header, got a body"));
        };
        let so_far = (content.body.len() + piece.len()) as u64;
        if so_far > wanted {
            return Err(Fault::new(
                Code::UnexpectedFrame,
                format!("a body of {wanted} bytes was announced, more came"),
            ));
        }
        if so_far == wanted && content.body.is_empty() {
            // A copy: the piece would keep everything alive that was read along with it.
            return self.complete(Bytes::copy_from_slice(piece), turn);
        }
        content.charge.grow(piece.len());
        if turn.assembling.used() > ASSEMBLING_BYTES_MAX {
            return Err(Fault::limit("bytes of unfinished messages at once", ASSEMBLING_BYTES_MAX));
        }
        content.body.extend_from_slice(piece);
        if so_far < wanted {
            return Ok(false);
        }
        let body = std::mem::take(&mut content.body).freeze();
        self.complete(body, turn)
    }

    fn complete(&mut self, body: Bytes, turn: &mut Turn<'_>) -> Result<bool, Fault> {
        let Some(Content { method, header: Some(header), .. }) = self.content.take() else { return Ok(false) };
        let publish = Publish {
            exchange: method.exchange.as_str().into(),
            routing_key: method.routing_key.as_str().into(),
            properties: header.properties,
            properties_raw: header.properties_raw,
            body,
        };
        let published = turn.broker.publish(turn.at, publish)?;
        let returned = method.mandatory && !published.routed;
        if returned {
            self.flush_confirms(turn.at.number, turn.out);
            give_back(&published, turn);
        }
        self.confirm(&published, method.mandatory, turn);
        Ok(true)
    }

    /// Notes or writes a confirm. One for a mandatory publish is written by itself, directly after what was returned, so
    /// that no client takes the one for another's.
    fn confirm(&mut self, published: &Published, alone: bool, turn: &mut Turn<'_>) {
        let number = turn.at.number;
        if alone || !published.accepted {
            self.flush_confirms(number, turn.out);
        }
        let Some(confirms) = &mut self.confirms else { return };
        confirms.last += 1;
        if !published.accepted {
            let nack = basic::Nack { delivery_tag: confirms.last, multiple: false, requeue: false };
            put_method(turn.out, number, basic_ok(basic::AMQPMethod::Nack(nack)));
            return;
        }
        confirms.unwritten += 1;
        if alone {
            self.flush_confirms(number, turn.out);
        }
    }
}

fn give_back(published: &Published, turn: &mut Turn<'_>) {
    let message = &published.message;
    let method = basic::Return {
        reply_code: 312,
        reply_text: short("NO_ROUTE"),
        exchange: short(&message.exchange),
        routing_key: short(&message.routing_key),
    };
    turn.reply(basic_ok(basic::AMQPMethod::Return(method)));
    put_content(turn.out, turn.at.number, message, turn.frame_bytes_max);
}

fn refusal(requeue: bool) -> Verdict {
    if requeue { Verdict::Requeue } else { Verdict::Discard }
}

fn recover(requeue: bool, turn: &mut Turn<'_>) -> Result<(), Fault> {
    if !requeue {
        return Err(Fault::unsupported("recovery without requeue"));
    }
    turn.broker.recover(turn.at)
}

fn exchange_method(method: exchange::AMQPMethod, turn: &mut Turn<'_>) -> Result<(), Fault> {
    match method {
        exchange::AMQPMethod::Declare(method) => {
            turn.broker.declare_exchange(&method)?;
            let ok = exchange::AMQPMethod::DeclareOk(exchange::DeclareOk {});
            turn.reply_unless(method.nowait, AMQPClass::Exchange(ok));
        }
        exchange::AMQPMethod::Delete(method) => {
            turn.broker.delete_exchange(&method)?;
            let ok = exchange::AMQPMethod::DeleteOk(exchange::DeleteOk {});
            turn.reply_unless(method.nowait, AMQPClass::Exchange(ok));
        }
        exchange::AMQPMethod::Bind(method) => {
            let key = method.routing_key.as_str();
            let link = Link { source: method.source.as_str(), key, arguments: &method.arguments };
            turn.broker.bind_exchange(method.destination.as_str(), &link)?;
            turn.reply_unless(method.nowait, AMQPClass::Exchange(exchange::AMQPMethod::BindOk(exchange::BindOk {})));
        }
        exchange::AMQPMethod::Unbind(method) => {
            let key = method.routing_key.as_str();
            let link = Link { source: method.source.as_str(), key, arguments: &method.arguments };
            turn.broker.unbind_exchange(method.destination.as_str(), &link)?;
            turn.reply_unless(
                method.nowait,
                AMQPClass::Exchange(exchange::AMQPMethod::UnbindOk(exchange::UnbindOk {})),
            );
        }
        _ => return Err(not_for_servers()),
    }
    Ok(())
}
