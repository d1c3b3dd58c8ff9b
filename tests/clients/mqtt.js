// MQTT.js, told what to do by JSON objects on its input and telling what happens by others: mqtt.js URL OPTIONS

import { createInterface } from "node:readline";

import mqtt from "mqtt";

const [url, options] = process.argv.slice(2);
const { version, client: clientId, user: username, password, receive, hold, expiry, ...rest } = JSON.parse(options);
const print = (happening) => console.log(JSON.stringify(happening));
const properties = version === 5 ? { receiveMaximum: receive, sessionExpiryInterval: expiry } : undefined;
const held = [];
const reasons = new Map();

const client = mqtt.connect(url, {
  protocolVersion: version,
  protocolId: version === 3 ? "MQIsdp" : "MQTT",
  clientId,
  username,
  password,
  properties,
  reconnectPeriod: 0,
  ...rest,
});

// A message is acknowledged when this has called back.
client.handleMessage = (packet, done) => {
  const { topic, qos, retain, dup, properties } = packet;
  print({ message: { topic, qos, retain, dup, ...told(properties) }, body: packet.payload.toString() });
  if (hold && qos > 0) held.push(done);
  else done();
};
client.on("connect", ({ reasonCode, returnCode, sessionPresent, properties }) =>
  print({ connected: { reason: reasonCode ?? returnCode, present: sessionPresent, ...properties } }),
);
// Its callback does not tell that nobody listens.
client.on("packetreceive", ({ cmd, messageId, reasonCode }) => cmd === "puback" && reasons.set(messageId, reasonCode));
client.on("disconnect", ({ reasonCode }) => print({ disconnected: reasonCode }));
client.on("error", ({ code, message }) => print({ error: code, message }));
client.on("close", () => print({ closed: true }));

function told(properties) {
  if (properties === undefined) return {};
  const { contentType, responseTopic, correlationData, subscriptionIdentifier, userProperties } = properties;
  const ids = [subscriptionIdentifier ?? []].flat();
  return { type: contentType, reply: responseTopic, correlation: correlationData?.toString(), ids, user: userProperties };
}

const orders = {
  subscribe: ({ filters, id }) => {
    const wanted = Object.fromEntries(filters.map(({ filter, ...how }) => [filter, { qos: 0, ...how }]));
    const properties = id === undefined ? undefined : { subscriptionIdentifier: id };
    client.subscribe(wanted, { properties }, (error, granted, packet) =>
      print({ subscribed: packet?.granted ?? granted?.map(({ qos }) => qos), error: error?.message }),
    );
  },
  unsubscribe: ({ filters }) =>
    client.unsubscribe(filters, (error, packet) => print({ unsubscribed: packet?.granted ?? [], error: error?.message })),
  publish: ({ topic, body, qos, retain, properties }) =>
    client.publish(topic, body, { qos, retain, properties: upward(properties) }, (error, packet) =>
      print({ published: error?.code ?? reasons.get(packet?.messageId) ?? 0 }),
    ),
  acknowledge: () => held.splice(0).forEach((done) => done()),
  leave: () => client.end(),
  break: () => client.stream.destroy(),
};

function upward(properties) {
  if (properties === undefined || version < 5) return undefined;
  const { type, reply, correlation, user } = properties;
  return {
    contentType: type,
    responseTopic: reply,
    correlationData: correlation === undefined ? undefined : Buffer.from(correlation),
    userProperties: user,
  };
}

createInterface({ input: process.stdin }).on("line", (line) => {
  const { order, ...rest } = JSON.parse(line);
  orders[order](rest);
});
