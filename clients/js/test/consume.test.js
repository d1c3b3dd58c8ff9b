// Queues that are consumed: settling, what is revoked, lost lines, refusals.

import assert from "node:assert/strict";
import { test } from "node:test";

import { openLine, settled, welcomed } from "../testing/fakes.js";

/** A delivery of the queue `jobs`, its tag made of its number. */
const delivery = (number, rest = {}) => ({
  op: "message",
  source: "jobs",
  topic: "a.b",
  delivery_tag: `t${number}`,
  data: number,
  timestamp_ms: number,
  ...rest,
});

/** A line that consumes `jobs`, and what came. */
async function consuming(options = { prefetch: 2 }) {
  const line = await openLine();
  line.got = [];
  line.consumption = line.client.consume("jobs", options, (message) => line.got.push(message));
  const [{ id }] = line.socket.of("consume");
  line.socket.says({ op: "ok", id });
  await line.consumption.ready;
  return line;
}

test("a queue is asked for, and its messages are settled one by one", async () => {
  const line = await consuming();
  const [{ id: _, ...asked }] = line.socket.of("consume");
  assert.deepEqual(asked, { op: "consume", queue: "jobs", prefetch: 2 });
  line.socket.says(delivery(1), delivery(2, { redelivered: true }));
  const [one, two] = line.got;
  assert.deepEqual([one.data, one.held, two.redelivered], [1, true, true]);
  const acked = one.ack();
  const refused = two.nack({ requeue: false });
  await settled();
  const [ack] = line.socket.of("ack");
  const [nack] = line.socket.of("nack");
  assert.deepEqual([ack.delivery_tag, nack.delivery_tag, nack.requeue], ["t1", "t2", false]);
  line.socket.says({ op: "ok", id: ack.id }, { op: "error", id: nack.id, code: "stale_tag", message: "too late" });
  await acked;
  await assert.rejects(refused, { code: "stale_tag", message: "too late" });
  assert.equal(one.held, false);
});

test("a message is settled once", async () => {
  const line = await consuming();
  line.socket.says(delivery(1));
  line.got[0].ack().catch(() => {});
  await assert.rejects(line.got[0].nack(), { code: "stale_tag" });
  await settled();
  assert.equal(line.socket.of("ack").length, 1);
  assert.deepEqual(line.socket.of("nack"), []);
});

test("what is revoked is told and cannot be settled any more", async () => {
  const revoked = [];
  const line = await consuming({ onrevoked: ({ data }) => revoked.push(data) });
  line.socket.says(delivery(1), delivery(2), { op: "revoked", delivery_tags: ["t1", "unknown"] });
  assert.deepEqual(revoked, [1]);
  assert.deepEqual(
    line.of("revoked").map(({ data }) => data),
    [1],
  );
  assert.deepEqual([line.got[0].held, line.got[1].held], [false, true]);
  await assert.rejects(line.got[0].ack(), { code: "stale_tag" });
  assert.deepEqual(line.socket.of("ack"), [], "the server is not even asked");
});

test("after a lost line it consumes again, and nothing of before is held", async () => {
  const line = await consuming();
  line.socket.says(delivery(1), delivery(2));
  const asked = assert.rejects(line.got[0].ack(), { code: "unavailable" });
  await settled();
  line.socket.ends(1006);
  await asked;
  assert.deepEqual(
    line.of("revoked").map(({ data }) => data),
    [2],
    "of what was settled nobody knows",
  );
  await line.clock.advance(250);
  await welcomed(line);
  const [{ queue, prefetch }] = line.socket.of("consume");
  assert.deepEqual([queue, prefetch], ["jobs", 2]);
  await assert.rejects(line.got[1].ack(), { code: "stale_tag" });
  line.socket.says(delivery(3, { redelivered: true, data: 2 }));
  assert.equal(line.got[2].held, true);
});

test("a cancelled queue brings no more, and what is held can be settled", async () => {
  const line = await consuming();
  line.socket.says(delivery(1));
  line.consumption.cancel();
  await settled();
  assert.equal(line.socket.of("cancel")[0].queue, "jobs");
  // It was on its way: it goes back, and the page does not see it.
  line.socket.says(delivery(2));
  await settled();
  assert.equal(line.got.length, 1);
  assert.equal(line.socket.of("nack")[0].delivery_tag, "t2");
  line.got[0].ack().catch(() => {});
  await settled();
  assert.equal(line.socket.of("ack")[0].delivery_tag, "t1");
  line.client.consume("jobs", {}, () => {});
  assert.equal(line.socket.of("consume").length, 2);
});

test("a refusal rejects and is an event; what is unavailable is asked for again", async () => {
  const line = await openLine();
  const forbidden = line.client.consume("salaries", {}, () => {});
  line.socket.says({ op: "error", id: line.socket.of("consume")[0].id, code: "forbidden", message: "no" });
  await assert.rejects(forbidden.ready, { code: "forbidden" });
  assert.deepEqual(
    line.of("error").map(({ code }) => code),
    ["forbidden"],
  );
  const away = line.client.consume("jobs", {}, () => {});
  line.socket.says({ op: "error", id: line.socket.of("consume")[1].id, code: "unavailable", message: "later" });
  await line.clock.advance(250);
  line.socket.says({ op: "ok", id: line.socket.of("consume")[2].id });
  await away.ready;
});

for (const code of ["limit", "in_use"]) {
  test(`${code} passes for a queue that was consumed before, perhaps by a line that is not seen to be gone`, async () => {
    const line = await openLine();
    const refuse = () => line.socket.says({ op: "error", id: line.socket.of("consume").at(-1).id, code, message: "no" });
    const stranger = line.client.consume("jobs", {}, () => {});
    refuse();
    await assert.rejects(stranger.ready, { code });

    const got = [];
    line.client.consume("jobs", {}, ({ data }) => got.push(data));
    line.socket.says({ op: "ok", id: line.socket.of("consume").at(-1).id });
    line.socket.ends(1006);
    await line.clock.advance(250);
    await welcomed(line);
    for (const pause of [187.5, 375, 750]) {
      refuse();
      await line.clock.advance(pause);
    }
    assert.equal(line.socket.of("consume").length, 4);
    line.socket.says({ op: "ok", id: line.socket.of("consume").at(-1).id }, delivery(1));
    assert.deepEqual(got, [1]);
    assert.equal(line.of("error").length, 4);
  });
}

test("a queue that ends later is told, and can be consumed anew", async () => {
  const line = await consuming();
  const { id } = line.socket.of("consume")[0];
  line.socket.says({ op: "error", id, code: "not_found", message: "it was deleted" });
  assert.deepEqual(
    line.of("error").map(({ code }) => code),
    ["not_found"],
  );
  line.client.consume("jobs", {}, () => {});
  assert.equal(line.socket.of("consume").length, 2);
});

test("what cannot be is thrown at once", async () => {
  const line = await consuming();
  assert.throws(() => line.client.consume("jobs", {}, () => {}), { code: "duplicate" });
  assert.throws(() => line.client.consume("other", {}), TypeError);
  assert.throws(() => line.client.consume(7, {}, () => {}), TypeError);
  line.client.close();
  assert.throws(() => line.client.consume("other", {}, () => {}), { code: "closed" });
});

test("messages of subscriptions and of queues do not meet", async () => {
  const line = await consuming();
  const heard = [];
  line.client.subscribe("#", ({ data }) => heard.push(data));
  const [{ id }] = line.socket.of("subscribe");
  line.socket.says({ op: "subscribed", id, pattern: "#", cursors: {}, resumed: false }, delivery(1));
  assert.deepEqual([heard, line.got.map(({ data }) => data)], [[], [1]]);
});

test("what an asynchronous handler does not catch is reported and harms nothing", async () => {
  const line = await openLine();
  const reported = [];
  const report = globalThis.reportError;
  globalThis.reportError = (error) => reported.push(error.code);
  try {
    const work = new Promise((resolve) => (line.done = resolve));
    line.client.consume("jobs", {}, async (message) => {
      await work;
      await message.ack();
    });
    const [{ id }] = line.socket.of("consume");
    line.socket.says({ op: "ok", id }, delivery(1));
    line.socket.ends(1006);
    line.done();
    await settled();
  } finally {
    globalThis.reportError = report;
  }
  assert.deepEqual(reported, ["stale_tag"]);
  assert.equal(line.client.state, "waiting");
});

test("a handle that was cancelled does not end the one that came after it", async () => {
  const line = await consuming();
  line.consumption.cancel();
  const other = line.client.consume("jobs", {}, () => {});
  line.consumption.cancel();
  assert.equal(line.socket.of("consume").length, 2);
  const [, { id }] = line.socket.of("consume");
  line.socket.says({ op: "ok", id });
  await other.ready;
  assert.equal(line.socket.of("cancel").length, 1);
});

for (const [how, end] of [
  ["the line is lost", (line) => line.socket.ends(1006)],
  ["the client is closed", (line) => line.client.close()],
  ["the server says that it is over", (line) => line.socket.ends(4403)],
]) {
  test(`who closes the client when a message is revoked is told so once, where ${how}`, async () => {
    const line = await consuming({ onrevoked: () => line.client.close() });
    line.socket.says(delivery(1));
    end(line);
    const closes = line.of("close").map(({ reconnect_in_ms }) => reconnect_in_ms);
    assert.deepEqual(closes, [null]);
    assert.deepEqual([line.client.state, line.clock.pending], ["closed", []]);
    await line.clock.advance(60_000);
    assert.equal(line.sockets.length, 1);
  });
}
