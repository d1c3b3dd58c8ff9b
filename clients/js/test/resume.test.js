// Which subscription gets a message, which cursor it hands back after a lost line, and that nothing comes twice.

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
  settled,
  subscribed,
  welcomed,
} from "../testing/fakes.js";

test("a message goes to every subscription that it matches, and to no other", async () => {
  const line = await openLine();
  const [all, stars, other] = ["a.#", "a.*", "b.#"].map((pattern) => collect(line, pattern));
  for (const pattern of ["a.#", "a.*", "b.#"]) subscribed(line, pattern, 0);
  line.socket.says(message(1, "a.x"), message(2, "a.x.y"), message(3, "b"), message(4, "c"));
  assert.deepEqual([all.got, stars.got, other.got], [[1, 2], [1], [3]]);
});

test("a message that comes again is delivered once", async () => {
  const line = await openLine();
  const { got } = collect(line, "a");
  subscribed(line, "a", 0);
  line.socket.says(message(1, "a"), message(1, "a"), message(2, "a"));
  assert.deepEqual(got, [1, 2]);
});

test("before subscribed nothing is delivered", async () => {
  const line = await openLine();
  collect(line, "a.#");
  subscribed(line, "a.#", 0);
  const late = collect(line, "a.b");
  line.socket.says(message(1, "a.b"));
  subscribed(line, "a.b", 1);
  line.socket.says(message(2, "a.b"));
  assert.deepEqual(late.got, [2]);
});

test("a subscription that is tied to a source hears only that one", async () => {
  const line = await openLine();
  const { got, subscription } = collect(line, "#", { source: "audit" });
  assert.equal(line.socket.of("subscribe")[0].source, "audit");
  subscribed(line, "#", 0, { cursors: { audit: "d0" } });
  line.socket.says(message(1, "a"), message(2, "a", { source: "audit", cursor: "d2" }));
  line.socket.says({ op: "position", cursors: { events: "c9", audit: "d3" } });
  assert.deepEqual(got, [2]);
  assert.deepEqual(subscription.cursors, { audit: "d3" });
});

test("resubscribes with the newest cursor of each source, also where nothing matched", async () => {
  const line = await openLine();
  collect(line, "a");
  collect(line, "quiet");
  for (const pattern of ["a", "quiet"]) subscribed(line, pattern, 0, { cursors: { events: "c0", audit: "d0" } });
  line.socket.says(message(1, "a"), message(2, "a"), message(1, "a", { source: "audit", cursor: "d1" }));
  await reconnect(line);
  const asked = line.socket.of("subscribe");
  assert.deepEqual(
    asked.map(({ pattern }) => pattern),
    ["a", "quiet"],
    "they are about different messages: at once",
  );
  for (const { after } of asked) assert.deepEqual(after, { events: "c2", audit: "d1" });
});

test("a position moves a quiet subscription", async () => {
  const line = await openLine();
  const { subscription } = collect(line, "a");
  subscribed(line, "a", 0);
  line.socket.says({ op: "position", cursors: { events: "c7", audit: "d7" } });
  assert.deepEqual(subscription.cursors, { events: "c7", audit: "d7" });
});

test("while one replays, live messages of another do not move its cursor, and wait for it", async () => {
  const line = await openLine();
  const live = collect(line, "a.#");
  subscribed(line, "a.#", 10);
  const replaying = collect(line, "a.b", { after: { events: "c3" } });
  assert.deepEqual(line.socket.of("subscribe").at(-1).after, { events: "c3" });
  subscribed(line, "a.b", 10);
  line.socket.says(replayed(4, "a.b"), message(11, "a.b"), message(12, "a.x"));
  line.socket.says({ op: "position", cursors: { events: "c12" } });
  assert.deepEqual(replaying.got, [4]);
  assert.deepEqual(live.got, [11, 12], "what is replayed was not for it");
  assert.deepEqual(replaying.subscription.cursors, { events: "c4" });
  assert.deepEqual(live.subscription.cursors, { events: "c12" });

  await reconnect(line);
  const [first] = line.socket.of("subscribe");
  assert.deepEqual(first.after, { events: "c12" });
  assert.equal(line.socket.of("subscribe").length, 1, "the other waits for its turn");
  const id = subscribed(line, "a.#", 13);
  line.socket.says(replayed(13, "a.b"), caughtUp(id, 13));
  assert.deepEqual(live.got, [11, 12, 13]);
  assert.deepEqual(replaying.got, [4], "nothing of a turn that is not its own");

  const second = line.socket.of("subscribe")[1];
  assert.deepEqual([second.pattern, second.after], ["a.b", { events: "c4" }]);
  subscribed(line, "a.b", 13);
  line.socket.says(...[5, 11, 13].map((number) => replayed(number, "a.b")));
  line.socket.says(caughtUp(second.id, 13), message(14, "a.b"));
  assert.deepEqual(replaying.got, [4, 5, 11, 13, 14], "11 comes where it belongs");
  assert.deepEqual(live.got, [11, 12, 13, 14]);
  assert.deepEqual(replaying.subscription.cursors, { events: "c14" });
});

test("those that are about the same messages replay one after the other, also from the same place", async () => {
  const line = await openLine();
  const after = { events: "c1" };
  const [one, other] = ["a.*", "*.x"].map((pattern) => collect(line, pattern, { after }));
  const id = subscribed(line, "a.*", 1);
  line.socket.says(replayed(3, "a.x"), replayed(4, "a.y"));
  assert.equal(line.socket.of("subscribe").length, 1);
  line.socket.says(caughtUp(id, 4));
  subscribed(line, "*.x", 1);
  line.socket.says(replayed(2, "b.x"), replayed(3, "a.x"));
  assert.deepEqual([one.got, other.got], [
    [3, 4],
    [2, 3],
  ]);
});

test("what still comes for one that was let go as it replayed moves no other", async () => {
  const line = await openLine();
  const after = { events: "c1" };
  const kept = collect(line, "a.b", { after, max_rate: 1 });
  subscribed(line, "a.b", 1);
  const let_go = collect(line, "a.#", { after });
  subscribed(line, "a.#", 1);
  let_go.subscription.unsubscribe();
  line.socket.says(replayed(4, "a.b"));
  assert.deepEqual(kept.subscription.cursors, { events: "c1" }, "2 and 3 have not come");
  line.socket.says({ op: "ok", id: line.socket.of("unsubscribe")[0].id });
  await settled();
  line.socket.says(...[2, 3, 4].map((number) => replayed(number, "a.b")));
  assert.deepEqual(kept.got, [4, 2, 3]);
  assert.deepEqual(kept.subscription.cursors, { events: "c4" });
});

test("what comes before another that replays too has its answer comes once", async () => {
  const line = await openLine();
  const after = { events: "c1" };
  const first = collect(line, "a.b", { after, max_rate: 1 });
  subscribed(line, "a.b", 1);
  const late = collect(line, "a.#", { after });
  line.socket.says(replayed(2, "a.b"));
  subscribed(line, "a.#", 1);
  line.socket.says(replayed(2, "a.b"));
  assert.deepEqual([late.got, first.got], [[2], [2]]);
});

test("nobody joins one that has gone on since it asked", async () => {
  const line = await openLine();
  const after = { events: "c1" };
  const { got } = collect(line, "a.b", { after });
  const id = subscribed(line, "a.b", 1);
  line.socket.says(replayed(2, "a.b"));
  collect(line, "a.#", { after });
  assert.equal(line.socket.of("subscribe").length, 1, "it waits for its turn");
  line.socket.says(caughtUp(id, 2));
  assert.deepEqual(line.socket.of("subscribe")[1].after, after);
  subscribed(line, "a.#", 1);
  line.socket.says(replayed(2, "a.b"));
  assert.deepEqual(got, [2]);
});

test("once caught up, the cursor is where the server says that the replay ended", async () => {
  const line = await openLine();
  const { subscription } = collect(line, "a", { after: { events: "c1" } });
  const id = subscribed(line, "a", 1);
  line.socket.says(replayed(2, "a"), message(6, "b"));
  assert.deepEqual(subscription.cursors, { events: "c2" });
  line.socket.says(caughtUp(id, 6));
  assert.deepEqual(subscription.cursors, { events: "c6" });
});

test("a replay that nothing live followed is not asked for again", async () => {
  const line = await openLine();
  const { got } = collect(line, "a", { after: { events: "c1" } });
  const id = subscribed(line, "a", 1);
  line.socket.says(replayed(2, "a"), caughtUp(id, 2));
  await reconnect(line);
  assert.deepEqual(line.socket.of("subscribe")[0].after, { events: "c2" });
  assert.deepEqual(got, [2]);
});

test("what is live waits until a subscription has had what it missed, and comes once", async () => {
  const line = await openLine();
  collect(line, "*", { after: { events: "c1" } });
  const waiting = collect(line, "a", { after: { events: "c2" } });
  assert.equal(line.socket.of("subscribe").length, 1);
  line.socket.says(message(9, "a"));
  line.socket.says(caughtUp(subscribed(line, "*", 9), 9));
  const id = subscribed(line, "a", 9);
  line.socket.says(message(10, "a"), replayed(3, "a"), replayed(9, "a"), message(11, "a"));
  assert.deepEqual(waiting.got, [3, 9]);
  line.socket.says(caughtUp(id, 11), message(11, "a"), message(12, "a"));
  assert.deepEqual(waiting.got, [3, 9, 10, 11, 12]);
});

test("what waits when the line breaks comes even where the replay does not bring it", async () => {
  const line = await openLine();
  collect(line, "*.b");
  subscribed(line, "*.b", 9);
  const { got } = collect(line, "a.*", { after: { events: "c3" } });
  subscribed(line, "a.*", 9);
  line.socket.says(message(11, "a.b"), replayed(4, "a.c"), replayed(12, "a.c"));
  await reconnect(line);
  line.socket.says(caughtUp(subscribed(line, "*.b", 11), 11));
  assert.deepEqual(line.socket.of("subscribe")[1].after, { events: "c12" });
  const id = subscribed(line, "a.*", 12);
  line.socket.says(replayed(13, "a.c"), caughtUp(id, 13));
  assert.deepEqual(got, [4, 12, 13, 11]);
});

test("what waits comes before the end that the server gives", async () => {
  const line = await openLine();
  collect(line, "#");
  subscribed(line, "#", 9);
  const [refused, closed] = ["a", "b"].map((pattern) => collect(line, pattern, { after: { events: "c1" } }));
  const id = subscribed(line, "a", 9);
  subscribed(line, "b", 9);
  line.socket.says(message(10, "a"), message(11, "b"), { op: "error", id, code: "refused", message: "no more" });
  line.socket.ends(4403);
  assert.deepEqual([refused.got, closed.got], [[10], [11]]);
});

test("what is live waits in bounds: beyond them the first comes early, and once", async () => {
  const line = await openLine();
  collect(line, "#");
  subscribed(line, "#", 9);
  const { got } = collect(line, "a", { after: { events: "c1" } });
  const id = subscribed(line, "a", 9);
  for (let number = 10; number < 10_011; number++) line.socket.says(message(number, "a"));
  assert.deepEqual(got, [10]);
  line.socket.says(replayed(2, "a"), replayed(10, "a"), caughtUp(id, 10_010));
  assert.deepEqual(got.slice(0, 4), [10, 2, 11, 12]);
  assert.equal(got.length, 10_002);
});

test("who unsubscribes at the first of what waited hears no more of it", async () => {
  const line = await openLine();
  collect(line, "#");
  subscribed(line, "#", 9);
  const got = [];
  const onmessage = ({ data }) => {
    got.push(data);
    line.client.unsubscribe("a");
  };
  line.client.subscribe("a", { after: { events: "c1" }, onmessage });
  const id = subscribed(line, "a", 9);
  line.socket.says(message(10, "a"), message(11, "a"), caughtUp(id, 11));
  assert.deepEqual(got, [10]);
});

test("nobody waits for one that is about other messages", async () => {
  const line = await openLine();
  const from = (pattern, place) => collect(line, pattern, { after: { events: `c${place}` }, source: "events" });
  const [one, other] = ["a.#", "*.b"].map(from);
  assert.equal(line.socket.of("subscribe").length, 1, "a.b may be for either");
  const apart = from("b.a", 2);
  const tied = collect(line, "#", { after: { audit: "d1" }, source: "audit" });
  assert.deepEqual(
    line.socket.of("subscribe").map(({ pattern }) => pattern),
    ["a.#", "b.a", "#"],
  );
  for (const pattern of ["a.#", "b.a", "#"]) subscribed(line, pattern, 9);
  line.socket.says(...["b.a", "a.b", "a.c"].map((topic, place) => replayed(3 + place, topic)));
  assert.deepEqual([one.got, other.got, apart.got, tied.got], [[4, 5], [], [3], []]);
  const cursors = [one, other, apart].map(({ subscription }) => subscription.cursors.events);
  assert.deepEqual(cursors, ["c5", "c1", "c3"]);
});

test("ready tells whether anything was missed; a gap goes to its subscription and to the client", async () => {
  const line = await openLine();
  const gaps = [];
  const subscription = line.client.subscribe("#.#", { after: { events: "c1" }, ongap: (gap) => gaps.push(gap) });
  subscribed(line, "#", 9, { resumed: true });
  assert.deepEqual(await subscription.ready, { resumed: true });
  line.socket.says({ op: "gap", pattern: "#", source: "events", missed: 4, reason: "expired" });
  const gap = { pattern: "#", source: "events", missed: 4, reason: "expired" };
  assert.deepEqual([gaps, line.of("gap")], [[gap], [gap]]);
});

test("what the broker's link does is told", async () => {
  const line = await openLine();
  line.socket.says({ op: "outage", source: "events" }, { op: "restored", source: "events" });
  assert.deepEqual([line.of("outage"), line.of("restored")], [[{ source: "events" }], [{ source: "events" }]]);
});

test("a refused subscribe ends that subscription only; an unavailable one is tried again", async () => {
  const line = await openLine();
  const refused = line.client.subscribe("secret.#");
  const reading = refused[Symbol.asyncIterator]().next();
  const other = collect(line, "a");
  const [one, two] = line.socket.of("subscribe");
  line.socket.says({ op: "error", id: one.id, code: "forbidden", message: "not for you" });
  line.socket.says({ op: "error", id: two.id, code: "unavailable", message: "the broker is away" });
  await assert.rejects(refused.ready, { code: "forbidden", message: "not for you" });
  await assert.rejects(reading, { code: "forbidden" });
  await line.clock.advance(1_000);
  assert.deepEqual(
    line.socket.of("subscribe").map(({ pattern }) => pattern),
    ["secret.#", "a", "a"],
  );
  subscribed(line, "a", 1);
  line.socket.says(message(2, "a"));
  assert.deepEqual(other.got, [2]);
});

test("unsubscribe says so, ends the iteration and hears no more", async () => {
  const line = await openLine();
  const subscription = line.client.subscribe("a");
  subscribed(line, "a", 0);
  line.socket.says(message(1, "a"), message(2, "a"));
  const got = [];
  for await (const { data } of subscription) {
    got.push(data);
    if (data === 2) break;
  }
  assert.deepEqual(got, [1, 2]);
  assert.deepEqual(
    line.socket.of("unsubscribe").map(({ pattern }) => pattern),
    ["a"],
  );
  line.socket.says(message(3, "a"));
  assert.equal((await subscription[Symbol.asyncIterator]().next()).done, true);
  await reconnect(line);
  assert.deepEqual(line.socket.of("subscribe"), []);
});

test("a subscribe that was taken back before it stood is no error", async () => {
  const line = await openLine();
  line.client.subscribe("a").unsubscribe();
  const [{ id }] = line.socket.of("subscribe");
  line.socket.says({ op: "error", id, code: "not_found", message: "it was unsubscribed before it stood" });
  line.socket.says({ op: "ok", id: line.socket.of("unsubscribe")[0].id });
  assert.deepEqual(line.of("error"), []);
});

test("the same pattern twice is refused in words, also in another writing", async () => {
  const line = await openLine();
  line.client.subscribe("a.#.*");
  assert.throws(() => line.client.subscribe("a.*.#"), { code: "duplicate", message: /unsubscribe it first/ });
});

test("subscriptions made before the line is open are asked for when it is", async () => {
  const line = await fakeLine();
  const { got } = collect(line, "a");
  assert.deepEqual(line.socket.sent, []);
  await welcomed(line);
  subscribed(line, "a", 0);
  line.socket.says(message(1, "a"));
  assert.deepEqual(got, [1]);
});

test("an iterator that nobody reads is bounded, and says what it dropped", async () => {
  const line = await openLine();
  const subscription = line.client.subscribe("a");
  subscribed(line, "a", 0);
  for (let number = 1; number <= 10_001; number++) line.socket.says(message(number, "a"));
  assert.deepEqual(line.of("gap"), [{ pattern: "a", source: null, missed: 5_000, reason: "slow" }]);
  const { value } = await subscription[Symbol.asyncIterator]().next();
  assert.equal(value.data, 5_001);
});

test("a handler that throws breaks nothing", async (context) => {
  const line = await openLine();
  const faults = [];
  context.mock.method(console, "error", (error) => faults.push(error.message));
  line.client.subscribe("a.#", () => {
    throw new Error("of the page");
  });
  const { got } = collect(line, "a.b");
  for (const pattern of ["a.#", "a.b"]) subscribed(line, pattern, 0);
  line.socket.says(message(1, "a.b"));
  await settled();
  assert.deepEqual([got, faults], [[1], ["of the page"]]);
});
