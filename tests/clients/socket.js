// A bare WebSocket: prints every frame, and sends every line of its input as one: socket.js URL [SUBPROTOCOL]

import { createInterface } from "node:readline";

import WebSocket from "ws";

const [url, ...subprotocols] = process.argv.slice(2);
const socket = new WebSocket(url, subprotocols);
socket.on("message", (frame) => console.log(frame.toString()));
socket.on("open", () => createInterface({ input: process.stdin }).on("line", (line) => socket.send(line)));
