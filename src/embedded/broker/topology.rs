//! Declaring, binding, deleting: what there is, and who may change it.

use amq_protocol::protocol::{exchange, queue};
use amq_protocol::types::{AMQPValue, FieldTable};

use super::super::exchange::{Binding, Declaration, Destination, Exchange, Kind};
use super::super::fault::{Code, Fault, short};
use super::super::limits::{ARGUMENTS_CHARACTERS_MAX, BINDINGS_MAX, EXCHANGES_MAX, QUEUES_MAX};
use super::super::message::Name;
use super::super::queue::{Declaration as QueueDeclaration, Queue, QueueId};
use super::super::queue_arguments::{COMPARED, Rules};
use super::super::table::{field, integer, same, utf8};
use super::{Broker, ChannelRef, Outgoing, SessionId};

/// The address that stands for "my own replies".
pub(crate) const REPLY_TO: &str = "amq.rabbitmq.reply-to";

/// What `queue.bind`, `exchange.bind` and their opposites name.
#[derive(Debug)]
pub(crate) struct Link<'a> {
    pub(crate) source: &'a str,
    pub(crate) key: &'a str,
    pub(crate) arguments: &'a FieldTable,
}

fn check_reserved(kind: &str, name: &str) -> Result<(), Fault> {
    if name.starts_with("amq.") {
        return Err(Fault::refused(format!("{kind} name '{name}' contains reserved prefix 'amq.*'")));
    }
    Ok(())
}

fn check_arguments(arguments: &FieldTable) -> Result<(), Fault> {
    if format!("{arguments:?}").len() > ARGUMENTS_CHARACTERS_MAX {
        return Err(Fault::precondition("the arguments are too long"));
    }
    Ok(())
}

fn unequal(argument: &str, kind: &str, name: &str, [received, current]: [String; 2]) -> Fault {
    Fault::precondition(format!(
        "inequivalent arg '{argument}' for {kind} '{name}' in vhost '/': received {received} but current is {current}"
    ))
}

fn check_equal<T: PartialEq + ToString>(what: (&str, &str, &str), received: T, current: T) -> Result<(), Fault> {
    if received == current {
        return Ok(());
    }
    let (argument, kind, name) = what;
    Err(unequal(argument, kind, name, [format!("'{}'", received.to_string()), format!("'{}'", current.to_string())]))
}

fn shown(value: Option<&AMQPValue>) -> String {
    let Some(value) = value else { return "none".into() };
    match (integer(value), utf8(value)) {
        (Some(number), _) => format!("the value '{number}'"),
        (_, Some(text)) => format!("the value '{text}'"),
        _ => format!("{value:?}"),
    }
}

impl Broker {
    /// `exchange.declare`.
    ///
    /// # Errors
    /// 403 for reserved names, 404 when passive and missing, 406 when it is there and different, 503 and 540 for types
    /// that are not here.
    pub(crate) fn declare_exchange(&mut self, method: &exchange::Declare) -> Result<(), Fault> {
        let name = method.exchange.as_str();
        check_not_default(name)?;
        if method.passive {
            return self.exchanges.get(name).map(drop).ok_or_else(|| Fault::missing("exchange", name));
        }
        let kind = match (Kind::parse(method.kind.as_str()), method.kind.as_str()) {
            (Some(kind), _) => kind,
            (None, other) if other.starts_with("x-") => {
                return Err(Fault::unsupported(&format!("exchange type '{other}'")));
            }
            (None, other) => return Err(Fault::new(Code::CommandInvalid, format!("invalid exchange type '{other}'"))),
        };
        let alternate = match field(&method.arguments, "alternate-exchange") {
            None => None,
            Some(value) => {
                let name = utf8(value).filter(|text| text.len() <= 255);
                Some(Name::from(
                    name.ok_or_else(|| Fault::precondition("invalid arg 'alternate-exchange': a text is needed"))?,
                ))
            }
        };
        let (durable, auto_delete, internal) = (method.durable, method.auto_delete, method.internal);
        let declaration = Declaration { kind, durable, auto_delete, internal, alternate };
        if let Some(exchange) = self.exchanges.get(name) {
            return check_same_exchange(name, &declaration, &exchange.declaration);
        }
        check_reserved("exchange", name)?;
        if self.exchanges.len() >= EXCHANGES_MAX {
            return Err(Fault::limit("exchanges", EXCHANGES_MAX));
        }
        self.exchanges.insert(name.into(), Exchange::new(declaration));
        Ok(())
    }

    /// `exchange.delete`; one that is not there is as good as deleted.
    ///
    /// # Errors
    /// 403 for reserved names, 406 when it is to be unused and is not.
    pub(crate) fn delete_exchange(&mut self, method: &exchange::Delete) -> Result<(), Fault> {
        let name = method.exchange.as_str();
        check_not_default(name)?;
        if name.starts_with("amq.") {
            return Err(Fault::refused(format!("deletion of system exchange '{name}' in vhost '/' not allowed")));
        }
        let Some(exchange) = self.exchanges.get(name) else { return Ok(()) };
        if method.if_unused && exchange.bindings() > 0 {
            return Err(Fault::precondition(format!("exchange '{name}' in vhost '/' in use")));
        }
        self.remove_exchange(name);
        Ok(())
    }

    /// Removes an exchange, and with it those that live only as long as something is bound to them, one after the other.
    fn remove_exchange(&mut self, name: &str) {
        let mut doomed: Vec<Name> = vec![name.into()];
        while let Some(name) = doomed.pop() {
            let Some(exchange) = self.exchanges.remove(&name) else { continue };
            self.bindings -= exchange.bindings();
            let destination = Destination::Exchange(name);
            let sources: Vec<Name> = self.exchanges.keys().cloned().collect();
            doomed.extend(sources.into_iter().filter(|source| self.unbind_all(source, &destination)));
        }
    }

    /// Takes all bindings of an exchange to a destination away. Whether the exchange then has nothing left to live for.
    fn unbind_all(&mut self, source: &str, destination: &Destination) -> bool {
        let Some(exchange) = self.exchanges.get_mut(source) else { return false };
        let gone = exchange.unbind_all(destination);
        self.bindings -= gone;
        gone > 0 && exchange.declaration.auto_delete && exchange.bindings() == 0
    }

    /// `queue.bind`, the queue's name being already resolved.
    ///
    /// # Errors
    /// 403 for the default exchange, 404 when either end is missing, 405 for somebody else's queue, 406 for arguments
    /// that make no sense, 506 at the limit.
    pub(crate) fn bind_queue(&mut self, at: ChannelRef, queue: &str, link: &Link<'_>) -> Result<(), Fault> {
        let id = self.usable_queue(at.session, queue)?;
        self.bind(Destination::Queue(id), link)?;
        if let Some(queue) = self.queues.get_mut(&id) {
            queue.bound_to.insert(link.source.into());
        }
        Ok(())
    }

    /// `queue.unbind`; a binding of which any part is not there is as good as gone.
    ///
    /// # Errors
    /// 403 for the default exchange, 405 for somebody else's queue.
    pub(crate) fn unbind_queue(&mut self, at: ChannelRef, queue: &str, link: &Link<'_>) -> Result<(), Fault> {
        check_not_default(link.source)?;
        if self.queue_names.contains_key(queue) {
            let id = self.usable_queue(at.session, queue)?;
            self.unbind(Destination::Queue(id), link);
        }
        Ok(())
    }

    /// `exchange.bind`.
    ///
    /// # Errors
    /// 403 for the default exchange, 404 when either end is missing, 406 for arguments that make no sense, 506 at the limit.
    pub(crate) fn bind_exchange(&mut self, destination: &str, link: &Link<'_>) -> Result<(), Fault> {
        check_not_default(destination)?;
        let found = self.exchange_destination(destination).ok_or_else(|| Fault::missing("exchange", destination))?;
        self.bind(found, link)
    }

    /// `exchange.unbind`; a binding of which any part is not there is as good as gone.
    ///
    /// # Errors
    /// 403 for the default exchange.
    pub(crate) fn unbind_exchange(&mut self, destination: &str, link: &Link<'_>) -> Result<(), Fault> {
        check_not_default(destination)?;
        check_not_default(link.source)?;
        if let Some(found) = self.exchange_destination(destination) {
            self.unbind(found, link);
        }
        Ok(())
    }

    fn exchange_destination(&self, name: &str) -> Option<Destination> {
        self.exchanges.get_key_value(name).map(|(name, _)| Destination::Exchange(name.clone()))
    }

    fn bind(&mut self, destination: Destination, link: &Link<'_>) -> Result<(), Fault> {
        check_not_default(link.source)?;
        check_arguments(link.arguments)?;
        let full = self.bindings >= BINDINGS_MAX;
        let exchange = self.exchanges.get_mut(link.source).ok_or_else(|| Fault::missing("exchange", link.source))?;
        if full {
            return Err(Fault::limit("bindings", BINDINGS_MAX));
        }
        if exchange.bind(Binding::new(destination, link.key.into(), link.arguments), link.arguments)? {
            self.bindings += 1;
        }
        Ok(())
    }

    fn unbind(&mut self, destination: Destination, link: &Link<'_>) {
        let Some(exchange) = self.exchanges.get_mut(link.source) else { return };
        if exchange.unbind(&Binding::new(destination, link.key.into(), link.arguments)) {
            let is_done = exchange.declaration.auto_delete && exchange.bindings() == 0;
            self.bindings -= 1;
            if is_done {
                self.remove_exchange(link.source);
            }
        }
    }

    /// `queue.declare`; an empty name is replaced by one of ours.
    ///
    /// # Errors
    /// 403 for reserved names, 404 when passive and missing, 405 for somebody else's, 406 when it is there and different,
    /// its arguments make no sense or its type is not here, 506 at the limit.
    pub(crate) fn declare_queue(&mut self, at: ChannelRef, method: &queue::Declare) -> Result<queue::DeclareOk, Fault> {
        let name = method.queue.as_str();
        if name.starts_with(REPLY_TO) {
            return self.declare_reply_address(name);
        }
        if method.passive {
            let id = self.usable_queue(at.session, name)?;
            return Ok(self.declared(id));
        }
        check_arguments(&method.arguments)?;
        let rules = Rules::parse(&method.arguments)?;
        let owner = method.exclusive.then_some(at.session);
        let declaration = QueueDeclaration { durable: method.durable, auto_delete: method.auto_delete, owner, rules };
        if let Some(id) = self.queue_names.get(name).copied() {
            self.check_same_queue(id, method, &declaration)?;
            return Ok(self.declared(id));
        }
        check_reserved("queue", name)?;
        if self.queues.len() >= QUEUES_MAX {
            return Err(Fault::limit("queues", QUEUES_MAX));
        }
        let name = if name.is_empty() { Self::fresh_name("amq.gen-") } else { name.into() };
        let id = QueueId(self.next_id());
        let queue = Queue::new(name.clone(), method.arguments.clone(), declaration, self.now.instant);
        self.queues.insert(id, queue);
        self.queue_names.insert(name, id);
        Ok(self.declared(id))
    }

    fn declare_reply_address(&self, name: &str) -> Result<queue::DeclareOk, Fault> {
        let token = name.strip_prefix(REPLY_TO).and_then(|rest| rest.strip_prefix('.'));
        if name == REPLY_TO || token.is_some_and(|token| self.reply_addresses.contains_key(token)) {
            return Ok(queue::DeclareOk { queue: short(name), message_count: 0, consumer_count: 1 });
        }
        Err(Fault::missing("queue", name))
    }

    fn declared(&mut self, id: QueueId) -> queue::DeclareOk {
        let now = self.now.instant;
        let Some(queue) = self.queues.get_mut(&id) else { return queue::DeclareOk::default() };
        queue.used = now;
        let answer = queue::DeclareOk {
            queue: short(&queue.name),
            message_count: u32::try_from(queue.ready()).unwrap_or(u32::MAX),
            consumer_count: u32::try_from(queue.consumers.len()).unwrap_or(u32::MAX),
        };
        self.set_timer(id);
        answer
    }

    fn check_same_queue(&self, id: QueueId, method: &queue::Declare, new: &QueueDeclaration) -> Result<(), Fault> {
        let Some(queue) = self.queues.get(&id) else { return Ok(()) };
        let current = &queue.declaration;
        if new.owner != current.owner {
            return Err(locked(&queue.name));
        }
        let name = &*queue.name;
        check_equal(("durable", "queue", name), new.durable, current.durable)?;
        check_equal(("auto_delete", "queue", name), new.auto_delete, current.auto_delete)?;
        for argument in COMPARED {
            let (new, old) = (field(&method.arguments, argument), field(&queue.arguments, argument));
            let equal = match (new, old) {
                (None, None) => true,
                (Some(new), Some(old)) => same(new, old),
                _ => false,
            };
            if !equal && !(argument == "x-queue-type" && (new.is_none() || old.is_none())) {
                return Err(unequal(argument, "queue", name, [shown(new), shown(old)]));
            }
        }
        Ok(())
    }

    /// `queue.delete`; how many messages it held. One that is not there is as good as deleted.
    ///
    /// # Errors
    /// 405 for somebody else's queue, 406 when it is to be unused or empty and is not.
    pub(crate) fn delete_queue(&mut self, at: ChannelRef, method: &queue::Delete) -> Result<usize, Fault> {
        let name = method.queue.as_str();
        if !self.queue_names.contains_key(name) {
            return Ok(0);
        }
        let id = self.usable_queue(at.session, name)?;
        let Some(queue) = self.queues.get(&id) else { return Ok(0) };
        if method.if_unused && !queue.consumers.is_empty() {
            return Err(Fault::precondition(format!("queue '{name}' in vhost '/' in use")));
        }
        if method.if_empty && queue.ready() > 0 {
            return Err(Fault::precondition(format!("queue '{name}' in vhost '/' not empty")));
        }
        Ok(self.remove_queue(id))
    }

    /// `queue.purge`; how many messages it held. Those handed out stay with their holders.
    ///
    /// # Errors
    /// 404 when it is missing, 405 for somebody else's.
    pub(crate) fn purge_queue(&mut self, at: ChannelRef, name: &str) -> Result<usize, Fault> {
        let id = self.usable_queue(at.session, name)?;
        Ok(self.queues.get_mut(&id).map_or(0, Queue::purge))
    }

    /// The queue of this name, if it is there and this connection may use it.
    pub(super) fn usable_queue(&self, session: SessionId, name: &str) -> Result<QueueId, Fault> {
        let id = self.queue_names.get(name).copied().ok_or_else(|| Fault::missing("queue", name))?;
        match self.queues.get(&id).and_then(|queue| queue.declaration.owner) {
            Some(owner) if owner != session => Err(locked(name)),
            _ => Ok(id),
        }
    }

    /// Removes a queue with its bindings and consumers; how many messages were ready in it.
    pub(super) fn remove_queue(&mut self, id: QueueId) -> usize {
        let Some(queue) = self.queues.remove(&id) else { return 0 };
        self.queue_names.remove(&queue.name);
        if let Some(at) = queue.timer {
            self.timers.remove(&(at, id));
        }
        for source in &queue.bound_to {
            if self.unbind_all(source, &Destination::Queue(id)) {
                self.remove_exchange(source);
            }
        }
        for consumer in &queue.consumers {
            let Some(consumer) = self.consumers.remove(consumer) else { continue };
            if let Some(ledger) = self.ledger_mut(consumer.at) {
                ledger.consumers.remove(&consumer.tag);
            }
            if self.sessions.get(&consumer.at.session).is_some_and(|session| session.cancel_notify) {
                let cancel = Outgoing::Cancel { channel: consumer.at.number, consumer_tag: consumer.tag };
                self.send(consumer.at.session, cancel);
            }
        }
        queue.ready()
    }

    /// Removes a queue that lives only as long as it has consumers, once the last one is gone.
    pub(super) fn delete_if_abandoned(&mut self, id: QueueId) {
        if self.queues.get(&id).is_some_and(|queue| queue.declaration.auto_delete && queue.consumers.is_empty()) {
            self.remove_queue(id);
        }
    }
}

fn check_not_default(name: &str) -> Result<(), Fault> {
    if name.is_empty() {
        return Err(Fault::refused("operation not permitted on the default exchange"));
    }
    Ok(())
}

fn check_same_exchange(name: &str, new: &Declaration, current: &Declaration) -> Result<(), Fault> {
    check_equal(("type", "exchange", name), new.kind.name(), current.kind.name())?;
    check_equal(("durable", "exchange", name), new.durable, current.durable)?;
    check_equal(("auto_delete", "exchange", name), new.auto_delete, current.auto_delete)?;
    check_equal(("internal", "exchange", name), new.internal, current.internal)?;
    let alternate = |declaration: &Declaration| declaration.alternate.as_deref().unwrap_or("none").to_owned();
    check_equal(("alternate-exchange", "exchange", name), alternate(new), alternate(current))
}

fn locked(name: &str) -> Fault {
    let text = format!(
        "cannot obtain exclusive access to locked queue '{name}' in vhost '/'. It could be originally declared on another \
         connection or the exclusive property value does not match that of the original declaration."
    );
    Fault::new(Code::ResourceLocked, text)
}
