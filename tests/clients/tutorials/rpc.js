// The sixth tutorial, a service that is asked for Fibonacci numbers: rpc.js receive QUEUE, rpc.js send QUEUE NUMBER

import { randomUUID } from "node:crypto";

import amqplib from "amqplib";

async function send(queue, number) {
  const correlationId = randomUUID();
  const { queue: replyTo } = await channel.assertQueue("", { exclusive: true });
  const heard = new Promise((resolve) => {
    const hear = (reply) => reply.properties.correlationId === correlationId && resolve(reply.content.toString());
    channel.consume(replyTo, hear, { noAck: true });
  });
  channel.sendToQueue(queue, Buffer.from(number), { correlationId, replyTo });
  console.log(await heard);
  await connection.close();
}

async function receive(queue) {
  await channel.assertQueue(queue, { durable: false });
  await channel.prefetch(1);
  await channel.consume(queue, answer);
  console.log("ready");
}

function answer(message) {
  const { replyTo, correlationId } = message.properties;
  const result = fibonacci(Number(message.content.toString()));
  channel.sendToQueue(replyTo, Buffer.from(String(result)), { correlationId });
  channel.ack(message);
}

function fibonacci(number) {
  return number < 2 ? number : fibonacci(number - 1) + fibonacci(number - 2);
}

const [side, queue, ...rest] = process.argv.slice(2);
const connection = await amqplib.connect(process.env.AMQP_URL);
const channel = await connection.createChannel();
await { send, receive }[side](queue, ...rest);
