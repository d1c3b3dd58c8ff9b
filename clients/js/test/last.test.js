// The newest messages of each topic first: that they come once, and that nothing is left out where the line breaks meanwhile.

import assert from "node:assert/strict";
import { test } from "node:test";

import { caughtUp, collect, message, openLine, reconnect, replayed, subscribed } from "../testing/fakes.js";

/** What was asked for on this line, in order. */
const asked = (line) => line.socket.of("subscribe").map(({ after, last }) => [after?.events, last]);

test("last is asked for once, and there is no cursor before all of it has come", async () => {
  const line = await openLine();
  const { subscription, got } = collect(line, "a.*", { last: 2 });
  assert.deepEqual(asked(line), [[undefined, 2]]);
  const id = subscribed(line, "a.*", 9);
  line.socket.says(replayed(3, "a.x"), replayed(4, "a.x"), replayed(5, "a.y"));
  assert.deepEqual(subscription.cursors, {});
  line.socket.says(caughtUp(id, 9));
  assert.deepEqual([got, subscription.cursors], [[3, 4, 5], { events: "c9" }]);
  await reconnect(line);
  assert.deepEqual(asked(line), [["c9", undefined]]);
});

test("a line that breaks before last has come leaves out nothing that was promised, and brings the rest of it", async () => {
  const line = await openLine();
  collect(line, "#");
  subscribed(line, "#", 8);
  const { subscription, got } = collect(line, "a.*", { last: 1 });
  subscribed(line, "a.*", 9);
  line.socket.says(replayed(3, "a.x"), message(10, "a.x"));
  await reconnect(line);
  line.socket.says(caughtUp(subscribed(line, "#", 10), 14));
  assert.deepEqual(asked(line).slice(1), [["c9", undefined]]);

  subscribed(line, "a.*", 9);
  assert.deepEqual(asked(line).slice(2), [[undefined, 1]], "as soon as it stands");
  line.socket.says(...[10, 11, 12].map((number) => replayed(number, "a.x")));
  const id = subscribed(line, "a.*", 12);
  line.socket.says(replayed(4, "a.y"), replayed(12, "a.x"));
  assert.deepEqual(subscription.cursors, {});
  line.socket.says(caughtUp(id, 14), message(15, "a.y"));
  assert.deepEqual(got, [3, 10, 11, 12, 4, 15]);
  assert.deepEqual(subscription.cursors, { events: "c15" });
});

test("however often the line breaks, what last has brought does not come again", async () => {
  const line = await openLine();
  const { got } = collect(line, "a.*", { last: 2 });
  subscribed(line, "a.*", 9);
  line.socket.says(replayed(3, "a.x"), replayed(4, "a.x"));
  await reconnect(line);
  line.socket.says(caughtUp(subscribed(line, "a.*", 9), 9));
  line.socket.says(message(10, "a.x"));
  subscribed(line, "a.*", 10);
  line.socket.says(replayed(4, "a.x"), replayed(10, "a.x"), replayed(5, "a.y"));
  await reconnect(line);
  assert.deepEqual(asked(line), [["c10", undefined]]);
  line.socket.says(caughtUp(subscribed(line, "a.*", 10), 10));
  const id = subscribed(line, "a.*", 10);
  line.socket.says(...[4, 10].map((number) => replayed(number, "a.x")), replayed(5, "a.y"), replayed(6, "a.z"));
  line.socket.says(caughtUp(id, 11));
  assert.deepEqual(got, [3, 4, 10, 5, 6]);
});

test("another one that is about the same messages waits for the rest of last", async () => {
  const line = await openLine();
  const [one, other] = ["a.*", "*.x"].map((pattern) => collect(line, pattern, { last: 1 }));
  subscribed(line, "a.*", 9);
  await reconnect(line);
  subscribed(line, "a.*", 9);
  line.socket.says(replayed(10, "a.y"));
  const id = subscribed(line, "a.*", 10);
  line.socket.says(replayed(3, "a.x"));
  assert.deepEqual([asked(line).length, one.got, other.got], [2, [10, 3], []]);
  line.socket.says(caughtUp(id, 10));
  assert.equal(line.socket.of("subscribe").at(-1).pattern, "*.x");
});

test("with one more of a topic than last brings, it goes on from there", async () => {
  const line = await openLine();
  const all = collect(line, "#");
  subscribed(line, "#", 9);
  const { subscription, got } = collect(line, "a.*", { last: 2, max_rate: 1 });
  subscribed(line, "a.*", 9);
  line.socket.says(replayed(3, "a.x"), replayed(4, "a.x"), replayed(5, "a.y"), replayed(10, "a.y"));
  assert.deepEqual(subscription.cursors, {}, "all of it may be history");
  line.socket.says(replayed(11, "a.x"), replayed(12, "a.z"));
  assert.deepEqual(subscription.cursors, { events: "c12" });
  assert.deepEqual([got, all.got], [
    [3, 4, 5, 10, 11, 12],
    [11, 12],
  ]);
});

test("who is refused the rest of last is unsubscribed altogether", async () => {
  const line = await openLine();
  collect(line, "a", { last: 1 });
  subscribed(line, "a", 9);
  await reconnect(line);
  subscribed(line, "a", 9);
  const { id } = line.socket.of("subscribe")[1];
  line.socket.says({ op: "error", id, code: "limit", message: "no more" });
  assert.deepEqual([line.of("error").length, line.socket.of("unsubscribe").length], [1, 1]);
  await reconnect(line);
  assert.deepEqual(asked(line), []);
});
