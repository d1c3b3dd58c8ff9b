//! Carries out what the interest plans: makes bindings, removes those that nobody wants any more, and tells what came of it.
//! It has a channel of its own, so that a refused binding closes nothing else. The link can lose so many channels only: once
//! it has lost one here, what clients want is tried beforehand where nobody needs the channel.
//!
//! Whoever deletes an exchange deletes its bindings, and the broker tells nobody. So it is asked for now and then, and what is
//! bound is bound again, which changes nothing where it stands.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::join_all;
use lapin::Channel;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions};
use lapin::types::{FieldTable, ShortString};
use tokio::time::MissedTickBehavior;

use crate::hub::feed::Feed;
use crate::hub::interest::Folding;
use crate::model::topic::{Pattern, Topic};
use crate::source::Trouble;

use super::Context;
use super::connection::{ANSWER_TIMEOUT, Live};
use super::probe;
use super::words::{self, Refusal};

/// Bindings that are asked for before the first answer is in.
const PIPELINE_MAX: usize = 64;

/// Patterns that are tried at a time, each on a channel of its own.
const TRIALS_MAX: usize = 8;

/// Rounds of making room before a link is up; clients that come and go meanwhile must not delay that for ever.
const ROUNDS_MAX: usize = 100;

/// Between two looks at whether the exchange is there.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Bindings that are made again at each look, in turn.
const BOUND_AGAIN_MAX: usize = PIPELINE_MAX;

/// Covering patterns that a log line names.
const COVERS_NAMED_MAX: usize = 8;

/// Binds one queue to one exchange, for as long as a link lasts.
pub(crate) struct Binder<'a> {
    live: &'a Arc<Live>,
    feed: &'a Feed,
    context: &'a Context,
    target: Target,
    channel: Channel,
    /// Whether patterns are tried beforehand.
    doubts: bool,
    /// Patterns for which the empty key is bound too.
    empty_key: HashSet<Pattern>,
    /// The last pattern that was bound again.
    bound_again: Option<Pattern>,
}

/// What is bound to what.
pub(crate) struct Target {
    /// Our queue.
    pub(crate) queue: ShortString,
    /// The configured exchange.
    pub(crate) exchange: ShortString,
    /// The configuration's section, for sentences.
    pub(crate) section: String,
    /// The topic that messages with an empty routing key get, if bindings must care for that.
    pub(crate) topic_of_empty_key: Option<Topic>,
}

/// What came of one round.
struct CarriedOut {
    /// Whether anything was asked of the broker, which may make more possible.
    was_anything: bool,
    /// When to plan again though nothing changes.
    next: Option<Instant>,
}

impl<'a> Binder<'a> {
    /// On a new channel.
    ///
    /// # Errors
    /// When there is none to be had.
    pub(crate) async fn new(
        live: &'a Arc<Live>,
        feed: &'a Feed,
        context: &'a Context,
        target: Target,
    ) -> Result<Self, Trouble> {
        let channel = live.channel().await?;
        let empty_key = HashSet::new();
        Ok(Self { live, feed, context, target, channel, doubts: false, empty_key, bound_again: None })
    }

    /// Follows the interest until something fails.
    ///
    /// # Errors
    /// When the exchange, our queue or the connection is gone; in words.
    pub(crate) async fn run(&mut self) -> Result<(), Trouble> {
        let mut next = None;
        let mut look = tokio::time::interval_at(tokio::time::Instant::now() + LOOK_EVERY, LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.feed.interest().changed() => {}
                () = sleep_until(next) => {}
                _ = look.tick() => self.look().await?,
            }
            next = self.carry_out().await?.next;
        }
    }

    /// Makes sure that the exchange is there, and of some of the bindings.
    async fn look(&mut self) -> Result<(), Trouble> {
        self.open_channel().await?;
        let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
        let (exchange, kind) = (self.target.exchange.clone(), lapin::ExchangeKind::Topic);
        let asked = self.channel.exchange_declare(exchange, kind, options, FieldTable::default());
        answered(asked).await.map_err(|error| self.failure(error))?;
        self.bind_again().await
    }

    async fn bind_again(&mut self) -> Result<(), Trouble> {
        let patterns = in_turn(self.feed.interest().bound(usize::MAX), self.bound_again.as_ref());
        self.bound_again = patterns.last().cloned();
        let left = self.bind_many(patterns, |_| ()).await;
        let (allowed, refused) = self.tried(left).await;
        for (pattern, error) in refused {
            self.end(&pattern, &error).await?;
        }
        for pattern in allowed {
            self.open_channel().await?;
            if let Err(error) = self.bind(&pattern).await {
                self.end(&pattern, &error.ok_or_else(|| self.silent())?).await?;
            }
        }
        Ok(())
    }

    /// A right that was taken away since ends what stands by it, and nothing else. RabbitMQ wants the same right before it takes
    /// the binding away, so that this stays until the link ends, and brings what nobody is sent.
    async fn end(&mut self, pattern: &Pattern, error: &lapin::Error) -> Result<(), Trouble> {
        self.feed.unbound(pattern);
        self.refuse(pattern, error)?;
        self.forget_empty_key(std::slice::from_ref(pattern)).await
    }

    /// Carries out what is planned on a new link, and what that makes possible: what was wanted on the link before stands
    /// again then, or is refused.
    ///
    /// # Errors
    /// As for [`Self::run`].
    pub(crate) async fn begin(&mut self) -> Result<(), Trouble> {
        if !self.feed.interest().is_fixed() {
            self.try_a_topic().await?;
        }
        for _ in 0..ROUNDS_MAX {
            if !self.carry_out().await?.was_anything {
                break;
            }
        }
        Ok(())
    }

    /// Where bindings follow what clients want, the first client would find that the exchange takes no topics as keys. That this
    /// topic may not be read says nothing of others.
    async fn try_a_topic(&mut self) -> Result<(), Trouble> {
        match self.bind_key(probe::KEY).await {
            Ok(()) => self.unbind_alone(probe::KEY).await,
            Err(Some(error)) if words::refusal(&error) == Some(Refusal::AccessRefused) => self.open_channel().await,
            Err(error) => Err(self.failure(error)),
        }
    }

    /// Carries out what is planned now.
    async fn carry_out(&mut self) -> Result<CarriedOut, Trouble> {
        let plan = self.feed.interest().plan(Instant::now());
        let was_anything = !plan.bind.is_empty() || !plan.unbind.is_empty();
        plan.folding.into_iter().for_each(|folding| self.log_folding(&folding));
        if !plan.bind.is_empty() {
            self.bind_all(plan.bind).await?;
        }
        self.unbind_all(&plan.unbind).await?;
        self.context.metrics.bindings(self.feed.info().id, self.feed.interest().bindings());
        Ok(CarriedOut { was_anything, next: plan.next })
    }

    async fn bind_all(&mut self, patterns: Vec<Pattern>) -> Result<(), Trouble> {
        self.open_channel().await?;
        let patterns = self.allowed(patterns).await?;
        let left = self.bind_many(patterns, |pattern| self.feed.bound(pattern)).await;
        for pattern in self.allowed(left).await? {
            self.bind_alone(&pattern).await?;
        }
        for pattern in self.feed.interest().bound(usize::MAX) {
            self.note_empty_key(&pattern);
        }
        Ok(())
    }

    /// Those of them that are not known to be refused, which is told of the others.
    async fn allowed(&self, patterns: Vec<Pattern>) -> Result<Vec<Pattern>, Trouble> {
        let (allowed, refused) = self.tried(patterns).await;
        for (pattern, error) in refused {
            self.refuse(&pattern, &error)?;
        }
        Ok(allowed)
    }

    /// Those of them that are not known to be refused, and those that are. Nothing is known without doubts, and where there is
    /// no connection to try them on.
    async fn tried(&self, patterns: Vec<Pattern>) -> (Vec<Pattern>, Vec<(Pattern, lapin::Error)>) {
        if !self.doubts {
            return (patterns, Vec::new());
        }
        let (mut allowed, mut refused) = (Vec::new(), Vec::new());
        for some in patterns.chunks(TRIALS_MAX) {
            let trial = self.context.trials.live().await;
            let refusals = join_all(some.iter().map(|pattern| self.refusal(trial.as_ref(), pattern))).await;
            for (pattern, refusal) in some.iter().zip(refusals) {
                match refusal {
                    None => allowed.push(pattern.clone()),
                    Some(error) => refused.push((pattern.clone(), error)),
                }
            }
        }
        (allowed, refused)
    }

    /// Why the broker does not let us bind this, if it says so.
    async fn refusal(&self, trial: Option<&Arc<Live>>, pattern: &Pattern) -> Option<lapin::Error> {
        let Target { queue, exchange, .. } = &self.target;
        for key in self.means_empty_key(pattern).then_some("").into_iter().chain([pattern.as_str()]) {
            if let Err(Some(error)) = answered(probe::bind(trial?, (exchange.as_str(), key), queue.as_str())).await
                && words::refusal(&error) == Some(Refusal::AccessRefused)
            {
                return Some(error);
            }
        }
        None
    }

    /// Many at a time; once one was refused the channel is gone, and the rest is to go one by one, to find out which. Answers
    /// those.
    async fn bind_many(&mut self, patterns: Vec<Pattern>, stands: impl Fn(&Pattern)) -> Vec<Pattern> {
        let asked = futures_util::stream::iter(patterns).map(|pattern| async {
            let bound = self.bind(&pattern).await;
            (pattern, bound)
        });
        let mut answers = asked.buffered(PIPELINE_MAX);
        let mut left = Vec::new();
        while let Some((pattern, bound)) = answers.next().await {
            match bound {
                Ok(()) => stands(&pattern),
                Err(_) => left.push(pattern),
            }
        }
        drop(answers);
        self.doubts |= !left.is_empty();
        left
    }

    async fn bind_alone(&mut self, pattern: &Pattern) -> Result<(), Trouble> {
        self.open_channel().await?;
        let Err(error) = self.bind(pattern).await else {
            self.feed.bound(pattern);
            return Ok(());
        };
        let error = error.ok_or_else(|| self.silent())?;
        self.refuse(pattern, &error)
    }

    /// What the broker has against one pattern concerns those alone who want it, unless all of a list were to stand.
    fn refuse(&self, pattern: &Pattern, error: &lapin::Error) -> Result<(), Trouble> {
        let names = (self.target.exchange.as_str(), self.live.peer.user.as_str());
        let Some(sentence) = words::of_pattern(error, pattern, names) else { return Err(self.trouble(error)) };
        self.feed.interest().refused(pattern, sentence.clone());
        match (self.feed.interest().is_fixed(), words::refusal(error)) {
            (false, _) => {
                tracing::warn!("{sentence}");
                Ok(())
            }
            // It is the list that is to be changed.
            (true, Some(Refusal::Precondition)) => Err(self.trouble(error)),
            // Whoever runs the source writes that on the board, where it makes one line however often it is tried.
            (true, _) => Err(Trouble(sentence)),
        }
    }

    /// A refusal closes a channel.
    async fn open_channel(&mut self) -> Result<(), Trouble> {
        if !self.channel.status().connected() {
            self.channel = self.live.channel().await?;
        }
        Ok(())
    }

    /// Binds a pattern, and the empty key where the pattern means its topic as well. `Err(None)`: no answer.
    async fn bind(&self, pattern: &Pattern) -> Result<(), Option<lapin::Error>> {
        if self.means_empty_key(pattern) {
            self.bind_key("").await?;
        }
        self.bind_key(pattern.as_str()).await
    }

    async fn bind_key(&self, key: &str) -> Result<(), Option<lapin::Error>> {
        // A pattern is never longer than a short string may be.
        let key = ShortString::try_new(key).map_err(|_| None)?;
        let Target { queue, exchange, .. } = &self.target;
        let options = QueueBindOptions { nowait: false };
        let asked = self.channel.queue_bind(queue.clone(), exchange.clone(), key, options, FieldTable::default());
        answered(asked).await
    }

    /// Many at a time, then what was left one by one. Nothing else is planned before all of them are gone at the broker.
    async fn unbind_all(&mut self, patterns: &[Pattern]) -> Result<(), Trouble> {
        patterns.iter().for_each(|pattern| self.feed.unbound(pattern));
        let mut left = Vec::new();
        {
            let this = &*self;
            let asked = futures_util::stream::iter(patterns.to_vec());
            let asked = asked.map(|pattern| async move { (this.unbind_key(pattern.as_str()).await, pattern) });
            let mut answers = asked.buffered(PIPELINE_MAX);
            while let Some((unbound, pattern)) = answers.next().await {
                left.extend(unbound.is_err().then_some(pattern));
            }
        }
        for pattern in left {
            self.unbind_alone(pattern.as_str()).await?;
        }
        self.forget_empty_key(patterns).await
    }

    /// A binding that may no longer be taken away stays until the link ends, and harms nobody.
    async fn unbind_alone(&mut self, key: &str) -> Result<(), Trouble> {
        self.open_channel().await?;
        match self.unbind_key(key).await {
            Err(Some(error)) if words::refusal(&error) == Some(Refusal::AccessRefused) => Ok(()),
            unbound => unbound.map_err(|error| self.failure(error)),
        }
    }

    /// Unbinds the empty key when the last pattern goes for which it was bound.
    async fn forget_empty_key(&mut self, patterns: &[Pattern]) -> Result<(), Trouble> {
        let had_empty_key = !self.empty_key.is_empty();
        patterns.iter().for_each(|pattern| _ = self.empty_key.remove(pattern));
        if had_empty_key && self.empty_key.is_empty() { self.unbind_alone("").await } else { Ok(()) }
    }

    /// `Err(None)`: no answer.
    async fn unbind_key(&self, key: &str) -> Result<(), Option<lapin::Error>> {
        let key = ShortString::try_new(key).map_err(|_| None)?;
        let Target { queue, exchange, .. } = &self.target;
        let asked = self.channel.queue_unbind(queue.clone(), exchange.clone(), key, FieldTable::default());
        answered(asked).await
    }

    /// Whether the empty key is to be bound beside this pattern.
    fn means_empty_key(&self, pattern: &Pattern) -> bool {
        self.target.topic_of_empty_key.as_ref().is_some_and(|topic| pattern.needs_empty_key(topic))
    }

    fn note_empty_key(&mut self, pattern: &Pattern) {
        if self.means_empty_key(pattern) {
            self.empty_key.insert(pattern.clone());
        }
    }

    fn log_folding(&self, folding: &Folding) {
        let name = &self.feed.info().name;
        match folding {
            Folding::Begun { wanted, bindings_max, covers } => {
                let named = covers.iter().take(COVERS_NAMED_MAX).map(|cover| words::printable(cover.as_str()));
                let named: Vec<String> = named.collect();
                let more = if covers.len() > named.len() { " and others" } else { "" };
                tracing::warn!(
                    "source '{name}' folds its bindings: clients want {wanted} patterns and source.{name}.bindings_max \
                     leaves {bindings_max}, so {} covering patterns are bound in their place ('{}'{more}); RabbitMQ sends \
                     this node more than is wanted: raise source.{name}.bindings_max, or let clients subscribe to wider \
                     patterns",
                    covers.len(),
                    named.join("', '")
                );
            }
            Folding::Ended => tracing::info!("source '{name}' binds each pattern by itself again"),
        }
    }

    /// What the broker said, or that it says nothing.
    fn failure(&self, error: Option<lapin::Error>) -> Trouble {
        error.map_or_else(|| self.silent(), |error| self.trouble(&error))
    }

    fn trouble(&self, error: &lapin::Error) -> Trouble {
        words::of_exchange(error, self.target.exchange.as_str(), (&self.live.peer, &self.target.section))
    }

    fn silent(&self) -> Trouble {
        // Whoever does not answer for so long is dead: the link is to be made anew.
        self.live.life.kill.cancel();
        Trouble(format!("RabbitMQ at {} does not answer", self.live.peer.address))
    }
}

/// Waits for the broker's answer. `Err(None)`: there is none.
async fn answered(asked: impl Future<Output = lapin::Result<()>>) -> Result<(), Option<lapin::Error>> {
    match tokio::time::timeout(ANSWER_TIMEOUT, asked).await {
        Ok(answer) => answer.map_err(Some),
        Err(_) => Err(None),
    }
}

/// The patterns whose turn it is after the last one was; after the end it is the first ones' turn again.
fn in_turn(mut patterns: Vec<Pattern>, last: Option<&Pattern>) -> Vec<Pattern> {
    patterns.sort_unstable();
    let begin = patterns.partition_point(|pattern| last.is_some_and(|last| pattern <= last));
    let (before, after) = patterns.split_at(begin);
    after.iter().chain(before).take(BOUND_AGAIN_MAX).cloned().collect()
}

/// Waits until then; for ever when there is no such time.
pub(crate) async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_binding_is_made_again_before_any_is_twice() {
        for count in [0, 1, BOUND_AGAIN_MAX - 1, BOUND_AGAIN_MAX, BOUND_AGAIN_MAX + 1, 3 * BOUND_AGAIN_MAX + 7] {
            let all: Vec<Pattern> =
                (0..count).map(|number| Pattern::parse(&format!("a.{number:04}")).unwrap()).collect();
            let (mut seen, mut last) = (Vec::new(), None);
            while seen.len() < count {
                let some = in_turn(all.clone(), last.as_ref());
                assert_eq!(some.len(), count.min(BOUND_AGAIN_MAX));
                last = some.last().cloned();
                seen.extend(some);
            }
            assert_eq!(seen[..count], all);
        }
    }

    #[test]
    fn bindings_that_come_and_go_do_not_stop_the_round() {
        let patterns =
            |names: &[&str]| -> Vec<Pattern> { names.iter().map(|name| Pattern::parse(name).unwrap()).collect() };
        let gone = Pattern::parse("c").unwrap();
        assert_eq!(in_turn(patterns(&["a", "b", "d"]), Some(&gone)), patterns(&["d", "a", "b"]));
        assert_eq!(in_turn(patterns(&["a", "b"]), Some(&gone)), patterns(&["a", "b"]));
    }
}
