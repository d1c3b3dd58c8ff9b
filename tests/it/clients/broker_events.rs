//! What RabbitMQ tells of itself, with its plugin `rabbitmq_event_exchange`, as messages for pages.

use serde_json::json;

use super::script::Library;
use crate::program::Program;
use crate::rabbit::Rabbit;
use crate::whole::client::Client;
use crate::whole::word;

#[tokio::test(flavor = "multi_thread")]
async fn a_page_sees_a_queue_being_made() {
    let rabbit = Rabbit::with_plugins(&["rabbitmq_event_exchange"]);
    let source = [("PASSERELLE_SOURCE__RABBITMQ__EXCHANGE", "amq.rabbitmq.event")];
    let program = Program::start(Some(&rabbit.url()), &source);
    program.ready().await;
    let mut client = Client::json(&program).await;
    client.subscribe("queue.created").await;
    let queue = word();
    Library::Pika.finish("tutorials/hello", &program.amqp, &["send", &queue, "Hello!"]).await;
    // What else makes queues meanwhile, such as passerelle, is told as well.
    let event = loop {
        let event = client.news().await;
        if event["headers"]["name"] == queue {
            break event;
        }
    };
    assert_eq!((&event["op"], &event["source"]), (&json!("message"), &json!("rabbitmq")), "{event}");
    assert_eq!(event["topic"], "queue.created");
    let headers = &event["headers"];
    assert_eq!((&headers["name"], &headers["vhost"]), (&json!(queue), &json!("/")), "{event}");
    assert_eq!((&headers["durable"], &headers["exclusive"]), (&json!(false), &json!(false)), "{event}");
}
