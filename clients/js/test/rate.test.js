// Rates: that they are asked for on every line, and that subscriptions which run ahead of each other go on where each was.

import assert from "node:assert/strict";
import { test } from "node:test";

import {
  caughtUp,
  collect,
  fakeLine,
  message,
  openLine,
  reconnect,
  replayed,
  subscribed,
  welcomed,
} from "../testing/fakes.js";

/** Subscribes and is answered. */
function listen(line, pattern, options = {}) {
  const listening = collect(line, pattern, options);
  subscribed(line, pattern);
  return listening;
}

/** Who asked on this line, in order, and from where. */
const asked = (line) => line.socket.of("subscribe").map(({ pattern, after }) => [pattern, after?.events]);

test("the rate goes out with the subscribe", async () => {
  const line = await openLine();
  listen(line, "a", { max_rate: 5, on_slow: "latest" });
  const [{ max_rate, on_slow }] = line.socket.of("subscribe");
  assert.deepEqual([max_rate, on_slow], [5, "latest"]);
});

test("a message moves the subscription by which it comes and reaches all that match it", async () => {
  const line = await openLine();
  const all = listen(line, "#");
  const slow = listen(line, "a.*", { max_rate: 2 });
  const slower = listen(line, "a.x", { max_rate: 1 });
  line.socket.says(message(9, "b"), message(5, "a.y"), message(3, "a.x"));
  assert.deepEqual([all.got, slow.got, slower.got], [[9, 5, 3], [5, 3], [3]]);
  const cursors = [all, slow, slower].map(({ subscription }) => subscription.cursors.events);
  assert.deepEqual(cursors, ["c9", "c5", "c3"]);
  line.socket.says({ op: "position", cursors: { events: "c12" } });
  assert.equal(slower.subscription.cursors.events, "c12", "told only where it holds for each of them");
});

test("after a lost line what has no rate does not wait for what has one", async () => {
  const line = await openLine();
  listen(line, "a", { max_rate: 1 });
  listen(line, "#");
  line.socket.says(message(1, "a"), message(2, "b"));
  await reconnect(line);
  assert.deepEqual(asked(line), [["#", "c2"]]);
  line.socket.says(caughtUp(subscribed(line, "#"), 2));
  assert.deepEqual(asked(line), [["#", "c2"], ["a", "c1"]]);
});

test("nobody waits for what has a rate, which may never catch up", async () => {
  const line = await openLine();
  const [busy, quiet] = ["p.#", "r.#"].map((pattern) => listen(line, pattern, { max_rate: 2 }));
  line.socket.says(message(1, "p.1"), message(2, "r.1"));
  await reconnect(line);
  assert.deepEqual(asked(line), [["p.#", "c1"], ["r.#", "c2"]]);
  for (const pattern of ["p.#", "r.#"]) subscribed(line, pattern);
  line.socket.says(replayed(3, "p.1"), replayed(7, "r.1"), replayed(4, "p.2"));
  const cursors = [busy, quiet].map(({ subscription }) => subscription.cursors.events);
  assert.deepEqual([busy.got, quiet.got, cursors], [[1, 3, 4], [2, 7], ["c4", "c7"]]);

  const late = ["r.*", "p.*"].map((pattern) => listen(line, pattern, { last: 1 }).subscription.pattern);
  assert.deepEqual(asked(line).slice(2), late.map((pattern) => [pattern, undefined]));
});

test("those with a rate that are about the same messages get each once and skip none", async () => {
  const line = await openLine();
  const slow = listen(line, "a.*", { max_rate: 2 });
  const slower = listen(line, "*.x", { max_rate: 1 });
  line.socket.says(message(1, "a.x"), message(4, "b.x"), message(2, "a.y"));
  await reconnect(line);
  assert.deepEqual(asked(line), [["a.*", "c2"], ["*.x", "c4"]]);
  const ids = ["a.*", "*.x"].map((pattern) => subscribed(line, pattern));
  line.socket.says(replayed(3, "a.x"), replayed(5, "a.x"), replayed(5, "a.x"));
  const cursors = () => [slow, slower].map(({ subscription }) => subscription.cursors.events);
  assert.deepEqual(cursors(), ["c2", "c4"], "by whichever they came, what is before may be still to come");
  line.socket.says(replayed(6, "a.y"), replayed(7, "b.x"), message(8, "a.x"));
  assert.deepEqual(cursors(), ["c6", "c7"]);
  line.socket.says(caughtUp(ids[1], 8), replayed(8, "a.x"), caughtUp(ids[0], 9));
  assert.deepEqual([slow.got, slower.got, cursors()], [[1, 2, 3, 5, 6, 8], [1, 4, 3, 5, 7, 8], ["c9", "c8"]]);
});

test("one with a rate that replays brings the other nothing that it had by its own", async () => {
  const line = await openLine();
  const slow = listen(line, "a.*", { max_rate: 2 });
  const slower = listen(line, "a.x", { max_rate: 1 });
  line.socket.says(message(1, "a.y"), message(2, "a.x"), message(3, "a.x"));
  await reconnect(line);
  assert.deepEqual(asked(line), [["a.*", "c1"], ["a.x", "c3"]]);
  for (const pattern of ["a.*", "a.x"]) subscribed(line, pattern);
  line.socket.says(replayed(2, "a.x"), replayed(3, "a.x"), replayed(4, "a.x"));
  assert.deepEqual([slow.got, slower.got], [[1, 2, 3, 4], [2, 3, 4]]);
});

test("what one with a rate brings as it replays comes to all who have not had it", async () => {
  const line = await openLine();
  const all = listen(line, "#");
  const slow = listen(line, "a.*", { max_rate: 1 });
  line.socket.says(message(1, "a.x"), message(4, "b"));
  await reconnect(line);
  const id = subscribed(line, "#");
  line.socket.says(replayed(5, "a.x"), message(6, "a.y"), caughtUp(id, 6), message(7, "a.x"));
  subscribed(line, "a.*");
  const fresh = listen(line, "a.z");
  line.socket.says(...[2, 3, 5, 6, 7].map((number) => replayed(number, "a.x")), replayed(8, "a.z"), message(9, "b"));
  assert.deepEqual(all.got, [1, 4, 5, 6, 7, 2, 3, 8, 9], "2 and 3 had been left to the slower one, 8 is new");
  assert.deepEqual([slow.got, fresh.got], [[1, 6, 7, 2, 3, 5, 8], [8]]);
  const cursors = [all, slow].map(({ subscription }) => subscription.cursors.events);
  assert.deepEqual(cursors, ["c9", "c8"]);
});

test("the history that one with a rate was given to begin with comes to it alone", async () => {
  const line = await openLine();
  const all = listen(line, "#");
  const [after, last] = [
    ["a.*", { after: { events: "c1" } }],
    ["b.*", { last: 3 }],
  ].map(([pattern, options]) => listen(line, pattern, { ...options, max_rate: 1 }));
  line.socket.says(replayed(2, "a.x"), replayed(3, "b.x"));
  assert.deepEqual([all.got, after.got, last.got], [[], [2], [3]]);
});

test("what has a rate waits until all others that are about the same messages have had theirs", async () => {
  const line = await fakeLine();
  for (const [pattern, place] of [["a.x", 1], ["#", 2], ["a.#", 3]]) {
    line.client.subscribe(pattern, { after: { events: `c${place}` }, max_rate: pattern === "a.x" ? 1 : undefined });
  }
  await welcomed(line);
  const patterns = () => asked(line).map(([pattern]) => pattern);
  assert.deepEqual(patterns(), ["#"]);
  line.socket.says(caughtUp(subscribed(line, "#"), 9));
  assert.deepEqual(patterns(), ["#", "a.#"]);
  line.socket.says(caughtUp(subscribed(line, "a.#"), 9));
  assert.deepEqual(patterns(), ["#", "a.#", "a.x"]);
});

test("of two with the same rate the one that was asked for first brings a message", async () => {
  const line = await openLine();
  const made = ["a.*", "*.x"].map((pattern) => listen(line, pattern, { max_rate: 1 }).subscription);
  listen(line, "a.y");
  line.socket.says(message(1, "a.z"), message(2, "b.x"), message(3, "b"));
  await reconnect(line);
  for (const pattern of ["*.x", "a.y", "a.*"]) line.socket.says(caughtUp(subscribed(line, pattern), 5));
  assert.deepEqual(
    asked(line).map(([pattern]) => pattern),
    ["a.y", "*.x", "a.*"],
  );
  line.socket.says(message(6, "a.x"));
  assert.deepEqual(made.map(({ cursors }) => cursors.events), ["c5", "c6"]);
});

test("what came by the rate of another does not come again after a lost line", async () => {
  const line = await openLine();
  const all = listen(line, "#");
  const slow = listen(line, "a", { max_rate: 2 });
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
