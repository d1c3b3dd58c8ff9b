// Presence: asking who is there, and being told who comes and goes.

import assert from "node:assert/strict";
import { test } from "node:test";

import { openLine, settled, welcomed } from "../testing/fakes.js";

const ANNA = { user: "anna", connection: "c1" };
const BORIS = { user: "boris", connection: "c2" };

/** A line whose subscription to `chat.42` stands, and what it was told, in order. */
async function inTheRoom() {
  const line = await openLine();
  line.told = [];
  const tell = (kind) => (detail) => line.told.push([kind, detail]);
  line.subscription = line.client.subscribe("chat.42", {
    onmessage: tell("message"),
    onpresence: tell("presence"),
    onjoin: tell("join"),
    onleave: tell("leave"),
  });
  stands(line);
  return line;
}

function stands(line) {
  line.socket.says({ op: "subscribed", id: line.socket.of("subscribe").at(-1).id, pattern: "chat.42", cursors: {} });
}

/** The server answers the newest question. */
function answers(line, roster) {
  line.socket.says({ op: "presence", id: line.socket.of("presence").at(-1).id, pattern: "chat.42", ...roster });
}

test("who is there can be asked, subscribed or not", async () => {
  const line = await openLine();
  const asked = line.client.presence("chat.42");
  await settled();
  const [{ id, ...question }] = line.socket.of("presence");
  assert.deepEqual(question, { op: "presence", pattern: "chat.42" });
  line.socket.says({ op: "presence", id, pattern: "chat.42", count: 1, members: [ANNA] });
  assert.deepEqual(await asked, { pattern: "chat.42", count: 1, members: [ANNA] });
  const refused = line.client.presence("elsewhere");
  await settled();
  const second = line.socket.of("presence").at(-1);
  line.socket.says({ op: "error", id: second.id, code: "unsupported", message: "presence is off" });
  await assert.rejects(refused, { code: "unsupported", message: "presence is off" });
  await assert.rejects(line.client.presence(), TypeError);
});

test("a subscription learns who is there, then who comes and goes, in the order in which it is told", async () => {
  const line = await inTheRoom();
  const id = line.socket.of("presence")[0].id;
  line.socket.says(
    { op: "presence", id, pattern: "chat.42", count: 1, members: [ANNA] },
    { op: "join", topic: "chat.42", ...BORIS },
    { op: "leave", topic: "chat.42", ...ANNA },
    { op: "presence", pattern: "chat.42", count: 101 },
  );
  assert.deepEqual(line.told, [
    ["presence", { pattern: "chat.42", count: 1, members: [ANNA] }],
    ["join", { topic: "chat.42", ...BORIS }],
    ["leave", { topic: "chat.42", ...ANNA }],
    ["presence", { pattern: "chat.42", count: 101 }],
  ]);
  assert.deepEqual(line.of("join"), [{ topic: "chat.42", ...BORIS }]);
  assert.deepEqual(line.of("leave"), [{ topic: "chat.42", ...ANNA }]);
  assert.deepEqual(line.of("presence"), [{ pattern: "chat.42", count: 101 }]);
});

test("after a lost line it is asked again", async () => {
  const line = await inTheRoom();
  answers(line, { count: 1, members: [ANNA] });
  line.socket.ends(1006);
  await line.clock.advance(30_000);
  await welcomed(line);
  stands(line);
  answers(line, { count: 2, members: [ANNA, BORIS] });
  assert.deepEqual(
    line.told.map(([kind, { count }]) => [kind, count]),
    [
      ["presence", 1],
      ["presence", 2],
    ],
  );
});

test("nobody is asked for a subscription that does not want to know, and nobody is told after it ended", async () => {
  const line = await inTheRoom();
  line.subscription.unsubscribe();
  answers(line, { count: 1, members: [ANNA] });
  line.socket.says({ op: "join", topic: "chat.42", ...BORIS });
  assert.deepEqual(line.told, []);
  line.client.subscribe("chat.42", () => {});
  stands(line);
  assert.equal(line.socket.of("presence").length, 1);
});

test("a refusal is an error event, a lost line is none", async () => {
  const line = await inTheRoom();
  const { id } = line.socket.of("presence")[0];
  line.socket.says({ op: "error", id, code: "unsupported", message: "presence is off" });
  assert.deepEqual(
    line.of("error").map(({ code }) => code),
    ["unsupported"],
  );
  const other = await inTheRoom();
  other.socket.ends(1006);
  assert.deepEqual(other.of("error"), []);
});
