// A processor: consumes the raw events and publishes the average of the last ten of each kind.

import amqplib from "amqplib";

const url = process.env.AMQP_URL ?? "amqp://guest:guest@127.0.0.1:5672/%2f";
const connection = await amqplib.connect(url);
connection.on("close", () => process.exit(1)); // Whoever started it starts it again.
const channel = await connection.createChannel();
const recent = {};
const { queue } = await channel.assertQueue("", { exclusive: true });
await channel.bindQueue(queue, "amq.topic", "monitor.raw.*");
await channel.consume(queue, consume, { noAck: true });

function consume({ fields, content }) {
  const kind = fields.routingKey.split(".").at(-1);
  const { value, unit } = JSON.parse(content);
  recent[kind] = [...(recent[kind] ?? []), value].slice(-10);
  const average = recent[kind].reduce((total, one) => total + one, 0) / recent[kind].length;
  const event = { value: Number(average.toFixed(1)), unit };
  channel.publish("amq.topic", `monitor.average.${kind}`, Buffer.from(JSON.stringify(event)));
}
