// Answers every ping with a pong, a second later.

import amqplib from "amqplib";

const url = process.env.AMQP_URL ?? "amqp://guest:guest@127.0.0.1:5672/%2f";
const connection = await amqplib.connect(url);
connection.on("close", () => process.exit(1)); // Whoever started it starts it again.
const channel = await connection.createChannel();
const { queue } = await channel.assertQueue("", { exclusive: true });
await channel.bindQueue(queue, "amq.topic", "ping");

function pong() {
  channel.publish("amq.topic", "pong", Buffer.from("pong"));
}

function ping() {
  setTimeout(pong, 1000);
}

await channel.consume(queue, ping, { noAck: true });
