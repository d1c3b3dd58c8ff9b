// The JavaScript client against a real server and broker, on a line that breaks again and again.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { openBroker, openBrowser, ownPasserelle, until } from "./stage.js";

const MESSAGES = 600;
const QUEUE = `jobs-${process.pid}`;
const PATTERNS = ["broken.#", "broken.a", "broken.*", "broken.*.c"];
const TOPICS = ["broken.a", "broken.b", "broken.b.c"];

let browser;
let broker;
let passerelle;

before(async () => {
  const settings = { PASSERELLE_CONSUME__JOBS__QUEUE: QUEUE };
  [browser, broker, passerelle] = [await openBrowser(), await openBroker(), await ownPasserelle(settings)];
});

after(async () => {
  await browser?.close();
  await broker?.close();
  await passerelle?.end("SIGKILL");
});

/** In the page: subscribes to everything, and keeps numbers, gaps and the sockets that were opened. */
async function subscribe(page) {
  await page.evaluate(async (patterns) => {
    const { connect } = await import("./client.js");
    const sockets = [];
    class Recorded extends WebSocket {
      constructor(...given) {
        super(...given);
        sockets.push(this);
      }
    }
    const client = connect({ WebSocket: Recorded, backoff_min_ms: 20, backoff_max_ms: 40 });
    const gaps = [];
    client.on("gap", (gap) => gaps.push(gap));
    const got = {};
    const ready = patterns.map((pattern) => {
      got[pattern] = [];
      return client.subscribe(pattern, ({ data }) => got[pattern].push(data)).ready;
    });
    window.seen = { client, sockets, gaps, got };
    await Promise.all(ready);
  }, PATTERNS);
}

/** Cuts the page's line: 4000 is no code of the server's, to the client it is a lost one. */
async function cut(page, onlyOpen) {
  await until("there is a line to cut", () =>
    page.evaluate((onlyOpen) => {
      const last = window.seen.sockets.at(-1);
      if (onlyOpen && last.readyState !== WebSocket.OPEN) return false;
      last.close(4000);
      return true;
    }, onlyOpen),
  );
}

test("over many lost lines every subscription gets each message once, and no gap is told", async () => {
  const page = await browser.page(passerelle.address);
  await subscribe(page);
  const expected = Object.fromEntries(PATTERNS.map((pattern) => [pattern, []]));
  for (let number = 0; number < MESSAGES; number++) {
    const topic = TOPICS[number % TOPICS.length];
    await broker.publish(topic, number);
    expected["broken.#"].push(number);
    if (topic === "broken.a") expected["broken.a"].push(number);
    if (topic !== "broken.b.c") expected["broken.*"].push(number);
    if (topic === "broken.b.c") expected["broken.*.c"].push(number);
    if (number % 20 === 7) await cut(page, number % 40 === 7);
  }
  const counts = () => page.evaluate(() => Object.values(window.seen.got).map((numbers) => numbers.length));
  const wanted = PATTERNS.map((pattern) => expected[pattern].length);
  await until("everything has come", async () => (await counts()).every((count, index) => count >= wanted[index]));
  const { got, gaps, lines } = await page.evaluate(() => ({
    got: window.seen.got,
    gaps: window.seen.gaps,
    lines: window.seen.sockets.length,
  }));
  for (const pattern of PATTERNS) {
    assert.deepEqual([...got[pattern]].sort((one, other) => one - other), expected[pattern], pattern);
  }
  assert.deepEqual(gaps, []);
  assert.ok(lines > 5, `${lines} lines`);
});

test("a page that only publishes keeps its line", async () => {
  const page = await browser.page(passerelle.address);
  const answer = await page.evaluate(async () => {
    const { connect } = await import("./client.js");
    const client = connect();
    const { routed } = await client.publish("broken.by-nobody-awaited", { at: 1 });
    const far = await client.ping();
    const refused = await client.call("there.is.no.such.queue", {}, { timeout_ms: 5000 }).catch(({ code }) => code);
    client.close();
    return { routed, far: far >= 0, refused };
  });
  assert.deepEqual(answer, { routed: true, far: true, refused: "unroutable" });
});

/** In the page: consumes the queue, and keeps what comes. */
async function consume(page) {
  await page.evaluate(async (queue) => {
    const { connect } = await import("./client.js");
    window.taken = [];
    await connect().consume(queue, { prefetch: 1 }, (message) => window.taken.push(message)).ready;
  }, QUEUE);
}

/** Numbers that came to a page, and whether each was handed out before. */
const taken = (page) =>
  page.evaluate(() => window.taken.map(({ data, redelivered }) => [data, redelivered === true]));

test("what a browser did not acknowledge before it went comes to the next one", async () => {
  await broker.put(QUEUE, 1);
  await broker.put(QUEUE, 2);
  const doomed = await openBrowser();
  const first = await doomed.page(passerelle.address);
  await consume(first);
  await until("the first has a message", async () => (await taken(first)).length > 0);
  assert.deepEqual(await taken(first), [[1, false]], "and no more than one");
  await doomed.close();
  await passerelle.counts("passerelle_consumers", 0);
  const second = await browser.page(passerelle.address);
  await consume(second);
  await until("the second has it", async () => (await taken(second)).length > 0);
  assert.deepEqual(await taken(second), [[1, true]]);
  await second.evaluate(() => window.taken[0].ack());
  await until("the next follows", async () => (await taken(second)).length > 1);
  assert.deepEqual(await taken(second), [
    [1, true],
    [2, false],
  ]);
  const again = await second.evaluate(() => window.taken[0].ack().catch(({ code }) => code));
  assert.equal(again, "stale_tag");
  await second.evaluate(() => window.taken[1].ack());
});
