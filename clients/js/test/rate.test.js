// Rates: that they are asked for on every line, and that subscriptions which run ahead of each other go on where each was.

import assert from "node:assert/strict";
import { test } from "node:test";

import { message, openLine, welcomed } from "../testing/fakes.js";

function collect(line, pattern, options = {}) {
  const got = [];
  const subscription = line.client.subscribe(pattern, { ...options, onmessage: ({ data }) => got.push(data) });
  subscribed(line, pattern);
  return { subscription, got };
}

/** The server answers the newest subscribe of this pattern. */
function subscribed(line, pattern) {
  const { id } = line.socket.of("subscribe").findLast((frame) => frame.pattern === pattern);
  line.socket.says({ op: "subscribed", id, pattern, cursors: { events: "c0" }, resumed: false });
  return id;
}

const caughtUp = (id, number) => ({ op: "caught_up", id, cursors: { events: `c${number}` } });

const replayed = (number, topic) => message(number, topic, { replay: true });

/** The line breaks and comes back. */
async function reconnect(line) {
  line.socket.ends(1006);
  await line.clock.advance(60_000);
  await welcomed(line);
}

/** Who asked on this line, in order, and from where. */
const asked = (line) => line.socket.of("subscribe").map(({ pattern, after }) => [pattern, after?.events]);

test("the rate goes out with the subscribe", async () => {
  const line = await openLine();
  collect(line, "a", { max_rate: 5, on_slow: "latest" });
  const [{ max_rate, on_slow }] = line.socket.of("subscribe");
  assert.deepEqual([max_rate, on_slow], [5, "latest"]);
});

test("a message moves the subscription by which it comes and reaches all that match it", async () => {
  const line = await openLine();
  const all = collect(line, "#");
  const slow = collect(line, "a.*", { max_rate: 2 });
  const slower = collect(line, "a.x", { max_rate: 1 });
  line.socket.says(message(9, "b"), message(5, "a.y"), message(3, "a.x"));
  assert.deepEqual([all.got, slow.got, slower.got], [[9, 5, 3], [5, 3], [3]]);
  const cursors = [all, slow, slower].map(({ subscription }) => subscription.cursors.events);
  assert.deepEqual(cursors, ["c9", "c5", "c3"]);
  line.socket.says({ op: "position", cursors: { events: "c12" } });
  assert.equal(slower.subscription.cursors.events, "c12", "told only where it holds for each of them");
});

test("after a lost line what has no rate does not wait for what has one", async () => {
  const line = await openLine();
  collect(line, "a", { max_rate: 1 });
  collect(line, "#");
  line.socket.says(message(1, "a"), message(2, "b"));
  await reconnect(line);
  assert.deepEqual(asked(line), [["#", "c2"]]);
  line.socket.says(caughtUp(subscribed(line, "#"), 2));
  assert.deepEqual(asked(line), [["#", "c2"], ["a", "c1"]]);
});

test("what came by the rate of another does not come again after a lost line", async () => {
  const line = await openLine();
  const all = collect(line, "#");
  const slow = collect(line, "a", { max_rate: 2 });
  line.socket.says(message(1, "a"), message(2, "b"), message(3, "a"), message(4, "a"));
  await reconnect(line);
  assert.deepEqual(asked(line), [["#", "c2"]], "of a it may have had some and not others");
  subscribed(line, "#");
  line.socket.says(replayed(3, "a"));
  await reconnect(line);
  assert.deepEqual(asked(line), [["#", "c3"]], "and it is remembered until the end of a replay");
  const id = subscribed(line, "#");
  line.socket.says(replayed(4, "a"), replayed(5, "a"), caughtUp(id, 5));
  const own = subscribed(line, "a");
  line.socket.says(replayed(5, "a"), caughtUp(own, 5), message(6, "a"), message(7, "b"));
  assert.deepEqual([all.got, slow.got], [[1, 2, 3, 4, 5, 6, 7], [1, 3, 4, 5, 6]]);
});
