//! One source's log: a ring of publications bounded by count, bytes and age, with an index by topic and with coverage.
//!
//! The log is also how shards get their live messages: each reads on from its own position with [`Log::tail`], so a shard
//! that lags needs no queue of its own and delays nobody. Pure: time comes in as an argument.
