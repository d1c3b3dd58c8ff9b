//! What a client consumes without settling it, over real sockets.

use tokio::task::LocalSet;

use super::*;
use crate::config::Source;
use crate::model::delivery::{ConsumeNews, ConsumeOrder, Delivery, DeliveryTag};
use crate::protocol::mqtt;

/// `CONNECT` of 5.0, and `SUBSCRIBE` to what a group shares, at QoS 0.
const JOIN: [&[u8]; 4] = [&[0x10, 13, 0, 4], b"MQTT\x05\x02\0\0\0\0\0", &[0x82, 16, 0, 1, 0, 0, 10], b"$share/g/#\0"];

/// Several times what the kernel takes for a client with small buffers.
const MESSAGES: u64 = 16;
const BYTES: usize = 60_000;

/// Who does not read holds what it may hold and no more: the rest is the broker's.
#[tokio::test]
async fn what_nobody_acknowledges_is_settled_when_the_socket_has_taken_it() {
    let test = async {
        let mut bench = Bench::with(Settings { sources: vec![Source::events()], ..Settings::default() });
        bench.feed.link_up_bound(Instant::now());
        let (mut client, socket) = bench.connect(Some(STALLED_BUFFER_BYTES));
        let row = &mqtt::SUBPROTOCOLS[0];
        bench.driver.admit(bench.admission(row, socket));
        say(&mut client, 2, &JOIN.concat());
        let mut job = None;
        let consumes = |bench: &mut Bench| {
            job = bench.jobs.consumes.try_recv().ok();
            job.is_some()
        };
        bench.serve_jobs_until("its queue is consumed", consumes).await;
        let mut job = job.unwrap();
        job.news.send(ConsumeNews::Stands).await.unwrap();
        for number in 0..MESSAGES {
            let (tag, queue) = (DeliveryTag { link: 1, number }, job.request.asked.clone());
            let delivery = Box::new(Delivery { tag, queue, draft: draft("news", BYTES) });
            job.news.send(ConsumeNews::Delivered(delivery)).await.unwrap();
        }
        bench.serve_jobs_until("all is handed out", |bench| bench.connection().delivered == MESSAGES).await;
        bench.wait_until_full(&client);
        bench.serve_jobs().await;
        assert!(job.orders.try_recv().is_err(), "nothing is settled while it waits");
        client.set_nonblocking(true).unwrap();
        let (mut settled, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
        let all = |_: &mut Bench| {
            // There may be nothing at the moment.
            while client.read(&mut buffer).is_ok_and(|count| count > 0) {}
            while let Ok(ConsumeOrder::Settle(tag, _)) = job.orders.try_recv() {
                settled.push(tag.number);
            }
            settled.len() as u64 == MESSAGES
        };
        bench.serve_jobs_until("all is settled", all).await;
        assert!(settled.into_iter().eq(0..MESSAGES), "in order");
    };
    LocalSet::new().run_until(test).await;
}
