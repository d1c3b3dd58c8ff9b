// Prints what an exchange routes by a key, a JSON object a line: consume.js EXCHANGE KEY

import amqplib from "amqplib";

function show({ fields, properties, content }) {
  const seen = {
    key: fields.routingKey,
    body: content.toString(),
    content_type: properties.contentType,
    message_id: properties.messageId,
    headers: properties.headers,
  };
  console.log(JSON.stringify(seen));
}

const [exchange, key] = process.argv.slice(2);
const connection = await amqplib.connect(process.env.AMQP_URL);
const channel = await connection.createChannel();
const { queue } = await channel.assertQueue("", { exclusive: true });
await channel.bindQueue(queue, exchange, key);
await channel.consume(queue, show, { noAck: true });
console.log("ready");
