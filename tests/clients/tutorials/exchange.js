// The third to fifth tutorials, copies by way of an exchange that is fanout, direct or topic:
// exchange.js send EXCHANGE TYPE KEY BODY, exchange.js receive EXCHANGE TYPE KEY…; the key of a fanout is empty.

import amqplib from "amqplib";

async function send(exchange, key, body) {
  channel.publish(exchange, key, Buffer.from(body));
  await channel.close();
  await connection.close();
}

async function receive(exchange, ...keys) {
  const { queue } = await channel.assertQueue("", { exclusive: true });
  for (const key of keys) await channel.bindQueue(queue, exchange, key);
  await channel.consume(queue, show, { noAck: true });
  console.log("ready");
}

function show({ fields, content }) {
  console.log(`${fields.routingKey}:${content}`);
}

const [side, exchange, kind, ...rest] = process.argv.slice(2);
const connection = await amqplib.connect(process.env.AMQP_URL);
const channel = await connection.createChannel();
await channel.assertExchange(exchange, kind, { durable: false });
await { send, receive }[side](exchange, ...rest);
