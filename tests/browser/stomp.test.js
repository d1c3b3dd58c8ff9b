// @stomp/stompjs in a browser, as a page that spoke to RabbitMQ's Web STOMP has it: only the URL is another.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";

import { openBroker, openBrowser, ownPasserelle, until } from "./stage.js";

// The package does not export its bundle, which is what pages load.
const LIBRARY = fileURLToPath(new URL("node_modules/@stomp/stompjs/bundles/stomp.umd.js", import.meta.url));
const MESSAGES = 200;

let browser;
let broker;
let passerelle;

before(async () => {
  [browser, broker, passerelle] = [await openBrowser(), await openBroker(), await ownPasserelle({})];
});

after(async () => {
  await browser?.close();
  await broker?.close();
  await passerelle?.end("SIGKILL");
});

/** In the page: a client with two subscriptions, once both stand. */
async function connect(page) {
  await page.evaluate(async () => {
    const client = new window.StompJs.Client({ brokerURL: `ws://${location.host}/ws`, reconnectDelay: 100 });
    const seen = { client, all: [], one: [], errors: [], receipts: [] };
    client.onStompError = (frame) => seen.errors.push(frame.headers.message);
    const standing = (receipt) => new Promise((stands) => client.watchForReceipt(receipt, stands));
    await new Promise((ready) => {
      client.onConnect = () => {
        const both = [standing("all"), standing("one")];
        client.subscribe("/topic/page.#", ({ body }) => seen.all.push(Number(body)), { receipt: "all" });
        client.subscribe("/topic/page.a", ({ body }) => seen.one.push(Number(body)), { receipt: "one" });
        Promise.all(both).then(ready);
      };
      client.activate();
    });
    window.seen = seen;
  });
}

test("a page gets each message once for each subscription, and what it sends is confirmed", async () => {
  const page = await browser.page(passerelle.address, { bypassCSP: true });
  await page.addScriptTag({ path: LIBRARY });
  await connect(page);
  for (let number = 0; number < MESSAGES; number++) await broker.publish(number % 2 ? "page.a" : "page.b", number);
  const numbers = Array.from({ length: MESSAGES }, (_, number) => number);
  await until("every message has come", () => page.evaluate((count) => window.seen.all.length === count, MESSAGES));
  const { all, one } = await page.evaluate(() => ({ all: window.seen.all, one: window.seen.one }));
  assert.deepEqual(all, numbers);
  assert.deepEqual(one, numbers.filter((number) => number % 2));
  await page.evaluate(async () => {
    const { client } = window.seen;
    const confirmed = new Promise((done) => client.watchForReceipt("sent", done));
    client.publish({ destination: "/topic/page.a", body: "1000", headers: { receipt: "sent" } });
    await confirmed;
  });
  await until("its own message has come", () => page.evaluate(() => window.seen.one.includes(1000)));
  assert.deepEqual(await page.evaluate(() => window.seen.errors), []);
  assert.deepEqual(browser.complaints, []);
});
