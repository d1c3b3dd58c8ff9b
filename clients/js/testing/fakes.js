// A WebSocket and a clock that do only what a test tells them.

import { connect } from "../passerelle.js";

/** A clock that stands still until a test moves it. */
export class FakeClock {
  time = 0;
  /** Draws the middle, so that jitter is the same in every run. */
  random = () => 0.5;
  #timers = new Set();

  now = () => this.time;

  after = (ms, run) => {
    const timer = { at: this.time + ms, run };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  };

  /** When each timer would run, from now. */
  get pending() {
    return [...this.#timers].map((timer) => timer.at - this.time).sort((one, other) => one - other);
  }

  /** Moves on, running what falls due in order. */
  async advance(ms) {
    const end = this.time + ms;
    for (;;) {
      const due = [...this.#timers].filter((timer) => timer.at <= end).sort((one, other) => one.at - other.at)[0];
      if (!due) break;
      this.time = Math.max(this.time, due.at);
      await this.#run(due);
    }
    this.time = end;
  }

  /** Jumps, as for a page that slept: every timer that fell due meanwhile runs now, late. */
  async sleep(ms) {
    this.time += ms;
    const late = [...this.#timers].filter((timer) => timer.at <= this.time);
    for (const timer of late) await this.#run(timer);
  }

  async #run(timer) {
    this.#timers.delete(timer);
    timer.run();
    await settled();
  }
}

/** Lets everything run that only waits for its turn. */
export const settled = () => new Promise((resolve) => setImmediate(resolve));

/** A server's side of one socket. */
export class FakeSocket {
  sent = [];
  closedWith = null;

  constructor(url, protocols) {
    Object.assign(this, { url, protocols });
  }

  send(text) {
    this.sent.push(JSON.parse(text));
  }

  close(code) {
    this.closedWith = code;
  }

  /** The server says something. */
  says(...frames) {
    for (const frame of frames) this.onmessage?.({ data: typeof frame === "string" ? frame : JSON.stringify(frame) });
  }

  /** The line ends. */
  ends(code, reason = "") {
    this.onclose?.({ code, reason });
  }

  /** It could not connect. */
  fails(message) {
    this.onerror?.({ message });
  }

  /** What the client sent with this op, newest last. */
  of(op) {
    return this.sent.filter((frame) => frame.op === op);
  }
}

export const WELCOME = {
  op: "welcome",
  connection: "c1",
  server: "test",
  heartbeat_ms: 25_000,
  max_message_bytes: 1_000_000,
};

/** A client on fakes: `line.socket` is its newest socket. */
export async function fakeLine(options = {}) {
  const clock = new FakeClock();
  const line = { clock, sockets: [], events: [] };
  class Socket extends FakeSocket {
    constructor(url, protocols) {
      super(url, protocols);
      line.sockets.push(this);
    }
  }
  Object.defineProperty(line, "socket", { get: () => line.sockets.at(-1) });
  line.client = connect("ws://server/ws", { clock, WebSocket: Socket, ...options });
  const session = ["open", "close", "state", "gap", "outage", "restored", "position", "revoked", "error"];
  for (const event of [...session, "join", "leave", "presence"]) {
    line.client.on(event, (detail) => line.events.push([event, detail]));
  }
  line.of = (event) => line.events.filter(([name]) => name === event).map(([, detail]) => detail);
  await settled();
  return line;
}

/** Completes the opening of the newest socket. */
export async function welcomed(line, welcome = WELCOME) {
  line.socket.onopen?.();
  line.socket.says({ ...welcome, id: line.socket.of("connect").at(-1).id });
  await settled();
  return line.socket;
}

/** A client that is already open. */
export async function openLine(options = {}) {
  const line = await fakeLine(options);
  await welcomed(line);
  return line;
}

/** A message of the source `events`, its cursor made of its number. */
export const message = (number, topic, rest = {}) => ({
  op: "message",
  source: "events",
  topic,
  cursor: `c${number}`,
  data: number,
  timestamp_ms: number,
  ...rest,
});

/** One of a replay. */
export const replayed = (number, topic, rest = {}) => message(number, topic, { replay: true, ...rest });

/** Subscribes and collects the numbers of what comes. */
export function collect(line, pattern, options = {}) {
  const got = [];
  const subscription = line.client.subscribe(pattern, { ...options, onmessage: ({ data }) => got.push(data) });
  return { subscription, got };
}

/** The server answers the newest subscribe of this pattern. */
export function subscribed(line, pattern, number = 0, rest = {}) {
  const { id } = line.socket.of("subscribe").findLast((frame) => frame.pattern === pattern);
  line.socket.says({ op: "subscribed", id, pattern, cursors: { events: `c${number}` }, resumed: false, ...rest });
  return id;
}

/** The server says that a replay has ended, and where. */
export const caughtUp = (id, number) => ({ op: "caught_up", id, cursors: { events: `c${number}` } });

/** The line breaks and comes back. */
export async function reconnect(line) {
  line.socket.ends(1006);
  await line.clock.advance(60_000);
  await welcomed(line);
}
