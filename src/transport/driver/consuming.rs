//! Queues that clients consume: what comes of them is one client's alone, so it passes no log and no turn. A small task
//! beside the loop takes it in for each of them; how much there can be is bounded by what a client may hold.

use crate::hub::index::SubscriberId;
use crate::hub::upstream::Consumption;
use crate::model::delivery::{ConsumeNews, ConsumeOrder, ConsumeRequest, Delivery, Settled};
use crate::protocol::{HandOut, Outbound};
use crate::session::{Completion, ConsumeKey};
use crate::transport::driver::connection::Connection;
use crate::transport::driver::{Answer, Driver, News};

impl Driver {
    /// Has a queue consumed, until the connection lets go of its orders.
    pub(super) fn consume(
        &mut self,
        subscriber: SubscriberId,
        connection: &mut Connection,
        (key, request): (ConsumeKey, ConsumeRequest),
    ) {
        let Consumption { orders, mut news } = self.shared.upstream.consume(request);
        // Those that have ended need no orders any more.
        connection.consumptions.retain(|(_, orders)| !orders.is_closed());
        connection.consumptions.push((key, orders));
        let (ticket, answers) = (self.ticket(subscriber), self.answers.clone());
        tokio::task::spawn_local(async move {
            while let Some(news) = news.recv().await {
                let completion = Completion::Consumed { consumption: key, news };
                // The loop is gone only when the server stops.
                if answers.send(Answer { ticket, news: News::Completion(completion) }).await.is_err() {
                    break;
                }
            }
        });
    }

    /// Passes on what a session wants of a queue. A queue that has ended settles nothing any more.
    pub(super) fn order(
        &mut self,
        subscriber: SubscriberId,
        connection: &mut Connection,
        (key, order): (ConsumeKey, ConsumeOrder),
    ) {
        let orders = connection.consumptions.iter().find(|(known, _)| *known == key).map(|(_, orders)| orders);
        // There is room for whatever a session can order; see `Consumption`.
        let order = match orders {
            Some(orders) => match orders.try_send(order) {
                Ok(()) => return,
                Err(refused) => refused.into_inner(),
            },
            None => order,
        };
        let news = match order {
            ConsumeOrder::Settle(tag, _) | ConsumeOrder::Answer(tag, _) => ConsumeNews::Settled(tag, Settled::Stale),
            ConsumeOrder::Stop => ConsumeNews::Stopped,
        };
        self.complete(subscriber, connection, Completion::Consumed { consumption: key, news });
    }

    /// Gives a delivery to the codec of the client that holds it.
    pub(super) fn hand_out(&mut self, subscriber: SubscriberId, connection: &mut Connection, delivery: Box<Delivery>) {
        let tag = delivery.tag;
        match connection.codec.hand_out(delivery) {
            HandOut::Written(outbound) => self.write_delivery(connection, &outbound),
            // Who reads slowly holds no more than its prefetch, and what it was not sent goes back when it goes.
            HandOut::Settled(Some(outbound), settlement) => {
                self.write_delivery(connection, &outbound);
                connection.handed_out.push((tag, settlement));
            }
            HandOut::Settled(None, settlement) => {
                let mut actions = Vec::new();
                connection.session.settle_at_once(tag, settlement, &mut actions);
                self.perform(subscriber, connection, actions);
            }
            HandOut::Kept => {}
        }
    }

    /// Settles what its client does not, once the socket has taken it.
    pub(super) fn settle_taken(&mut self, subscriber: SubscriberId, connection: &mut Connection) {
        if connection.handed_out.is_empty() || !connection.outbox.is_empty() || !connection.is_open() {
            return;
        }
        let mut actions = Vec::new();
        for (tag, settlement) in std::mem::take(&mut connection.handed_out) {
            connection.session.settle_at_once(tag, settlement, &mut actions);
        }
        self.perform(subscriber, connection, actions);
    }

    /// Writes a message that is this client's alone.
    pub(super) fn write_delivery(&mut self, connection: &mut Connection, outbound: &Outbound) {
        let frame = self.wire.frame(connection.framing, outbound);
        self.shared.metrics.encodes(connection.protocol, 1);
        self.shared.metrics.deliveries(connection.protocol, 1, frame.len() as u64);
        connection.hand_out(frame);
    }
}
