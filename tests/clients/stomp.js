// @stomp/stompjs, told what to do by JSON objects on its input and telling what happens by others: stomp.js URL [LOGIN PASSCODE]

import { createInterface } from "node:readline";

import { Client } from "@stomp/stompjs";
import WebSocket from "ws";

const [url, login, passcode] = process.argv.slice(2);
const print = (happening) => console.log(JSON.stringify(happening));
const subscriptions = new Map();
const messages = new Map();
const transactions = new Map();

const client = new Client({
  webSocketFactory: () => new WebSocket(url, ["v12.stomp", "v11.stomp", "v10.stomp"]),
  connectHeaders: login === undefined ? {} : { login, passcode },
  reconnectDelay: 0,
  heartbeatIncoming: 2000,
  heartbeatOutgoing: 2000,
  onConnect: (frame) => print({ connected: frame.headers }),
  onStompError: (frame) => print({ error: frame.headers, body: frame.body }),
  onWebSocketClose: (event) => print({ closed: event.code }),
  // Replies come for a subscription that the client has not made.
  onUnhandledMessage: (message) => show(message),
});

function show(message) {
  messages.set(message.headers["message-id"] + message.headers.subscription, message);
  print({ message: message.headers, body: message.body });
}

function watched(receipt) {
  if (receipt !== undefined) client.watchForReceipt(receipt, () => print({ receipt }));
  return receipt === undefined ? {} : { receipt };
}

function held({ message, subscription }) {
  return messages.get(message + subscription);
}

const orders = {
  subscribe: ({ destination, id, headers, receipt }) => {
    subscriptions.set(id, client.subscribe(destination, show, { id, ...headers, ...watched(receipt) }));
  },
  unsubscribe: ({ id, receipt }) => subscriptions.get(id).unsubscribe(watched(receipt)),
  send: ({ destination, body, headers, receipt, transaction }) => {
    const within = transaction === undefined ? {} : { transaction };
    client.publish({ destination, body, headers: { ...headers, ...within, ...watched(receipt) } });
  },
  ack: (order) => held(order).ack(watched(order.receipt)),
  nack: (order) => held(order).nack(watched(order.receipt)),
  begin: ({ transaction }) => transactions.set(transaction, client.begin(transaction)),
  commit: ({ transaction }) => transactions.get(transaction).commit(),
  abort: ({ transaction }) => transactions.get(transaction).abort(),
  leave: () => client.deactivate(),
};

createInterface({ input: process.stdin }).on("line", (line) => {
  const { order, ...rest } = JSON.parse(line);
  orders[order](rest);
});
client.activate();
