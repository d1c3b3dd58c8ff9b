// Publishes numbered messages at once and waits for all their confirms: publish.js TOPIC COUNT

import amqplib from "amqplib";

const [topic, count] = process.argv.slice(2);
const connection = await amqplib.connect(process.env.AMQP_URL);
const channel = await connection.createConfirmChannel();
for (let number = 0; number < Number(count); number++) {
  channel.publish("amq.topic", topic, Buffer.from(JSON.stringify({ from: "amqplib", number })));
}
await channel.waitForConfirms();
await connection.close();
