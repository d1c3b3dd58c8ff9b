// Autobahn|JS, told what to do by JSON objects on its input and telling what happens by others: wamp.js URL SERIALIZER [TICKET]

import { createInterface } from "node:readline";

import autobahn from "autobahn";

const [url, name, ticket] = process.argv.slice(2);
const { JSONSerializer, MsgpackSerializer, CBORSerializer } = autobahn.serializer;
const serializers = { json: JSONSerializer, msgpack: MsgpackSerializer, cbor: CBORSerializer };
const subscriptions = new Map();
const registrations = new Map();
const calls = new Map();
const invocations = new Map();
let invoked = 0;

// Bytes, which JSON does not have, are shown in hexadecimal digits.
function shown(value) {
  if (value instanceof Uint8Array || value instanceof ArrayBuffer) return { bytes: Buffer.from(value).toString("hex") };
  if (Array.isArray(value)) return value.map(shown);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, entry]) => [key, shown(entry)]));
}

// The library shows its users only the details that it knows; whoever reads the messages before it sees all.
const serializer = new serializers[name]();
const { unserialize } = serializer;
const EVENT = 36;
let details;
serializer.unserialize = (payload) => {
  const message = unserialize.call(serializer, payload);
  if (message[0] === EVENT) details = message[3];
  return message;
};

const print = (happening) => console.log(JSON.stringify(happening));
const content = (args, kwargs) => ({ args: shown(args ?? []), kwargs: shown(kwargs ?? {}) });
const failed = (id) => (error) => print({ failed: id, error: error.error, ...content(error.args, error.kwargs) });

function result(value) {
  if (value instanceof autobahn.Result) return content(value.args, value.kwargs);
  return content(value === null ? [] : [value]);
}

const orders = {
  subscribe: ({ id, topic, options }, session) => {
    const show = (args, kwargs, { publication, topic }) =>
      print({ event: id, publication, topic, ...content(args, kwargs), details });
    session.subscribe(topic, show, options).then((subscription) => {
      subscriptions.set(id, subscription);
      print({ subscribed: id, subscription: subscription.id });
    }, failed(id));
  },
  unsubscribe: ({ id }) => subscriptions.get(id).unsubscribe().then(() => print({ unsubscribed: id }), failed(id)),
  publish: ({ id, topic, args, kwargs, options }, session) => {
    const published = session.publish(topic, args, kwargs, options);
    if (options?.acknowledge) published.then(({ id: publication }) => print({ published: id, publication }), failed(id));
  },
  call: ({ id, procedure, args, kwargs, options }, session) => {
    const call = session.call(procedure, args, kwargs, options);
    calls.set(id, call);
    call.then((value) => print({ result: id, ...result(value) }), failed(id));
  },
  // In its other modes the library takes the router's answer, which the specification demands, for a mistake.
  cancel: ({ id }) => calls.get(id).cancel({ mode: "kill" }),
  register: ({ id, procedure }, session) => {
    const answer = (args, kwargs) =>
      new Promise((resolve, reject) => {
        invoked += 1;
        invocations.set(invoked, { resolve, reject });
        print({ invocation: invoked, registration: id, ...content(args, kwargs) });
      });
    session.register(procedure, answer).then((registration) => {
      registrations.set(id, registration);
      print({ registered: id });
    }, failed(id));
  },
  unregister: ({ id }) => registrations.get(id).unregister().then(() => print({ unregistered: id }), failed(id)),
  yield: ({ invocation, args, kwargs }) => invocations.get(invocation).resolve(new autobahn.Result(args, kwargs)),
  fail: ({ invocation, error, args, kwargs }) =>
    invocations.get(invocation).reject(new autobahn.Error(error, args, kwargs)),
  leave: () => connection.close(),
};

const connection = new autobahn.Connection({
  transports: [{ type: "websocket", url, serializers: [serializer] }],
  realm: "realm1",
  max_retries: 0,
  ...(ticket === undefined ? {} : { authmethods: ["ticket"], authid: "anna", onchallenge: () => ticket }),
});
connection.onopen = (session, welcome) => {
  print({ joined: session.id, details: welcome });
  createInterface({ input: process.stdin }).on("line", (line) => {
    const { order, ...rest } = JSON.parse(line);
    orders[order](rest, session);
  });
};
connection.onclose = (why, { reason, message }) => {
  print({ closed: why, reason, message });
  process.exit(0);
};
connection.open();
