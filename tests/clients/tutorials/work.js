// The second tutorial, tasks for workers that acknowledge: work.js send QUEUE TASK…, work.js receive QUEUE
// A dot in a task is a second's work.

import { setTimeout as pause } from "node:timers/promises";

import amqplib from "amqplib";

async function send(queue, ...tasks) {
  for (const task of tasks) channel.sendToQueue(queue, Buffer.from(task), { persistent: true });
  await channel.close();
  await connection.close();
}

async function receive(queue) {
  await channel.prefetch(1);
  await channel.consume(queue, work, { noAck: false });
  console.log("ready");
}

async function work(message) {
  const task = message.content.toString();
  console.log(task);
  await pause(1000 * (task.split(".").length - 1));
  channel.ack(message);
}

const [side, queue, ...rest] = process.argv.slice(2);
const connection = await amqplib.connect(process.env.AMQP_URL);
const channel = await connection.createChannel();
await channel.assertQueue(queue, { durable: true });
await { send, receive }[side](queue, ...rest);
