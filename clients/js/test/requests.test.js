// Publish, call and ping: answers, refusals, lost lines, limits.

import assert from "node:assert/strict";
import { test } from "node:test";

import { connect } from "../passerelle.js";
import { WELCOME, fakeLine, openLine, settled, welcomed } from "../testing/fakes.js";

test("publish resolves with whether any queue got it", async () => {
  const line = await openLine();
  const publish = line.client.publish("a.b", { n: 1 }, { message_id: "m", headers: { h: 1 } });
  await settled();
  const [{ id, ...sent }] = line.socket.of("publish");
  assert.deepEqual(sent, { op: "publish", topic: "a.b", data: { n: 1 }, message_id: "m", headers: { h: 1 } });
  line.socket.says({ op: "ok", id, routed: false });
  assert.deepEqual(await publish, { routed: false });
});

test("answers find their request, in whatever order they come", async () => {
  const line = await openLine();
  const calls = ["one", "two"].map((topic) => line.client.call(topic, null, { timeout_ms: 500 }));
  await settled();
  const [one, two] = line.socket.of("call");
  assert.equal(one.timeout_ms, 500);
  line.socket.says(
    { op: "result", id: two.id, data: 2 },
    { op: "error", id: one.id, code: "timeout", message: "nobody answered" },
  );
  await assert.rejects(calls[0], { name: "PasserelleError", code: "timeout", message: "nobody answered" });
  assert.deepEqual(await calls[1], { data: 2 });
});

test("bytes travel as they are, both ways", async () => {
  const line = await openLine();
  const bytes = new Uint8Array([0, 255, 128, 10]);
  const call = line.client.call("echo", bytes.subarray(1));
  await settled();
  const [{ id, data_base64, data }] = line.socket.of("call");
  assert.deepEqual([data_base64, data], ["/4AK", undefined]);
  line.socket.says({ op: "result", id, data_base64 });
  assert.deepEqual((await call).data, bytes.subarray(1));
});

test("ping measures the way there and back", async () => {
  const line = await openLine();
  const ping = line.client.ping();
  await settled();
  await line.clock.advance(12);
  line.socket.says({ op: "pong", id: line.socket.of("ping")[0].id });
  assert.equal(await ping, 12);
});

test("a request waits for the line, but not for ever", async () => {
  const line = await fakeLine();
  const early = line.client.publish("a", 1);
  await welcomed(line);
  line.socket.says({ op: "ok", id: line.socket.of("publish")[0].id, routed: true });
  assert.deepEqual(await early, { routed: true });

  line.socket.ends(1006);
  const late = assert.rejects(line.client.publish("a", 2), { code: "unavailable" });
  await line.clock.advance(10_000);
  await late;
  await welcomed(line);
  assert.deepEqual(line.socket.of("publish"), [], "what was answered with unavailable is not sent after all");
});

test("what waited for the line goes out in order, before what is asked for when it opens", async () => {
  const line = await fakeLine();
  const publish = (number) => line.client.publish("a", number).catch(() => {});
  line.client.on("state", ({ state }) => state === "open" && publish(3));
  line.client.on("open", () => publish(4));
  for (const number of [1, 2]) publish(number);
  await welcomed(line);
  assert.deepEqual(
    line.socket.of("publish").map(({ data }) => data),
    [1, 2, 3, 4],
  );
});

test("what waits for the line goes out as it was when it was asked for", async () => {
  const line = await fakeLine();
  const order = { items: [1] };
  line.client.publish("a", order).catch(() => {});
  order.items.push(2);
  await welcomed(line);
  assert.deepEqual(line.socket.of("publish")[0].data, { items: [1] });
});

test("what cannot be written is refused at once, what is too large when the line says so", async () => {
  const line = await fakeLine();
  await assert.rejects(line.client.publish("a", 1n), TypeError);
  const large = assert.rejects(line.client.publish("a", "x".repeat(200)), { code: "limit" });
  const small = assert.rejects(line.client.publish("a", "x"), { code: "unavailable" });
  await welcomed(line, { ...WELCOME, max_message_bytes: 100 });
  await large;
  assert.equal(line.socket.of("publish").length, 1);
  line.client.close();
  await small;
});

test("only so many requests wait for the line", async () => {
  const line = await fakeLine();
  const waiting = Array.from({ length: 1_000 }, () => line.client.publish("a", 1));
  await assert.rejects(line.client.publish("a", 1), { code: "unavailable" });
  line.client.close();
  const results = await Promise.allSettled(waiting);
  assert.ok(results.every(({ status, reason }) => status === "rejected" && reason.code === "unavailable"));
});

test("what was in flight on a lost line is unavailable and is not sent again", async () => {
  const line = await openLine();
  const publish = assert.rejects(line.client.publish("a", 1), { code: "unavailable" });
  await settled();
  line.socket.ends(1006);
  await publish;
  await line.clock.advance(250);
  await welcomed(line);
  assert.deepEqual(line.socket.of("publish"), []);
});

test("what is too large is refused here, because the server would end the line", async () => {
  const line = await fakeLine();
  await welcomed(line, { ...WELCOME, max_message_bytes: 100 });
  await assert.rejects(line.client.publish("a", "é".repeat(50)), { code: "limit" });
  assert.deepEqual(line.socket.of("publish"), []);
});

test("nothing at all cannot be published", async () => {
  const line = await openLine();
  await assert.rejects(line.client.publish("a", undefined), TypeError);
});

test("an error without a request, and what is no JSON, are events", async () => {
  const line = await openLine();
  line.socket.says({ op: "error", code: "unknown_op", message: "what?" }, "{");
  assert.deepEqual(
    line.of("error").map(({ code }) => code),
    ["unknown_op", "bad_message"],
  );
  assert.equal(line.client.state, "open");
});

test("unknown words of a newer server are passed over", async () => {
  const line = await openLine();
  line.socket.says({ op: "weather", sun: true }, { op: "toString" });
  assert.equal(line.client.state, "open");
});

test("http URLs become ws URLs, others are refused", async () => {
  const seen = [];
  class Socket {
    constructor(url, protocols) {
      seen.push([url, protocols]);
    }
    close() {}
  }
  const client = connect("https://example.org/base/ws", { WebSocket: Socket });
  await settled();
  client.close();
  assert.deepEqual(seen, [["wss://example.org/base/ws", ["passerelle.v1.json"]]]);
  assert.throws(() => connect("ftp://example.org/"), TypeError);
});

test("a handle that was unsubscribed does not end the one that came after it", async () => {
  const line = await openLine();
  const one = line.client.subscribe("a");
  one.unsubscribe();
  const two = line.client.subscribe("a");
  one.unsubscribe();
  const [, { id }] = line.socket.of("subscribe");
  line.socket.says({ op: "subscribed", id, cursors: {} });
  await two.ready;
  assert.equal(line.socket.of("unsubscribe").length, 1);
});

for (const event of ["close", "revoked"]) {
  test(`what is asked for while ${event} is told goes out on the next line`, async () => {
    const line = await openLine();
    let published;
    let subscription;
    line.client.consume("jobs", {}, () => {});
    line.socket.says({ op: "ok", id: line.socket.of("consume")[0].id });
    line.socket.says({ op: "message", source: "jobs", topic: "a", delivery_tag: "t1", data: 1 });
    const off = line.client.on(event, () => {
      off();
      subscription = line.client.subscribe("late");
      published = line.client.publish("a", 1);
    });
    line.socket.ends(1006);
    await line.clock.advance(250);
    await welcomed(line);
    await settled();
    const [{ id, pattern }] = line.socket.of("subscribe");
    assert.equal(pattern, "late");
    const [publish] = line.socket.of("publish");
    line.socket.says({ op: "subscribed", id, cursors: {} }, { op: "ok", id: publish.id, routed: true });
    await subscription.ready;
    assert.deepEqual(await published, { routed: true });
  });
}

test("what is refused for the moment is asked for again together, without regard to lines that were lost", async () => {
  const line = await openLine();
  const patterns = ["a", "b", "c", "d", "e", "f"];
  for (const pattern of patterns) line.client.subscribe(pattern);
  for (const pause of [187.5, 375]) {
    const asked = line.socket.of("subscribe").slice(-patterns.length);
    line.socket.says(...asked.map(({ id }) => ({ op: "error", id, code: "unavailable", message: "later" })));
    await line.clock.advance(pause);
    assert.deepEqual(
      line.socket.of("subscribe").slice(-patterns.length).map(({ pattern }) => pattern),
      patterns,
    );
  }
  assert.equal(line.socket.of("subscribe").length, 3 * patterns.length);
  line.socket.ends(1006);
  assert.equal(line.of("close").at(-1).reconnect_in_ms, 187.5);
});

test("a client that is closed while a refusal is told leaves no timer behind", async () => {
  const line = await openLine();
  line.client.on("error", () => line.client.close());
  line.client.subscribe("a");
  const [{ id }] = line.socket.of("subscribe");
  line.socket.says({ op: "error", id, code: "unavailable", message: "later" });
  assert.equal(line.client.state, "closed");
  assert.deepEqual(line.clock.pending, []);
});
