// The examples, each started by its own command, in Python and in Node.js, and used as a person would.

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";

import { example, openBrowser, until } from "./stage.js";

let browser;
let running;

before(async () => {
  browser = await openBrowser();
});

afterEach(async () => {
  await running?.end();
  running = undefined;
  assert.deepEqual(browser.complaints.splice(0), []);
});

after(() => browser?.close());

const open = (page) => page.locator("#state", { hasText: /^(open|live)$/ }).waitFor();

for (const language of ["python", "node"]) {
  test(`ping: every tab gets the pong, from ${language}`, async () => {
    running = await example("ping", language);
    const tabs = [await browser.page(running.address), await browser.page(running.address)];
    for (const tab of tabs) await open(tab);
    const pongs = (tab) => tab.locator("#log li", { hasText: "pong" }).count();
    // The service may still be starting: a ping that nobody hears is sent again.
    await until("a pong comes", async () => {
      await tabs[0].click("#ping");
      await tabs[0].waitForTimeout(1500);
      return (await pongs(tabs[0])) > 0;
    });
    for (const tab of tabs) await until("every tab has a pong", async () => (await pongs(tab)) > 0);
    assert.equal(await tabs[1].locator("#log li", { hasText: "ping" }).count(), 0, "the other tab sent none");
  });

  test(`monitoring: raw and averaged values are drawn, and the service obeys, in ${language}`, async () => {
    running = await example("monitoring", language);
    const page = await browser.page(running.address);
    await open(page);
    for (const kind of ["request", "cpu", "memory", "disk", "network"]) {
      await page.locator(`#chart-${kind} .now`, { hasText: /^\d[\d.]* \S+ average \d/ }).waitFor();
    }
    // A line is drawn where there was only the card: some of the canvas has the colour of the averages.
    await page.waitForFunction(() => {
      const canvas = document.querySelector("#chart-memory canvas");
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      return data.some((channel, index) => index % 4 === 2 && channel > 150 && data[index - 2] < 60);
    });
    await page.click("#slow");
    await page.locator("#answer", { hasText: `(${language}) answers: 300 ms slower` }).waitFor();
    await page.waitForFunction(() => parseFloat(document.querySelector("#chart-request .now").textContent) >= 300);
    await page.click("#fast");
    await page.locator("#answer", { hasText: "0 ms slower" }).waitFor();
  });
}

test("chat: what one tab says, both read", async () => {
  running = await example("chat");
  const tabs = [await browser.page(running.address), await browser.page(running.address)];
  for (const tab of tabs) await open(tab);
  const line = `<b>hello</b> ${Math.random()}`;
  // The socket is open before the broker's binding stands: said again until it is heard.
  await until("both read it", async () => {
    await tabs[0].fill("#name", "Anna");
    await tabs[0].fill("#text", line);
    await tabs[0].click("#send");
    await tabs[0].waitForTimeout(300);
    const heard = await Promise.all(tabs.map((tab) => tab.locator("#room li", { hasText: `Anna: ${line}` }).count()));
    return heard.every((count) => count > 0);
  });
});
