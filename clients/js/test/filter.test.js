// Filters on headers: which messages they let in, that they are asked for on every line, and that what one subscription
// filters out another one of the same client may bring.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { letsIn } from "../passerelle.js";
import { message, openLine, welcomed } from "../testing/fakes.js";

const cases = JSON.parse(readFileSync(new URL("../../../tests/data/filters.json", import.meta.url), "utf8"));

/** Subscribes, lets it stand, and collects the numbers of what comes. */
function collect(line, pattern, options = {}) {
  const got = [];
  const subscription = line.client.subscribe(pattern, { ...options, onmessage: ({ data }) => got.push(data) });
  subscribed(line, subscription.pattern);
  return { subscription, got };
}

/** The server answers the newest subscribe of this pattern. */
function subscribed(line, pattern) {
  const { id } = line.socket.of("subscribe").findLast((frame) => frame.pattern === pattern);
  line.socket.says({ op: "subscribed", id, pattern, cursors: { events: "c0" }, resumed: false });
  return id;
}

const of = (number, topic, region) => message(number, topic, region === undefined ? {} : { headers: { region } });

test("every case of the table that the server is tested with too", () => {
  assert.ok(cases.length > 40);
  for (const { filter, headers, matches } of cases) {
    const told = `${JSON.stringify(filter)} against ${JSON.stringify(headers)}`;
    assert.equal(letsIn(filter, { headers }), matches, told);
    if (Object.keys(headers).length === 0) assert.equal(letsIn(filter, {}), matches, `${told}, left out`);
  }
});

test("a subscription gets what its own filter lets in, whatever another one brings", async () => {
  const line = await openLine();
  const all = collect(line, "a.#");
  const some = collect(line, "a.*", { filter: { region: "eu" } });
  const others = collect(line, "*.x", { filter: { "x-match": "any", region: "us", vip: true } });
  line.socket.says(of(1, "a.x", "eu"), of(2, "a.x", "us"), of(3, "a.x"), of(4, "a.y", "eu"));
  assert.deepEqual([all.got, some.got, others.got], [[1, 2, 3, 4], [1, 4], [2]]);
  assert.deepEqual(some.subscription.cursors, { events: "c4" }, "what was filtered out moves it too");
});

test("a filter is asked for again on every line, as it was when it was given", async () => {
  const line = await openLine();
  const filter = { region: "eu", vip: undefined };
  const { got } = collect(line, "a", { filter });
  filter.region = "us";
  collect(line, "b");
  assert.deepEqual(
    line.socket.of("subscribe").map((frame) => frame.filter),
    [{ region: "eu" }, undefined],
  );
  line.socket.says(of(1, "a", "eu"));
  line.socket.ends(1006);
  await line.clock.advance(60_000);
  await welcomed(line);
  const again = line.socket.of("subscribe")[0];
  assert.deepEqual([again.filter, again.after], [{ region: "eu" }, { events: "c1" }]);
  const id = subscribed(line, "a");
  line.socket.says({ ...of(2, "a", "us"), replay: true }, { ...of(3, "a", "eu"), replay: true });
  line.socket.says({ op: "caught_up", id, cursors: { events: "c3" } }, of(4, "a", "us"), of(5, "a", "eu"));
  assert.deepEqual(got, [1, 3, 5]);
});

test("a filter that the server refuses ends the subscription with its sentence", async () => {
  const line = await openLine();
  const subscription = line.client.subscribe("a", { filter: /** @type {any} */ ({ region: ["eu"] }), onmessage() {} });
  const { id } = line.socket.of("subscribe")[0];
  line.socket.says({ op: "error", id, code: "bad_field", message: '"filter" compares with a string' });
  await assert.rejects(subscription.ready, { code: "bad_field", message: '"filter" compares with a string' });
});
