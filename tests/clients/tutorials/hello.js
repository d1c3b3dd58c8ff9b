// The first tutorial, a message by way of a named queue: hello.js send QUEUE BODY, hello.js receive QUEUE

import amqplib from "amqplib";

async function send(queue, body) {
  channel.sendToQueue(queue, Buffer.from(body));
  await channel.close();
  await connection.close();
}

async function receive(queue) {
  await channel.consume(queue, ({ content }) => console.log(content.toString()), { noAck: true });
  console.log("ready");
}

const [side, queue, ...rest] = process.argv.slice(2);
const connection = await amqplib.connect(process.env.AMQP_URL);
const channel = await connection.createChannel();
await channel.assertQueue(queue, { durable: false });
await { send, receive }[side](queue, ...rest);
