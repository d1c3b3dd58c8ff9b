// A web service: raises an event for each request, and obeys the command that the page sends through the broker.

import { createServer } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";

import amqplib from "amqplib";

const URL = process.env.AMQP_URL ?? "amqp://guest:guest@127.0.0.1:5672/%2f";
const PORT = Number(process.env.SERVICE_PORT ?? 8090);
const COMMANDS = "monitor.service"; // the queue: a call to this topic arrives there

const connection = await amqplib.connect(URL);
connection.on("close", () => process.exit(1)); // Whoever started it starts it again.
const channel = await connection.createChannel();
let slowMs = 0;

const json = (value) => Buffer.from(JSON.stringify(value));

async function serve(request, response) {
  const began = performance.now();
  await sleep(5 + Math.random() * 20 + slowMs); // the work
  response.end(`hello from ${request.url}\n`);
  const value = Number((performance.now() - began).toFixed(1));
  const event = { value, unit: "ms", path: request.url, status: 200, by: "node" };
  channel.publish("amq.topic", "monitor.raw.request", json(event));
}

function command({ content, properties }) {
  let answer;
  try {
    const asked = Number(JSON.parse(content).slow_ms);
    if (Number.isNaN(asked)) throw new TypeError("no number");
    slowMs = Math.min(Math.max(asked, 0), 2000);
    answer = { slow_ms: slowMs, by: "node" };
  } catch {
    answer = { error: 'send {"slow_ms": NUMBER}' };
  }
  const { replyTo, correlationId } = properties;
  if (replyTo) channel.publish("", replyTo, json(answer), { correlationId });
}

await channel.assertQueue(COMMANDS, { autoDelete: true, durable: false });
await channel.consume(COMMANDS, command, { noAck: true });
createServer(serve).listen(PORT, "127.0.0.1");
