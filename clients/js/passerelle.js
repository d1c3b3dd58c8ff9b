// @ts-check
// The passerelle client: one ES module without dependencies, for browsers and Node.js.
//
// It speaks the subprotocol `passerelle.v1.json` over one WebSocket, comes back after a lost line and goes on
// where it was. It must not know AMQP, the page it runs in, or what a cursor looks like inside.

const SUBPROTOCOL = "passerelle.v1.json";
/** How many delivered messages a subscription remembers, so as not to deliver them twice. */
const REMEMBERED_MAX = 10_000;
/** How many live messages wait for the end of a subscription's replay. */
const HELD_MAX = 10_000;
/** How many messages wait for a reader of the async iterator. */
const UNREAD_MAX = 10_000;
/** How many requests wait for the line to open. */
const WAITING_MAX = 1_000;
/** A line that stood for this long counts as good: the backoff starts anew after it. */
const GOOD_LINE_MS = 10_000;
/** How long the server has to say `welcome`. */
const WELCOME_MS = 20_000;
/** How long a line that is in doubt has to show a sign of life. */
const PROBE_MS = 5_000;

/**
 * @typedef {Record<string, string>} CursorsBySource The newest cursor of each source, by the source's name.
 * @typedef {{source: string, topic: string, cursor: string, data: any, timestamp_ms: number, content_type?: string,
 *   headers?: Record<string, any>, message_id?: string, redelivered?: boolean, replay?: boolean}} Message
 *   `data` is the JSON value, a string for other text, a `Uint8Array` for other bytes.
 * @typedef {{pattern?: string, topic?: string, source: string | null, missed: number | null, reason: string}} Gap
 * @typedef {Record<string, string | number | boolean | null>} Filter Headers and the values that they must have, as
 *   messages show them: all of them, or with `"x-match": "any"` at least one.
 * @typedef {{after?: CursorsBySource, last?: number, source?: string, on_slow?: "catch-up" | "latest" | "drop-oldest",
 *   max_rate?: number, filter?: Filter, onmessage?: (message: Message) => void,
 *   ongap?: (gap: Gap) => void, onpresence?: (roster: Roster) => void,
 *   onjoin?: (move: Move) => void, onleave?: (move: Move) => void}} SubscribeOptions
 *   With `onpresence` it is asked who is there, as soon as the subscription stands and after each lost line.
 * @typedef {{user: string | null, connection: string}} Member
 * @typedef {{pattern: string, count: number, members?: Member[]}} Roster `members` is left out where they are too many.
 * @typedef {Member & {topic: string}} Move Who came or went; `topic` is the pattern.
 * @typedef {{headers?: Record<string, any>, message_id?: string, content_type?: string, mandatory?: boolean,
 *   echo?: boolean}} PublishOptions
 * @typedef {Message & {delivery_tag: string, readonly held: boolean, ack: () => Promise<void>,
 *   nack: (options?: {requeue?: boolean}) => Promise<void>}} Delivery
 *   A message of a queue. `held` is true until it is settled, or revoked: then somebody else gets it.
 * @typedef {{prefetch?: number, onmessage?: (delivery: Delivery) => void,
 *   onrevoked?: (delivery: Delivery) => void}} ConsumeOptions
 * @typedef {{id: number, text: string, resolve: (reply: any) => void, reject: (error: Error) => void}} Request
 *   What has an id and is answered once. Its `text` is written when it is asked for and sent when there is a line.
 * @typedef {"connecting" | "open" | "waiting" | "closed"} State
 * @typedef {"none" | "since" | "last"} Replay Which older messages come: those since a place, or the last ones.
 * @typedef {{now: () => number, after: (ms: number, run: () => void) => () => void, random: () => number}} Clock
 * @typedef {{token?: string | ((last: {rejected: boolean}) => string | undefined | Promise<string | undefined>),
 *   client?: string, WebSocket?: any, backoff_min_ms?: number, backoff_max_ms?: number, later_ms?: number,
 *   wait_ms?: number, clock?: Clock}} Options
 */

/** An error with one of the codes of the protocol, such as `unroutable`, `forbidden` or `unavailable`. */
export class PasserelleError extends Error {
  /** @param {string} code @param {string} message */
  constructor(code, message) {
    super(message);
    this.name = "PasserelleError";
    this.code = code;
  }
}

/**
 * Opens a line that stays: it reconnects by itself until `close()` or an ending that forbids it.
 * @param {string | URL | Options} [url] By default `ws` beside the place this module was loaded from.
 * @param {Options} [options]
 * @returns {Client}
 */
export function connect(url, options) {
  if (url !== undefined && typeof url !== "string" && !(url instanceof URL)) return new Client(beside(), url);
  return new Client(url === undefined ? beside() : socketUrl(url), options ?? {});
}

/** Where this module came from is where the server is, path prefix included. */
const beside = () => socketUrl(new URL("ws", import.meta.url));

/** @param {string | URL} url @returns {string} */
function socketUrl(url) {
  const absolute = new URL(url, /** @type {any} */ (globalThis).location?.href);
  absolute.protocol = absolute.protocol.replace(/^http/, "ws");
  if (!/^wss?:$/.test(absolute.protocol)) throw new TypeError(`connect needs a ws: or http: URL (you gave ${url})`);
  return absolute.href;
}

/**
 * Whether to come back after a close code: the table of the protocol. Codes it does not name are lost lines.
 * @param {number} code
 * @returns {"no" | "yes" | "later" | "token"}
 */
export function comeBack(code) {
  if ([1000, 1002, 1003, 1007, 1008, 1009, 4403, 4409].includes(code)) return "no";
  if (code === 1013 || code === 4429) return "later";
  return code === 4401 ? "token" : "yes";
}

/** The words of a topic or pattern; the empty text has none. @param {string} text */
const words = (text) => (text === "" ? [] : text.split("."));

/**
 * The canonical form in which the server names a pattern: in a run of wildcards `*` first, then at most one `#`.
 * @param {string} pattern
 */
export function canonical(pattern) {
  /** @type {string[]} */
  const out = [];
  let hash = false;
  for (const word of words(pattern)) {
    if (word === "#") {
      hash = true;
      continue;
    }
    if (hash && word !== "*") {
      out.push("#");
      hash = false;
    }
    out.push(word);
  }
  if (hash) out.push("#");
  return out.join(".");
}

/**
 * Whether a topic matches a pattern, as RabbitMQ's topic exchange decides it. Never takes more steps than there
 * are words in the one times words in the other.
 * @param {string} pattern @param {string} topic
 */
export function matches(pattern, topic) {
  if (pattern === "#" || (pattern === topic && !/[*#]/.test(pattern))) return true;
  const names = words(topic);
  // `reachable[i]`: the pattern's words so far can stand for exactly the first `i` words of the topic.
  let reachable = [true, ...names.map(() => false)];
  for (const word of words(pattern)) {
    if (word === "#") {
      const first = reachable.indexOf(true);
      reachable = reachable.map((_, position) => first >= 0 && position >= first);
    } else {
      reachable = reachable.map(
        (_, position) => position > 0 && reachable[position - 1] && (word === "*" || word === names[position - 1]),
      );
    }
  }
  return reachable[names.length];
}

/**
 * Whether there is a topic that matches both of two patterns.
 * @param {string} one @param {string} other
 */
export function meet(one, other) {
  const others = words(other);
  // `reachable[i]`: the words of the one so far can stand for the same as the first `i` of the other.
  let reachable = [true];
  others.forEach((word, place) => reachable.push(word === "#" && reachable[place]));
  for (const word of words(one)) {
    const row = [word === "#" && reachable[0]];
    others.forEach((name, place) => {
      const some = (word === "#" || name === "#") && (row[place] || reachable[place + 1]);
      row.push(some || (reachable[place] && (word === name || word === "*" || name === "*")));
    });
    reachable = row;
  }
  return reachable[others.length];
}

/**
 * Whether a filter lets a message in, as the server decides it: what one subscription filters out another one of the
 * same client may bring.
 * @param {Filter | null} filter @param {{headers?: Record<string, any>}} message
 */
export function letsIn(filter, { headers = {} }) {
  const { "x-match": match, ...fields } = filter ?? {};
  const agrees = (/** @type {[string, any]} */ [name, value]) => Object.hasOwn(headers, name) && headers[name] === value;
  const wanted = Object.entries(fields);
  return match === "any" ? wanted.some(agrees) : wanted.every(agrees);
}

/** The newest of some messages, by what names them. */
class Memory {
  /** @type {Set<string>} */ #keys = new Set();

  /** @param {Message} message */
  has(message) {
    return this.#keys.has(identity(message));
  }

  /** Whether it was not there. @param {Message} message */
  add(message) {
    if (this.has(message)) return false;
    this.#put(identity(message));
    return true;
  }

  /** Takes over all that another one has, which is empty then. @param {Memory} other */
  take(other) {
    for (const key of other.#keys) this.#put(key);
    other.clear();
  }

  clear() {
    this.#keys.clear();
  }

  /** @param {string} key */
  #put(key) {
    this.#keys.add(key);
    if (this.#keys.size > REMEMBERED_MAX) this.#keys.delete(this.#keys.values().next().value ?? "");
  }
}

/** What `last` brings: so many of each topic, before anything that was published since. */
class History {
  /** How many of each topic came, once it is on its way. @type {Map<string, number> | null} */ #came = null;
  #each;

  /** @param {number} each */
  constructor(each) {
    this.#each = each;
  }

  /** It is asked for: nothing of it has come. */
  ask() {
    this.#came = null;
  }

  /** From here on it comes. */
  begin() {
    this.#came = new Map();
  }

  /** Whether a replayed message can be of it: with one more of a topic it is over. @param {Message} message */
  takes({ source, topic }) {
    if (!this.#came) return true;
    const key = `${source} ${topic}`;
    const came = (this.#came.get(key) ?? 0) + 1;
    this.#came.set(key, came);
    return came <= this.#each && this.#came.size <= REMEMBERED_MAX;
  }
}

/**
 * What one subscription has seen, and so where it goes on after a lost line.
 *
 * Live messages move every subscription that is caught up, whether they match it or not: a session gets each
 * source's messages in order, so all that matched before has come. They must not move one that still replays,
 * because older messages are on their way to it: for these they wait. What comes early even so is remembered. With
 * `max_rate` nothing waits, because such a replay may never end. There subscriptions run ahead of each other, and a message
 * moves those only by which it comes; the others remember it.
 *
 * What is shared with one that has a rate is remembered even so: the replay of that one may bring it again.
 *
 * What `last` brings is older than where the subscription began, so no place tells how much of it has come. Where the
 * line is lost meanwhile, what was published since is asked for first, and then `last` again, for the rest.
 */
class Progress {
  /**
   * @param {SubscribeOptions} options Where to start; how many of each topic to bring first where there is no such place;
   *   the rate.
   */
  constructor({ after = {}, last, max_rate }) {
    /** Everything that was published since then has come or will. @type {CursorsBySource} */
    this.saved = { ...after };
    /** What was delivered although `saved` does not cover it. */
    this.ahead = new Memory();
    /** What was delivered, is covered, and may come again. */
    this.behind = new Memory();
    /**
     * What is live and waits for the end of the replay, by what names it; over lost lines too, for who brings it live says
     * nothing of whether `saved` covers it. @type {Map<string, Message>}
     */
    this.held = new Map();
    /** How much of that there may be. A replay at a rate may never end, so nothing waits for it. */
    this.held_max = max_rate ? 0 : HELD_MAX;
    /** What of `last` is still to come, or may be. @type {History | null} */
    this.history = last && !this.resumes ? new History(last) : null;
    /** Which older messages are still to come: from before the subscribe is sent until `caught_up`. @type {Replay} */
    this.replay = "none";
    /** Whether it was ever where the session stood: then what it replays since then is no older history. */
    this.stood = false;
    this.begin();
  }

  /** Whether there is a place to go on from. */
  get resumes() {
    return Object.keys(this.saved).length > 0;
  }

  /** Whether older messages are still to come. */
  get replaying() {
    return this.replay !== "none";
  }

  /** Whether what it replays is new to all who listened. */
  get replaysNews() {
    return this.stood && this.replay !== "last";
  }

  /** Starts over: by default as on a new line. @param {Replay} replay */
  begin(replay = this.resumes ? "since" : this.history ? "last" : "none") {
    this.replay = replay;
    if (replay === "last") this.history?.ask();
  }

  /** Takes over where everything that comes from now on begins. @param {CursorsBySource} cursors @param {boolean} shares */
  subscribed(cursors, shares) {
    if (this.replay !== "last") return this.stand(cursors, shares);
    Object.assign(this.saved, cursors);
    this.stood = true;
    this.history?.begin();
  }

  /**
   * Takes over where the session stands.
   * @param {CursorsBySource} cursors @param {boolean} shares Whether any subscription has a rate.
   */
  stand(cursors, shares) {
    if (this.replaying) return;
    Object.assign(this.saved, cursors);
    this.stood = true;
    if (shares || this.history) this.behind.take(this.ahead);
    else this.ahead.clear();
  }

  /** Takes over where the replay ended; what is to be delivered now. @param {CursorsBySource} cursors @param {boolean} shares */
  caughtUp(cursors, shares) {
    const held = this.release();
    if (this.replay === "last") this.history = null;
    this.replay = "none";
    this.stand(cursors, shares);
    return held;
  }

  /** What waits no longer. @returns {Message[]} */
  release() {
    const held = [...this.held.values()];
    this.held.clear();
    for (const message of held) this.ahead.add(message);
    return held;
  }

  /**
   * What to deliver as a live message comes: that one if it matches and is new, or, where many are held, one before it.
   * @param {Message} message @param {boolean} matching
   * @param {{moves: boolean, shared: boolean}} how Whether everything before it has come; whether one with a rate is
   *   about it too.
   */
  live(message, matching, { moves, shared }) {
    if (this.replaying) return matching ? this.#hold(message) : null;
    if (!moves) return matching && this.#early(message) ? message : null;
    const fresh = this.saved[message.source] !== message.cursor;
    this.saved[message.source] = message.cursor;
    const remembers = shared || this.history;
    const isNew = () => (remembers ? !this.ahead.has(message) && this.behind.add(message) : fresh);
    return matching && isNew() ? message : null;
  }

  /** Hears a replayed message that is for nobody else. @param {Message} message */
  own(message) {
    if (this.replay !== "last" || this.history?.takes(message)) return;
    this.history = null;
    this.replay = "since";
  }

  /**
   * Whether to deliver a message of a replay that matches. When several replay at once, or this one does not, it may
   * belong to another, so it is remembered and moves nothing: at worst it comes again and is dropped here.
   * @param {Message} message
   * @param {{alone: boolean, shared: boolean}} how Whether it is this one's if it replays; `shared` as above.
   */
  replayed(message, { alone, shared }) {
    this.held.delete(identity(message));
    if (this.replay !== "since" || !alone) return this.#early(message);
    this.saved[message.source] = message.cursor;
    const remembers = shared || this.history;
    return !this.ahead.has(message) && (remembers ? this.behind.add(message) : !this.behind.has(message));
  }

  /** Keeps a live message until older ones have come; gives the one that is to wait no longer. @param {Message} message */
  #hold(message) {
    if (!this.behind.has(message) && !this.ahead.has(message)) this.held.set(identity(message), message);
    if (this.held.size <= this.held_max) return null;
    const [[key, first]] = this.held;
    this.held.delete(key);
    this.ahead.add(first);
    return first;
  }

  /** @param {Message} message */
  #early(message) {
    return !this.behind.has(message) && this.ahead.add(message);
  }
}

/** @param {Message} message */
const identity = (message) => `${message.source} ${message.cursor}`;

/**
 * One pattern that is listened to: by `onmessage`, or by `for await (const message of subscription)`.
 * @implements {AsyncIterable<Message>}
 */
export class Subscription {
  /** Not on the wire, asked for, answered by `subscribed`. @type {"idle" | "asked" | "standing"} */ _stage = "idle";
  /** The id of the subscribe on the wire. @type {number | null} */ _id = null;
  /** @type {Message[]} */ #unread = [];
  /** @type {{resolve: (result: IteratorResult<Message>) => void, reject: (error: Error) => void}[]} */ #readers = [];
  /** @type {{error: Error | null} | null} */ #ended = null;

  /** @param {Client} client @param {string} pattern @param {SubscribeOptions} options */
  constructor(client, pattern, options) {
    this.client = client;
    this.pattern = canonical(pattern);
    this.options = options;
    /** The filter as the server reads it. @type {Filter | null} */
    this._filter = JSON.parse(JSON.stringify(options.filter ?? null));
    this._progress = new Progress(options);
    this._resolve = (/** @type {{resumed: boolean}} */ _) => {};
    this._reject = (/** @type {Error} */ _) => {};
    /**
     * Resolves once every matching message published from then on will come; `resumed` says whether it is certain
     * that nothing after `after` was missed. Rejects when the server refuses.
     * @type {Promise<{resumed: boolean}>}
     */
    this.ready = new Promise((resolve, reject) => {
      this._resolve = resolve;
      this._reject = reject;
    });
    this.ready.catch(() => {}); // The refusal is an event of the client too; nobody has to await this.
  }

  /**
   * The newest cursor of each source: keep it to go on there after a reload, with `after`. Empty until all that `last`
   * brings has come.
   * @returns {CursorsBySource}
   */
  get cursors() {
    return this._progress.history ? {} : { ...this._progress.saved };
  }

  unsubscribe() {
    this.client._leave(this);
  }

  /** @returns {AsyncIterator<Message>} */
  [Symbol.asyncIterator]() {
    return {
      next: () => this.#next(),
      return: async () => {
        this.unsubscribe();
        return { done: true, value: undefined };
      },
    };
  }

  /** @returns {Promise<IteratorResult<Message>>} */
  async #next() {
    const message = this.#unread.shift();
    if (message) return { done: false, value: message };
    if (this.#ended?.error) throw this.#ended.error;
    if (this.#ended) return { done: true, value: undefined };
    return new Promise((resolve, reject) => this.#readers.push({ resolve, reject }));
  }

  /** Whether it is to be asked for, with which replay. The rest of `last` is asked for once the subscription stands. */
  get _due() {
    const { replay, history } = this._progress;
    if (this._stage === "idle") return replay;
    return this._stage === "standing" && history && replay !== "last" ? "last" : undefined;
  }

  /** @param {Message} message */
  _deliver(message) {
    if (this.#ended) return;
    if (this.options.onmessage) return guarded(this.options.onmessage, message);
    const reader = this.#readers.shift();
    if (reader) return reader.resolve({ done: false, value: message });
    this.#unread.push(message);
    if (this.#unread.length <= UNREAD_MAX) return;
    const missed = this.#unread.splice(0, UNREAD_MAX / 2).length;
    this.client._gap({ pattern: this.pattern, source: null, missed, reason: "slow" }, this);
  }

  /** @param {PasserelleError | null} error */
  _end(error) {
    // What waited for older messages waits in vain, but it has come.
    if (error) for (const message of this._progress.release()) this._deliver(message);
    this.#ended ??= { error };
    this._reject(error ?? new PasserelleError("closed", `'${this.pattern}' was unsubscribed`));
    for (const reader of this.#readers.splice(0)) {
      if (error) reader.reject(error);
      else reader.resolve({ done: true, value: undefined });
    }
  }
}

/** One queue that is consumed: its messages are this client's alone until they are settled. */
export class Consumption {
  /** Not on the wire, asked for, answered by `ok`. @type {"idle" | "asked" | "standing"} */ _stage = "idle";
  /** The id of the consume on the wire. @type {number | null} */ _id = null;
  /** Whether it was consumed before. */ _hasStood = false;

  /** @param {Client} client @param {string} queue @param {ConsumeOptions} options */
  constructor(client, queue, options) {
    this.client = client;
    this.queue = queue;
    this.options = options;
    this._resolve = () => {};
    this._reject = (/** @type {Error} */ _) => {};
    /** Resolves once the queue is consumed. Rejects when the server refuses. @type {Promise<void>} */
    this.ready = new Promise((resolve, reject) => {
      this._resolve = resolve;
      this._reject = reject;
    });
    this.ready.catch(() => {}); // The refusal is an event of the client too; nobody has to await this.
  }

  /** Takes no more. What is held can still be settled. */
  cancel() {
    this.client._cancel(this);
  }
}

/** Runs what the page gave us; its faults, late ones too, are the page's and must not break the line. */
function guarded(/** @type {(argument: any) => any} */ run, /** @type {any} */ argument) {
  const report = (/** @type {any} */ error) => (globalThis.reportError ?? console.error)(error);
  try {
    const result = run(argument);
    if (typeof result?.then === "function") result.then(undefined, report);
  } catch (error) {
    report(error);
  }
}

/** What hears an error that is told otherwise. Some sockets throw one that nobody listens to. */
const quiet = () => {};

/** @type {Clock} */
const WALL_CLOCK = {
  now: () => performance.now(),
  after: (ms, run) => {
    const timer = setTimeout(run, ms);
    return () => clearTimeout(timer);
  },
  random: Math.random,
};

/** A line to passerelle, with its subscriptions. Made by {@link connect}. */
export class Client {
  /** @type {State} */ state = "connecting";
  /** What the server said last: `connection`, `heartbeat_ms`, `user` and so on. @type {Record<string, any> | null} */ welcome =
    null;

  #url;
  #options;
  #clock;
  #socket = /** @type {any} */ (null);
  #attempt = 0;
  /** Times that something was refused for the moment on this line. */ #retries = 0;
  /** Whether what was refused is to be asked for again. */ #pumps = false;
  #openedAt = 0;
  #heardAt = 0;
  #nextId = 1;
  /** The id of the `connect` whose `welcome` opens the line. */
  #connectId = 0;
  #token = /** @type {string | undefined} */ (undefined);
  #goodbyeMs = /** @type {number | null} */ (null);
  /** Whether the present wait may be cut short: only when nobody asked us to wait. */
  #hasty = false;
  /** The one timer of the line's life: to come back, for the welcome, or the watchdog. */
  #cancelTimer = () => {};
  #cancelPump = () => {};
  /** Sent and not answered yet. @type {Map<number, Pick<Request, "resolve" | "reject">>} */ #requests = new Map();
  /** For the line, in order, each with what ends its time. @type {Map<Request, () => void>} */ #waiting = new Map();
  /** @type {Map<string, Subscription>} */ #subscriptions = new Map();
  /** Unsubscribed while they replayed, and not answered yet: till then their messages come. @type {Set<Subscription>} */
  #leaving = new Set();
  /** @type {Map<string, Consumption>} */ #consumptions = new Map();
  /** What this session holds, by tag. @type {Map<string, {delivery: Delivery, consumption: Consumption}>} */ #held =
    new Map();
  /** @type {Map<string, Set<(detail: any) => void>>} */ #listeners = new Map();
  #wake = () => this.#woken();

  /** @param {string} url @param {Options} options */
  constructor(url, options) {
    this.#url = url;
    this.#options = { backoff_min_ms: 250, backoff_max_ms: 30_000, later_ms: 30_000, wait_ms: 10_000, ...options };
    this.#clock = options.clock ?? WALL_CLOCK;
    globalThis.addEventListener?.("online", this.#wake);
    /** @type {any} */ (globalThis).document?.addEventListener("visibilitychange", this.#wake);
    // A turn later, so that whoever called connect() can listen first.
    queueMicrotask(() => this.#dial(false));
  }

  /**
   * Listens to `open` (the welcome), `close` ({code, reason, reconnect_in_ms}; null is for good), `state` ({state}),
   * `gap`, `outage` and `restored` ({source}), `position` ({cursors}), `revoked` (the delivery), `join` and `leave` (a
   * `Move`), `presence` (a `Roster` that was not asked for), `error`. Returns what ends the listening.
   * @param {"open" | "close" | "state" | "gap" | "outage" | "restored" | "position" | "revoked" | "join" | "leave" |
   *   "presence" | "error"} event
   * @param {(detail: any) => void} listener
   */
  on(event, listener) {
    const listeners = this.#listeners.get(event) ?? new Set();
    this.#listeners.set(event, listeners.add(listener));
    return () => void listeners.delete(listener);
  }

  /**
   * @param {string} pattern A topic, or a pattern with `*` (one word) and `#` (any number of words).
   * @param {SubscribeOptions | ((message: Message) => void)} [options] Or just the function that takes the messages.
   * @returns {Subscription}
   */
  subscribe(pattern, options = {}) {
    if (typeof pattern !== "string") throw new TypeError(`subscribe needs a pattern (you gave ${pattern})`);
    const settled = typeof options === "function" ? { onmessage: options } : options;
    const subscription = new Subscription(this, pattern, settled);
    if (this.state === "closed") throw new PasserelleError("closed", "this client is closed: connect() again");
    if (this.#subscriptions.has(subscription.pattern)) {
      throw new PasserelleError("duplicate", `already subscribed to '${subscription.pattern}': unsubscribe it first`);
    }
    this.#subscriptions.set(subscription.pattern, subscription);
    this.#pump();
    return subscription;
  }

  /** Ends the subscription on this pattern, if there is one. @param {string} pattern */
  unsubscribe(pattern) {
    const subscription = this.#subscriptions.get(canonical(pattern));
    if (subscription) this._leave(subscription);
  }

  /** Ends this one, not another that came after it. @param {Subscription} subscription */
  _leave(subscription) {
    if (this.#subscriptions.get(subscription.pattern) !== subscription) return;
    this.#subscriptions.delete(subscription.pattern);
    if (this.#isOpen && subscription._stage !== "idle") {
      if (subscription._progress.replaying) this.#leaving.add(subscription);
      const left = () => void this.#leaving.delete(subscription);
      this.#request({ op: "unsubscribe", pattern: subscription.pattern }).then(left, left);
    }
    subscription._end(null);
    this.#pump();
  }

  /**
   * Takes messages of a queue, each to be settled with its `ack()` or `nack()`: at most `prefetch` at a time, one unless
   * it says otherwise. After a lost line it goes on by itself; what was held is revoked and comes again to somebody.
   * @param {string} queue
   * @param {ConsumeOptions} [options]
   * @param {(delivery: Delivery) => void} [onmessage]
   * @returns {Consumption}
   */
  consume(queue, options = {}, onmessage = options.onmessage) {
    if (typeof queue !== "string") throw new TypeError(`consume needs a queue (you gave ${queue})`);
    if (!onmessage) throw new TypeError("consume needs a function that takes the messages");
    if (this.state === "closed") throw new PasserelleError("closed", "this client is closed: connect() again");
    if (this.#consumptions.has(queue)) {
      throw new PasserelleError("duplicate", `already consuming '${queue}': cancel it first`);
    }
    const consumption = new Consumption(this, queue, { ...options, onmessage });
    this.#consumptions.set(queue, consumption);
    this.#pump();
    return consumption;
  }

  /** Takes no more of this queue, if any was taken. What is held can still be settled. @param {string} queue */
  cancel(queue) {
    const consumption = this.#consumptions.get(queue);
    if (consumption) this._cancel(consumption);
  }

  /** Ends this one, not another that came after it. @param {Consumption} consumption */
  _cancel(consumption) {
    const { queue } = consumption;
    if (this.#consumptions.get(queue) !== consumption) return;
    this.#consumptions.delete(queue);
    if (this.#isOpen && consumption._stage !== "idle") {
      this.#request({ op: "cancel", queue }).catch(() => {});
    }
    consumption._reject(new PasserelleError("closed", `'${queue}' was cancelled`));
  }

  /**
   * Publishes and waits for the broker's confirm; `routed` says whether any queue got it. Bytes go as they are,
   * anything else as JSON. While the line is away it waits for `wait_ms`, then rejects with `unavailable`.
   * @param {string} topic @param {any} data @param {PublishOptions} [options]
   * @returns {Promise<{routed: boolean}>}
   */
  async publish(topic, data, options = {}) {
    const { routed } = await this.#request({ op: "publish", topic, ...body(data), ...options });
    return { routed };
  }

  /**
   * Asks a service behind the broker and resolves with its answer (`data`, `headers`, `content_type`).
   * @param {string} topic @param {any} data @param {{timeout_ms?: number, headers?: Record<string, any>}} [options]
   * @returns {Promise<{data: any, headers?: Record<string, any>, content_type?: string}>}
   */
  async call(topic, data, options = {}) {
    const { op: _, id: __, ...reply } = await this.#request({ op: "call", topic, ...body(data), ...options });
    return decoded(reply);
  }

  /**
   * Resolves with who is subscribed to exactly this pattern, if presence is on for it.
   * @param {string} pattern
   * @returns {Promise<Roster>}
   */
  async presence(pattern) {
    if (typeof pattern !== "string") throw new TypeError(`presence needs a pattern (you gave ${pattern})`);
    const { op: _, id: __, ...roster } = await this.#request({ op: "presence", pattern });
    return roster;
  }

  /** Resolves with the milliseconds to the server and back. @returns {Promise<number>} */
  async ping() {
    const sent = this.#clock.now();
    await this.#request({ op: "ping" });
    return this.#clock.now() - sent;
  }

  /** Ends everything: subscriptions, requests, the line. */
  close() {
    this.#shut(null, { code: 1000, reason: "" });
  }

  /** @param {string} event @param {any} detail */
  #emit(event, detail) {
    for (const listener of [...(this.#listeners.get(event) ?? [])]) guarded(listener, detail);
  }

  /** Whether something can be sent. While a line is let go of it cannot, whatever the state still says. */
  get #isOpen() {
    return this.state === "open" && this.#socket !== null;
  }

  /** @param {State} state */
  #become(state) {
    if (this.state === state) return;
    this.state = state;
    this.#emit("state", { state });
  }

  // The line's life: dial, welcome, lost, wait, dial.

  /** @param {boolean} rejected Whether the server refused the last token. */
  async #dial(rejected) {
    if (this.state === "closed") return;
    this.#become("connecting");
    try {
      const { token } = this.#options;
      const fresh = typeof token === "function" ? await token({ rejected }) : token;
      if (rejected && fresh === this.#token) return this.#refused();
      this.#token = fresh;
    } catch (error) {
      this.#emit("error", error);
      return this.#retry(this.#backoff(this.#attempt++), rejected);
    }
    if (/** @type {State} */ (this.state) !== "closed") this.#open();
  }

  #open() {
    const Socket = this.#options.WebSocket ?? globalThis.WebSocket;
    if (!Socket) throw new TypeError("no WebSocket here: give one as the option WebSocket, or use Node.js 22");
    let socket;
    try {
      socket = new Socket(this.#url, [SUBPROTOCOL]);
    } catch (error) {
      return this.#shut(new PasserelleError("closed", `no WebSocket to ${this.#url}: ${error}`), {
        code: 1006,
        reason: String(error),
      });
    }
    this.#socket = socket;
    this.#timer(WELCOME_MS, () => this.#drop(1006, "no welcome in time"));
    socket.onopen = () => {
      socket.onerror = quiet; // From here on a close follows and says more.
      this.#connectId = this.#nextId++;
      this.#send({ op: "connect", id: this.#connectId, token: this.#token, client: this.#options.client });
    };
    socket.onmessage = (/** @type {{data: any}} */ { data }) => this.#receive(data);
    socket.onclose = (/** @type {{code: number, reason: string}} */ { code, reason }) =>
      this.#lost(code, String(reason ?? ""));
    // Not every WebSocket says `close` as well when it could not connect: that of Node.js 20 and 22 does not.
    socket.onerror = (/** @type {{message?: string}} */ { message }) => this.#drop(1006, String(message ?? ""));
  }

  /** @param {any} welcome */
  #welcomed(welcome) {
    if (this.state === "open" || welcome.id !== this.#connectId) return;
    this.welcome = welcome;
    this.#openedAt = this.#clock.now();
    this.#retries = 0;
    this.#watch();
    this.state = "open";
    // What waited goes out before anything that a page does when it hears of the line.
    this.#pump();
    for (const request of this.#waited()) this.#transmit(request);
    this.#emit("state", { state: this.state });
    this.#emit("open", welcome);
  }

  /**
   * Looks twice a heartbeat whether the line is still heard, and asks once before it gives it up: where nothing is
   * subscribed the server has no position to send. A look that comes much too late tells of a page that slept, not of
   * a dead line: frames may wait behind it.
   */
  #watch() {
    const heartbeat = this.welcome?.heartbeat_ms ?? 25_000;
    const due = this.#clock.now() + heartbeat / 2;
    this.#timer(heartbeat / 2, () => {
      const now = this.#clock.now();
      const silence = now - this.#heardAt;
      if (silence >= 2 * heartbeat && now - due > heartbeat / 2) return this.#probe();
      if (silence >= 2 * heartbeat) return this.#drop(1006, "no sign of life for two heartbeats");
      if (silence >= 1.25 * heartbeat) this.ping().catch(() => {});
      this.#watch();
    });
  }

  /** Asks a line that is in doubt, and gives it up unless it answers soon. */
  #probe() {
    const asked = this.#clock.now();
    this.ping().catch(() => {});
    this.#timer(PROBE_MS, () => (this.#heardAt > asked ? this.#watch() : this.#drop(1006, "no answer after a pause")));
  }

  /** The page came to the front or online again: look now instead of whenever its timers run. */
  #woken() {
    if (/** @type {any} */ (globalThis).document?.visibilityState === "hidden") return;
    if (this.state === "open") this.#probe();
    else if (this.state === "waiting" && this.#hasty) {
      this.#cancelTimer();
      this.#dial(false);
    }
  }

  /**
   * Gives up a line by ourselves, as if it had been closed with this code; its own close event may never come.
   * @param {number} code @param {string} reason
   */
  #drop(code, reason) {
    const socket = this.#socket;
    this.#lost(code, reason);
    try {
      socket.close(code === 1006 ? 4408 : 1000);
    } catch {
      // It was not even open.
    }
  }

  /** @param {number} code @param {string} reason */
  #lost(code, reason) {
    this.#letGo();
    if (this.state === "closed") return; // By who heard what is revoked.
    const verdict = comeBack(code);
    if (verdict === "no")
      return this.#shut(new PasserelleError("closed", `the server closed with ${code}: ${reason}`), { code, reason });
    if (verdict === "token" && typeof this.#options.token !== "function") return this.#refused(reason);
    if (this.#openedAt > 0 && this.#clock.now() - this.#openedAt >= GOOD_LINE_MS) this.#attempt = 0;
    this.#openedAt = 0;
    const asked = this.#goodbyeMs;
    this.#goodbyeMs = null;
    const later = verdict === "later" ? this.#options.later_ms * (1 + this.#clock.random()) : 0;
    const wait = asked ?? Math.max(later, this.#backoff(this.#attempt++));
    this.#hasty = asked === null && verdict === "yes";
    this.#emit("close", { code, reason, reconnect_in_ms: wait });
    this.#retry(wait, verdict === "token");
  }

  /**
   * Doubles with each try, half of it at random, so that a thousand pages do not come back at once.
   * @param {number} tries How many there were before.
   */
  #backoff(tries) {
    const { backoff_min_ms, backoff_max_ms } = this.#options;
    const full = Math.min(backoff_max_ms, backoff_min_ms * 2 ** Math.min(tries, 20));
    return full / 2 + (full / 2) * this.#clock.random();
  }

  /** @param {number} ms @param {boolean} rejected */
  #retry(ms, rejected) {
    if (this.state === "closed") return;
    this.#become("waiting");
    if (/** @type {State} */ (this.state) === "waiting") this.#timer(ms, () => this.#dial(rejected));
  }

  #refused(reason = "the same token again") {
    const error = new PasserelleError("unauthenticated", `the server refused the token: ${reason}`);
    this.#shut(error, { code: 4401, reason });
  }

  /** Forgets the socket and everything that hung on it. */
  #letGo() {
    this.#cancelTimer();
    this.#cancelPump();
    this.#pumps = false;
    if (this.#socket) {
      this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
      this.#socket.onerror = quiet;
    }
    this.#socket = null;
    for (const subscription of this.#subscriptions.values()) {
      subscription._stage = "idle";
      subscription._progress.begin();
    }
    for (const consumption of this.#consumptions.values()) consumption._stage = "idle";
    const requests = [...this.#requests.values()];
    this.#requests.clear();
    const error = new PasserelleError(
      "unavailable",
      "the line was lost before the answer: it may or may not have been done",
    );
    for (const request of requests) request.reject(error);
    this.#revoked([...this.#held.keys()]);
  }

  /** @param {PasserelleError | null} error @param {{code: number, reason: string}} close */
  #shut(error, close) {
    if (this.state === "closed") return;
    const socket = this.#socket;
    this.#letGo();
    socket?.close(1000);
    if (/** @type {State} */ (this.state) === "closed") return; // By who heard what is revoked.
    globalThis.removeEventListener?.("online", this.#wake);
    /** @type {any} */ (globalThis).document?.removeEventListener("visibilitychange", this.#wake);
    this.#become("closed");
    this.#emit("close", { ...close, reconnect_in_ms: null });
    for (const request of this.#waited()) request.reject(this.#unavailable());
    for (const subscription of this.#subscriptions.values()) subscription._end(error);
    this.#subscriptions.clear();
    const closed = error ?? new PasserelleError("closed", "this client is closed");
    for (const consumption of this.#consumptions.values()) consumption._reject(closed);
    this.#consumptions.clear();
  }

  /** @param {number} ms @param {() => void} run */
  #timer(ms, run) {
    this.#cancelTimer();
    this.#cancelTimer = this.#clock.after(ms, run);
  }

  // Requests.

  /** @param {Record<string, any>} frame @returns {Promise<any>} */
  #request(frame) {
    return new Promise((resolve, reject) => {
      const id = this.#nextId++;
      const request = { id, text: JSON.stringify({ ...frame, id }), resolve, reject };
      if (this.#isOpen) this.#transmit(request);
      else this.#await(request);
    });
  }

  /** @param {Request} request */
  #transmit({ id, text, resolve, reject }) {
    const limit = this.welcome?.max_message_bytes ?? Infinity;
    if (text.length * 3 > limit && new TextEncoder().encode(text).length > limit) {
      return reject(new PasserelleError("limit", `the message is larger than the ${limit} bytes that the server takes`));
    }
    this.#requests.set(id, { resolve, reject });
    this.#socket.send(text);
  }

  /** Waits for the line, with a bound on how long and on how many. @param {Request} request */
  #await(request) {
    if (this.state === "closed" || this.#waiting.size >= WAITING_MAX) return request.reject(this.#unavailable());
    const giveUp = () => {
      this.#waiting.delete(request);
      request.reject(this.#unavailable());
    };
    this.#waiting.set(request, this.#clock.after(this.#options.wait_ms, giveUp));
  }

  /** Takes all that waited, in order. @returns {Request[]} */
  #waited() {
    for (const cancel of this.#waiting.values()) cancel();
    const requests = [...this.#waiting.keys()];
    this.#waiting.clear();
    return requests;
  }

  #unavailable() {
    return new PasserelleError("unavailable", `there is no line to the server (${this.state})`);
  }

  /** @param {Record<string, any>} frame */
  #send(frame) {
    this.#socket.send(JSON.stringify(frame));
  }

  // Subscriptions.

  /**
   * Asks for every queue and every subscription that is not yet on the wire. Of the latter, those that want to be sent
   * old messages wait for each other where they may be about the same ones: a replayed message does not say for whom it
   * is, so nobody replays at the same time who may already have it or gets it before older ones.
   */
  #pump() {
    if (!this.#isOpen) return;
    for (const consumption of this.#consumptions.values()) {
      if (consumption._stage === "idle") this.#take(consumption);
    }
    // Those with a rate wait for the others, so they come last.
    const all = [...this.#subscriptions.values()].sort((one, other) => Number(isPaced(one)) - Number(isPaced(other)));
    for (const subscription of all) {
      const replay = subscription._due;
      if (!replay) continue;
      const waits = (/** @type {Subscription} */ other) => goesFirst(other, subscription) && share(other, subscription);
      if (replay === "none" || !all.some(waits)) this.#ask(subscription, replay);
    }
  }

  /** @param {Subscription} subscription @param {Replay} replay */
  #ask(subscription, replay) {
    const { source, last, on_slow, max_rate } = subscription.options;
    if (subscription._stage === "idle") subscription._stage = "asked";
    subscription._id = this.#nextId++;
    subscription._progress.begin(replay);
    this.#send({
      op: "subscribe",
      id: subscription._id,
      pattern: subscription.pattern,
      after: replay === "since" ? subscription._progress.saved : undefined,
      last: replay === "last" ? last : undefined,
      source,
      on_slow,
      max_rate,
      filter: subscription._filter ?? undefined,
    });
  }

  /** @param {Subscription} subscription @param {{code: string, message: string}} error */
  #subscribeFailed(subscription, error) {
    const { pattern, _stage, _progress } = subscription;
    const fault = new PasserelleError(error.code, error.message);
    const standsStill = _stage === "standing" && _progress.replay === "last";
    subscription._stage = "idle";
    _progress.begin();
    this.#emit("error", fault);
    if (error.code === "unavailable" || error.code === "timeout") return this.#pumpLater();
    this.#subscriptions.delete(pattern);
    // It was refused the rest of `last`: what it had asked for before stands.
    if (standsStill) this.#request({ op: "unsubscribe", pattern }).catch(quiet);
    subscription._end(fault);
    this.#pump();
  }

  /** However many were refused for the moment, they are asked for again together. */
  #pumpLater() {
    if (this.#pumps || !this.#isOpen) return;
    this.#pumps = true;
    this.#cancelPump = this.#clock.after(this.#backoff(this.#retries++), () => {
      this.#pumps = false;
      this.#pump();
    });
  }

  /** Whether any subscription has a rate. */
  get #paces() {
    return [...this.#subscriptions.values()].some(isPaced);
  }

  /** @param {any} id */
  #byId(id) {
    return [...this.#subscriptions.values()].find((one) => one._id === id && one._stage !== "idle");
  }

  // Queues.

  /** @param {Consumption} consumption */
  #take(consumption) {
    consumption._stage = "asked";
    consumption._id = this.#nextId++;
    const { prefetch } = consumption.options;
    this.#send({ op: "consume", id: consumption._id, queue: consumption.queue, prefetch });
  }

  /** @param {Consumption} consumption @param {{code: string, message: string}} error */
  #consumeFailed(consumption, error) {
    const fault = new PasserelleError(error.code, error.message);
    consumption._stage = "idle";
    this.#emit("error", fault);
    if (passes(error, consumption)) return this.#pumpLater();
    this.#consumptions.delete(consumption.queue);
    consumption._reject(fault);
  }

  /** @param {any} id */
  #consumptionById(id) {
    return [...this.#consumptions.values()].find((one) => one._id === id && one._stage !== "idle");
  }

  /** @param {any} frame */
  #handedOut({ op: _, ...bare }) {
    const tag = bare.delivery_tag;
    const consumption = this.#consumptions.get(bare.source);
    // It was on its way when the queue was cancelled: nobody here is to have it.
    if (!consumption) return void this.#request({ op: "nack", delivery_tag: tag }).catch(() => {});
    const held = this.#held;
    const delivery = /** @type {Delivery} */ ({
      ...decoded(bare),
      get held() {
        return held.get(tag)?.delivery === delivery;
      },
      ack: () => this.#settle(tag, { op: "ack" }),
      nack: (options) => this.#settle(tag, { op: "nack", requeue: options?.requeue }),
    });
    held.set(tag, { delivery, consumption });
    guarded(/** @type {(delivery: Delivery) => void} */ (consumption.options.onmessage), delivery);
  }

  /** A tag is good once. @param {string} tag @param {Record<string, any>} frame */
  async #settle(tag, frame) {
    if (!this.#held.delete(tag)) {
      throw new PasserelleError("stale_tag", "this message is not held any more: it was settled or revoked");
    }
    await this.#request({ ...frame, delivery_tag: tag });
  }

  /** Somebody else gets these. @param {string[]} tags */
  #revoked(tags) {
    for (const tag of tags) {
      const held = this.#held.get(tag);
      this.#held.delete(tag);
      if (!held) continue;
      if (held.consumption.options.onrevoked) guarded(held.consumption.options.onrevoked, held.delivery);
      this.#emit("revoked", held.delivery);
    }
  }

  // What the server says.

  /** @param {any} data */
  #receive(data) {
    this.#heardAt = this.#clock.now();
    let frame;
    try {
      frame = JSON.parse(data);
    } catch {
      return this.#emit("error", new PasserelleError("bad_message", "the server sent something that is not JSON"));
    }
    if (frame.op === "message" && frame.delivery_tag !== undefined) this.#handedOut(frame);
    else if (frame.op === "message") this.#message(frame);
    else if (this.#requests.has(frame.id)) this.#answer(frame);
    else this.#told(frame);
  }

  /** @param {any} frame */
  #told(frame) {
    const { op, id, ...rest } = frame;
    switch (op) {
      case "welcome":
        return this.#welcomed(frame);
      case "subscribed":
        return this.#subscribed(frame);
      case "ok":
        return this.#consumed(id);
      case "revoked":
        return this.#revoked(rest.delivery_tags ?? []);
      case "caught_up":
        return this.#caughtUp(this.#byId(id), rest.cursors ?? {});
      case "position":
        return this.#position(rest);
      case "gap":
        return this._gap(rest, this.#subscriptions.get(rest.pattern));
      case "join":
      case "leave":
        return this.#moved(op, rest, this.#subscriptions.get(rest.topic));
      case "presence":
        return this.#present(rest, this.#subscriptions.get(rest.pattern));
      case "outage":
      case "restored":
        return this.#emit(op, rest);
      case "goodbye":
        this.#goodbyeMs = rest.reconnect_in_ms ?? null;
        return;
      case "error":
        return this.#failed(frame);
    }
  }

  /** @param {any} frame */
  #answer(frame) {
    const request = this.#requests.get(frame.id);
    this.#requests.delete(frame.id);
    if (frame.op === "error") request?.reject(new PasserelleError(frame.code, frame.message));
    else request?.resolve(frame);
  }

  /** @param {any} frame */
  #failed(frame) {
    if (frame.id === this.#connectId) {
      return this.#drop(frame.code === "unauthenticated" ? 4401 : 4403, frame.message);
    }
    const subscription = this.#byId(frame.id);
    if (subscription) return this.#subscribeFailed(subscription, frame);
    const consumption = this.#consumptionById(frame.id);
    if (consumption) return this.#consumeFailed(consumption, frame);
    // With an id of ours it is about something that was let go meanwhile, such as a subscribe that was taken back.
    if (typeof frame.id !== "number") this.#emit("error", new PasserelleError(frame.code, frame.message));
  }

  /** @param {any} id */
  #consumed(id) {
    const consumption = this.#consumptionById(id);
    if (!consumption) return;
    this.#retries = 0;
    consumption._stage = "standing";
    consumption._hasStood = true;
    consumption._resolve();
  }

  /** @param {any} frame */
  #subscribed(frame) {
    const subscription = this.#byId(frame.id);
    if (!subscription) return;
    const comes = subscription._stage === "asked";
    this.#retries = 0;
    subscription._stage = "standing";
    subscription._progress.subscribed(frame.cursors ?? {}, this.#paces);
    subscription._resolve({ resumed: frame.resumed === true });
    if (comes && subscription.options.onpresence) this.#askPresence(subscription);
    if (subscription._due) this.#pump();
  }

  /** @param {Subscription | undefined} subscription @param {CursorsBySource} cursors */
  #caughtUp(subscription, cursors) {
    for (const message of subscription?._progress.caughtUp(cursors, this.#paces) ?? []) subscription?._deliver(message);
    this.#pump();
  }

  // Presence.

  /**
   * The answer is passed on where it arrives and not later, so that it comes before what is told after it.
   * @param {Subscription} subscription
   */
  #askPresence(subscription) {
    const id = this.#nextId++;
    const resolve = (/** @type {any} */ { op: _, id: __, ...roster }) => {
      if (this.#subscriptions.get(subscription.pattern) !== subscription) return;
      guarded(/** @type {any} */ (subscription.options.onpresence), roster);
    };
    const reject = (/** @type {Error} */ error) => {
      if (/** @type {PasserelleError} */ (error).code !== "unavailable") this.#emit("error", error);
    };
    this.#requests.set(id, { resolve, reject });
    this.#send({ op: "presence", id, pattern: subscription.pattern });
  }

  /** @param {Roster} roster @param {Subscription | undefined} subscription */
  #present(roster, subscription) {
    if (subscription?.options.onpresence) guarded(subscription.options.onpresence, roster);
    this.#emit("presence", roster);
  }

  /** @param {"join" | "leave"} op @param {Move} move @param {Subscription | undefined} subscription */
  #moved(op, move, subscription) {
    const listener = op === "join" ? subscription?.options.onjoin : subscription?.options.onleave;
    if (listener) guarded(listener, move);
    this.#emit(op, move);
  }

  /** @param {{cursors: CursorsBySource}} position */
  #position(position) {
    const shares = this.#paces;
    for (const { _stage, _progress, options } of this.#subscriptions.values()) {
      if (_stage !== "standing") continue;
      const heard = Object.entries(position.cursors ?? {}).filter(([name]) => (options.source ?? name) === name);
      _progress.stand(Object.fromEntries(heard), shares);
    }
    this.#emit("position", position);
  }

  /** @param {Gap} gap @param {Subscription | undefined} subscription */
  _gap(gap, subscription) {
    if (subscription?.options.ongap) guarded(subscription.options.ongap, gap);
    this.#emit("gap", gap);
  }

  /** @param {any} frame */
  #message(frame) {
    const { op: _, ...bare } = frame;
    const message = /** @type {Message} */ (decoded(bare));
    const all = [...this.#subscriptions.values()];
    const shared = all.some((one) => isPaced(one) && wants(one, message));
    const listening = all.filter((one) => hears(one, message));
    const matching = listening.filter((one) => matches(one.pattern, message.topic) && letsIn(one._filter, message));
    if (message.replay) return this.#replayed(message, matching, shared);
    const paced = matching.filter((one) => one._stage === "standing" && !one._progress.replaying && isPaced(one));
    const sender = paced.sort((one, other) => rate(one) - rate(other) || Number(one._id) - Number(other._id))[0];
    for (const one of listening) {
      const moves = sender ? one === sender : !isPaced(one);
      const due = one._progress.live(message, matching.includes(one), { moves, shared });
      if (due) one._deliver(due);
    }
  }

  /**
   * A replayed message is for those that replay. One with a rate also replays what comes meanwhile, which nobody else is
   * sent, and what others had left to it before: if it can only be of such a replay, all who have not had it get it.
   * @param {Message} message @param {Subscription[]} matching @param {boolean} shared
   */
  #replayed(message, matching, shared) {
    const replaying = matching.filter((one) => one._progress.replaying);
    // It may as well be for one that is not heard yet, or not any more.
    const asked = [...this.#subscriptions.values()].filter((one) => isReplaying(one) && one._stage === "asked");
    const unheard = [...this.#leaving, ...asked].filter((one) => wants(one, message));
    const candidates = [...replaying, ...unheard];
    const alone = candidates.length === 1;
    if (alone) candidates[0]._progress.own(message);
    const forAll = candidates.length > 0 && candidates.every((one) => isPaced(one) && one._progress.replaysNews);
    for (const one of forAll ? matching : replaying) {
      if (one._progress.replayed(message, { alone, shared })) one._deliver(message);
    }
  }
}

/** How many messages a second a subscription is sent at most. @param {Subscription} subscription */
const rate = ({ options }) => options.max_rate ?? Infinity;

/** @param {Subscription} subscription */
const isPaced = (subscription) => rate(subscription) < Infinity;

/** Whether older messages are on their way to a subscription, or will be. @param {Subscription} subscription */
const isReplaying = ({ _stage, _progress }) => _stage !== "idle" && _progress.replaying;

/**
 * Whether older messages for one come before those for another. What has a rate may never catch up, so nobody waits for
 * it: who has a rate too remembers what it had, and the cursors of both stand still where a message may be for either.
 * @param {Subscription} one @param {Subscription} other
 */
const goesFirst = (one, other) =>
  one !== other && !isPaced(one) && one._progress.replaying && (one._stage !== "idle" || isPaced(other));

/** Whether a message may be for both of two subscriptions. @param {Subscription} one @param {Subscription} other */
const share = (one, other) =>
  (one.options.source ?? other.options.source) === (other.options.source ?? one.options.source) &&
  meet(one.pattern, other.pattern);

/** Whether a subscription is about such a message. @param {Subscription} subscription @param {Message} message */
const wants = ({ pattern, options }, message) =>
  (options.source ?? message.source) === message.source && matches(pattern, message.topic);

/**
 * Whether a message may concern a subscription. A replay is for those that stand: before `subscribed` it can only be
 * the rest of one that was let go. What is live is for those that stand, and for those that resume even before they
 * are asked for: it comes only once.
 * @param {Subscription} subscription @param {Message} message
 */
function hears({ options, _stage, _progress }, message) {
  if ((options.source ?? message.source) !== message.source) return false;
  if (message.replay) return _stage === "standing";
  return _stage === "standing" || (_progress.replaying && _progress.resumes);
}

/**
 * Whether a refusal to let a queue be consumed is of the moment. Who consumed it before may be in its own way: the server
 * may take long to see that a line of ours is gone.
 * @param {{code: string}} error @param {Consumption} consumption
 */
const passes = ({ code }, { _hasStood }) =>
  code === "unavailable" || (_hasStood && (code === "limit" || code === "in_use"));

/** The fields that carry data on the wire. @param {any} data */
function body(data) {
  if (data === undefined) throw new TypeError("there is no data: give null to send null");
  if (!(data instanceof ArrayBuffer || ArrayBuffer.isView(data))) return { data };
  const bytes =
    data instanceof ArrayBuffer ? new Uint8Array(data) : new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return { data_base64: btoa(text) };
}

/** Turns `data_base64` into bytes under `data`. @param {any} frame */
function decoded(frame) {
  if (frame.data_base64 === undefined) return frame;
  const { data_base64, ...rest } = frame;
  return { ...rest, data: Uint8Array.from(atob(data_base64), (character) => character.charCodeAt(0)) };
}
