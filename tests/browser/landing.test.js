// The landing page: shows the broker alive, publishes, and outlives the server behind it.

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";

import { adminUrl, openBroker, openBrowser, ownPasserelle, until, url } from "./stage.js";

let browser;
let broker;
const opened = [];

before(async () => {
  const ready = await until("passerelle is ready", () =>
    fetch(new URL("readyz", adminUrl)).then(
      (answer) => answer.ok && answer,
      () => null,
    ),
  );
  assert.equal(ready.status, 200);
  [browser, broker] = [await openBrowser(), await openBroker()];
});

afterEach(async () => {
  for (const thing of opened.splice(0)) await thing.end("SIGKILL");
  assert.deepEqual(browser.complaints.splice(0), []);
});

after(async () => {
  await browser?.close();
  await broker?.close();
});

async function own(settings) {
  const passerelle = await ownPasserelle(settings);
  opened.push(passerelle);
  return passerelle;
}

const state = (page, expected) => page.locator(`#state[data-state=${expected}]`).waitFor();
const row = (page, topic) => page.locator(".messages li", { has: page.getByText(topic, { exact: true }) });
/** Topics that no other test uses. */
const fresh = (name) => `browser.${Math.random().toString(36).slice(2)}.${name}`;

/** `live` comes before the subscription stands: publishes until the page shows it. */
async function flows(page, topic) {
  await until(`${topic} is shown`, async () => {
    await broker.publish(topic, { flows: true });
    return (await row(page, topic).count()) > 0;
  });
}

test("shows what a service publishes: topic, source, payload, and all of it when opened", async () => {
  const page = await browser.page(url);
  await state(page, "open");
  await flows(page, fresh("first"));
  const topic = fresh("order");
  await broker.publish(
    topic,
    { order: 7, lines: [{ sku: "K-17" }] },
    { contentType: "application/json", headers: { tenant: "north" } },
  );
  const shown = row(page, topic);
  await shown.waitFor();
  assert.match(await shown.locator(".payload").innerText(), /"order":7/);
  assert.match(await shown.locator("time").innerText(), /^\d\d:\d\d:\d\d\.\d{3}$/);
  assert.notEqual(await shown.locator(".source").innerText(), "");
  await shown.locator("summary").click();
  assert.match(await shown.locator("pre").innerText(), /"sku": "K-17"/);
  assert.match(await shown.locator(".facts").innerText(), /tenant/);
  await until("the rate is shown", async () => {
    await broker.publish(fresh("rate"), {});
    return page.evaluate(() => Number(document.getElementById("rate").textContent) > 0);
  });
});

test("text and bytes are shown as what they are, and markup as text", async () => {
  const page = await browser.page(url);
  await state(page, "open");
  await flows(page, fresh("first"));
  const [text, bytes] = [fresh("text"), fresh("bytes")];
  await broker.publish(text, "<img src=x onerror=alert(1)> héllo", { contentType: "text/plain" });
  await broker.publish(bytes, Buffer.from([0xff, 0x00, 0x10]), { contentType: "application/octet-stream" });
  await row(page, bytes).waitFor();
  assert.equal(await row(page, text).locator(".payload").innerText(), "<img src=x onerror=alert(1)> héllo");
  assert.match(await row(page, bytes).locator(".payload").innerText(), /^3 bytes\s+ff 00 10$/);
});

test("a pattern narrows what is shown, stays over a reload, and an empty list names the usual reason", async () => {
  const page = await browser.page(url);
  await state(page, "open");
  const [wanted, other] = [fresh("wanted"), fresh("other")];
  await page.fill("#pattern", wanted);
  await page.press("#pattern", "Enter");
  assert.match(await page.locator("#empty").innerText(), /default exchange/);
  assert.match(await page.locator("#empty").innerText(), new RegExp(wanted));
  await broker.publish(other, {});
  await flows(page, wanted);
  assert.equal(await row(page, other).count(), 0);
  assert.equal(await page.locator("#empty").isVisible(), false);
  await page.reload();
  assert.equal(await page.inputValue("#pattern"), wanted);
});

test("pause holds the list still and goes on with what came meanwhile", async () => {
  const page = await browser.page(url);
  await state(page, "open");
  await flows(page, fresh("first"));
  await page.click("#pause");
  const topic = fresh("meanwhile");
  await broker.publish(topic, 1);
  await page.getByText(/wait behind the pause/).waitFor();
  assert.equal(await row(page, topic).count(), 0);
  await page.click("#pause");
  await row(page, topic).waitFor();
});

test("what the page publishes reaches a service, and the confirm is told", async () => {
  const page = await browser.page((await own()).address);
  await state(page, "open");
  const topic = fresh("upward");
  const got = await broker.listen(topic);
  await page.fill("#topic", topic);
  await page.fill("#payload", '{"text": "from the page"}');
  await page.click("#send");
  await page.getByText("Confirmed by the broker.").waitFor();
  await until("the service has it", () => got.length > 0);
  assert.deepEqual(
    got.map(([key, body]) => [key, JSON.parse(body)]),
    [[topic, { text: "from the page" }]],
  );
});

for (const signal of ["SIGKILL", "SIGTERM"]) {
  test(`survives a restart of passerelle by ${signal}, without a reload`, async () => {
    const passerelle = await own();
    const page = await browser.page(passerelle.address);
    await state(page, "open");
    await page.evaluate(() => (window.sameDocument = true));
    const [before, later] = [fresh("before"), fresh("after")];
    await flows(page, before);
    await passerelle.end(signal);
    await page.locator("#state:not([data-state=open])").waitFor();
    await passerelle.start();
    await state(page, "open");
    await flows(page, later);
    assert.equal((await row(page, before).count()) > 0, true, "what was shown before is still there");
    assert.equal(await page.evaluate(() => window.sameDocument), true);
  });
}

test("says that what is to be shown has not been reached yet, and goes on by itself", async () => {
  const exchange = fresh("late");
  const passerelle = await own({ PASSERELLE_SOURCE__EVENTS__EXCHANGE: exchange, PASSERELLE_SOURCE__EVENTS__DECLARE: "false" });
  const page = await browser.page(passerelle.address);
  await page.locator("#banner", { hasText: "There is no link to the broker" }).waitFor();
  await passerelle.end("SIGKILL");
  await page.locator("#state:not([data-state=open])").waitFor();
  await passerelle.start();
  await page.locator("#banner", { hasText: "There is no link to the broker" }).waitFor();
  await broker.declare(exchange);
  await page.locator("#banner").waitFor({ state: "hidden" });
});

test("fits a phone and a dark screen, and can be used from the keyboard", async () => {
  const page = await browser.page(url, { viewport: { width: 360, height: 740 }, colorScheme: "dark" });
  await state(page, "open");
  await flows(page, fresh("a-very-long-topic-name-of-one-word-that-does-not-fit-a-phone"));
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth - innerWidth), 0);
  const ground = await page.evaluate(() => getComputedStyle(document.body).backgroundColor.match(/\d+/g).map(Number));
  assert.ok(Math.max(...ground) < 60, `dark: ${ground}`);
  await page.focus("#tab-python");
  await page.keyboard.press("ArrowRight");
  assert.equal(await page.locator("#code-node").isVisible(), true);
  assert.equal(await page.locator("#code-python").isVisible(), false);
});
