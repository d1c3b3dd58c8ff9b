//! A link: the broker connection that there is at present, or why there is none. One task keeps each of the two; whoever
//! needs it waits for it here and is told when it goes.

use std::sync::Arc;
use std::time::Instant;

use futures_util::StreamExt;
use lapin::Event;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::metrics::BrokerLink;
use crate::source::{Backoff, Subject, Trouble};

use super::Context;
use super::connection::{self, Live};
use super::words;

/// How a link stands.
#[derive(Clone)]
pub(crate) enum State {
    /// There is none, and why.
    Down(Trouble),
    /// This one.
    Up(Arc<Live>),
}

/// What users of a link hold.
#[derive(Clone)]
pub(crate) struct Link(watch::Receiver<State>);

impl Link {
    /// A link that is not there yet, and the place where its keeper tells how it stands.
    pub(crate) fn new() -> (watch::Sender<State>, Self) {
        let (sender, receiver) = watch::channel(State::Down(Trouble("is not connected to RabbitMQ yet".into())));
        (sender, Self(receiver))
    }

    /// How it stands now.
    pub(crate) fn state(&self) -> State {
        self.0.borrow().clone()
    }

    /// Waits until that changes.
    pub(crate) async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            // Its keeper ended, which happens only after all users have.
            std::future::pending().await
        }
    }

    /// Waits for a connection.
    pub(crate) async fn up(&mut self) -> Arc<Live> {
        loop {
            if let State::Up(live) = self.0.borrow_and_update().clone() {
                return live;
            }
            self.changed().await;
        }
    }

    /// Waits until this connection is no longer the one, and says why.
    pub(crate) async fn lost(&mut self, live: &Arc<Live>) -> Trouble {
        loop {
            match self.0.borrow_and_update().clone() {
                State::Up(current) if Arc::ptr_eq(&current, live) => {}
                State::Up(_) => return words::of_lost(None, &live.peer),
                State::Down(trouble) => return trouble,
            }
            self.changed().await;
        }
    }
}

/// Keeps one link until `stop`, with no limit of tries.
pub(crate) async fn keep(
    link: BrokerLink,
    context: Arc<Context>,
    state: watch::Sender<State>,
    stop: CancellationToken,
) {
    let mut backoff = Backoff::new(context.settings.amqp.backoff_max);
    loop {
        let attempt = tokio::select! {
            attempt = connection::connect(&context.settings.amqp, link.name()) => attempt,
            () = stop.cancelled() => return,
        };
        let trouble = match attempt {
            Err(trouble) => trouble,
            Ok(live) => {
                let since = Instant::now();
                let Some(trouble) = serve(link, &context, (Arc::new(live), &state), &stop).await else { return };
                backoff.stood_for(since.elapsed());
                trouble
            }
        };
        context.board.down(subject(link), &trouble);
        state.send_replace(State::Down(trouble));
        tokio::select! {
            () = tokio::time::sleep(backoff.pause()) => {}
            () = stop.cancelled() => return,
        }
    }
}

fn subject(link: BrokerLink) -> Subject {
    match link {
        BrokerLink::Consume => Subject::ConsumeLink,
        BrokerLink::Publish => Subject::PublishLink,
    }
}

/// Lets others use the connection until it is lost (`Some`) or the program stops (`None`).
async fn serve(
    link: BrokerLink,
    context: &Context,
    (live, state): (Arc<Live>, &watch::Sender<State>),
    stop: &CancellationToken,
) -> Option<Trouble> {
    let words::Peer { address, vhost, user } = &live.peer;
    let words = format!("connected to RabbitMQ at {address}, vhost '{vhost}', as '{user}'");
    context.board.up(subject(link), format!("{words} ({})", link.name()));
    state.send_replace(State::Up(live.clone()));
    // Whoever reads it finds that the connection is there.
    context.metrics.link_up(link);
    let trouble = tokio::select! {
        trouble = watch_over(&live) => Some(trouble),
        () = stop.cancelled() => None,
    };
    context.metrics.link_down(link);
    match &trouble {
        Some(_) => live.life.kill.cancel(),
        None => live.close().await,
    }
    trouble
}

/// Follows a connection's events until it is lost.
async fn watch_over(live: &Live) -> Trouble {
    let mut events = Box::pin(live.events());
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = live.life.gone.cancelled() => None,
        };
        match event {
            Some(Event::ConnectionBlocked(reason)) => {
                tracing::warn!("RabbitMQ at {} accepts no messages: {reason}", live.peer.address);
                live.blocked.send_replace(Some(reason));
            }
            Some(Event::ConnectionUnblocked) => {
                tracing::info!("RabbitMQ at {} accepts messages again", live.peer.address);
                live.blocked.send_replace(None);
            }
            // A channel's error comes this way too and concerns its users only.
            Some(Event::Error(error)) if !live.is_alive() => return words::of_lost(Some(&error), &live.peer),
            Some(_) => {}
            None => return words::of_lost(None, &live.peer),
        }
    }
}
