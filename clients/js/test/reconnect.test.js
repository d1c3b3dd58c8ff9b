// Coming back: by close code, with which pauses, with which token, and when silence counts as a lost line.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { comeBack } from "../passerelle.js";
import { WELCOME, fakeLine, openLine, settled, welcomed } from "../testing/fakes.js";

/** What the server's table of endings says, in the client's words. */
const VERDICTS = { no: "no", yes: "yes", "yes, later": "later", "with a new token": "token" };

const ENDINGS = readFileSync(new URL("../../../docs/close-codes.md", import.meta.url), "utf8");
/** The codes of each verdict; that of a close without a code is in no table. */
const TABLE = { no: [], yes: [1005], later: [], token: [] };
for (const [, code, reconnect] of ENDINGS.matchAll(/^\| (\d+) \| [^|]+ \| ([^|]+) \|/gm)) {
  TABLE[VERDICTS[reconnect]].push(Number(code));
}

test("the table of close codes is that of the server", () => {
  for (const [verdict, codes] of Object.entries(TABLE)) {
    assert.notEqual(codes.length, 0);
    for (const code of codes) assert.equal(comeBack(code), verdict, `${code}`);
  }
});

for (const code of TABLE.no) {
  test(`${code} ends the client for good`, async () => {
    const line = await openLine();
    const subscription = line.client.subscribe("a");
    const reading = subscription[Symbol.asyncIterator]().next();
    line.socket.ends(code, "because");
    assert.equal(line.client.state, "closed");
    assert.deepEqual(line.of("close"), [{ code, reason: "because", reconnect_in_ms: null }]);
    await assert.rejects(reading, { code: "closed", message: /because/ });
    await line.clock.advance(3_600_000);
    assert.equal(line.sockets.length, 1);
    assert.throws(() => line.client.subscribe("b"), { code: "closed" });
  });
}

for (const code of TABLE.yes) {
  test(`${code} comes back soon`, async () => {
    const line = await openLine();
    line.socket.ends(code);
    assert.equal(line.client.state, "waiting");
    await line.clock.advance(250);
    assert.equal(line.sockets.length, 2);
  });
}

for (const code of TABLE.later) {
  test(`${code} comes back later`, async () => {
    const line = await openLine();
    line.socket.ends(code);
    await line.clock.advance(29_999);
    assert.equal(line.sockets.length, 1);
    await line.clock.advance(30_001);
    assert.equal(line.sockets.length, 2);
  });
}

test("pauses double up to a bound, and start anew only after a line that stood for a while", async () => {
  const line = await fakeLine();
  const pauses = [];
  for (let tries = 0; tries < 12; tries++) {
    line.socket.ends(1006);
    pauses.push(line.of("close").at(-1).reconnect_in_ms);
    await line.clock.advance(pauses.at(-1));
  }
  assert.deepEqual(pauses.slice(0, 4), [187.5, 375, 750, 1500]);
  assert.equal(pauses.at(-1), 22_500);

  await welcomed(line);
  line.socket.ends(4400);
  assert.equal(line.of("close").at(-1).reconnect_in_ms, 22_500, "a line that broke at once is no good line");
  await line.clock.advance(22_500);
  await welcomed(line);
  await line.clock.advance(10_000);
  line.socket.ends(4400);
  assert.equal(line.of("close").at(-1).reconnect_in_ms, 187.5);
});

test("a goodbye says when to come back, once", async () => {
  const line = await openLine();
  line.socket.says({ op: "goodbye", reason: "drain", reconnect_in_ms: 7_000 });
  line.socket.ends(1001);
  await line.clock.advance(6_999);
  assert.equal(line.sockets.length, 1);
  await line.clock.advance(1);
  assert.equal(line.sockets.length, 2);
  line.socket.ends(1006);
  assert.equal(line.of("close").at(-1).reconnect_in_ms, 187.5);
});

test("the token goes with connect, and only its own welcome opens the line", async () => {
  const line = await fakeLine({ token: "secret", client: "page/1" });
  line.socket.onopen();
  const [hello] = line.socket.of("connect");
  assert.deepEqual(hello, { op: "connect", id: hello.id, token: "secret", client: "page/1" });
  line.socket.says(WELCOME);
  assert.equal(line.client.state, "connecting", "that welcome was not the answer");
  line.socket.says({ ...WELCOME, id: hello.id, user: "anna" });
  assert.equal(line.client.state, "open");
  assert.equal(line.client.welcome.user, "anna");
});

test("4401 comes back only with another token", async () => {
  const asked = [];
  const tokens = ["old", "new", "new"];
  const token = async (last) => {
    asked.push(last);
    return tokens.shift();
  };
  const line = await fakeLine({ token });
  line.socket.ends(4401, "expired");
  await line.clock.advance(250);
  assert.equal(line.sockets.length, 2);
  line.socket.onopen();
  assert.equal(line.socket.of("connect")[0].token, "new");
  line.socket.ends(4401, "no such key");
  await line.clock.advance(60_000);
  assert.equal(line.client.state, "closed");
  assert.equal(line.sockets.length, 2);
  assert.deepEqual(asked, [{ rejected: false }, { rejected: true }, { rejected: true }]);
});

test("4401 without a way to another token is final", async () => {
  for (const options of [{}, { token: "fixed" }]) {
    const line = await fakeLine(options);
    line.socket.ends(4401, "expired");
    assert.equal(line.client.state, "closed");
    assert.equal(line.of("close")[0].code, 4401);
  }
});

test("a token that cannot be had now is asked for again", async () => {
  let tries = 0;
  const line = await fakeLine({
    token: async () => {
      if (++tries === 1) throw new Error("the login is away");
      return "token";
    },
  });
  assert.equal(line.sockets.length, 0);
  assert.equal(line.of("error")[0].message, "the login is away");
  await line.clock.advance(250);
  assert.equal(line.sockets.length, 1);
});

test("silence for two heartbeats is a lost line, whose close event is not waited for", async () => {
  const line = await openLine();
  const publish = line.client.publish("a", 1);
  const rejected = assert.rejects(publish, { code: "unavailable" });
  await line.clock.advance(49_999);
  assert.equal(line.client.state, "open");
  await line.clock.advance(1);
  assert.equal(line.client.state, "waiting");
  assert.equal(line.sockets[0].closedWith, 4408);
  await rejected;
  await line.clock.advance(250);
  assert.equal(line.sockets.length, 2);
});

test("a line with nothing subscribed is asked, and stays when it answers", async () => {
  const line = await openLine();
  for (let looks = 0; looks < 40; looks++) {
    await line.clock.advance(12_500);
    for (const { id } of line.socket.of("ping")) line.socket.says({ op: "pong", id });
  }
  assert.equal(line.client.state, "open");
  assert.ok(line.socket.of("ping").length <= 14, "once in a silence of one and a half heartbeats");
});

test("a connect that is refused ends as the close code would", async () => {
  const unauthenticated = await fakeLine({ token: "old" });
  unauthenticated.socket.onopen();
  const [{ id }] = unauthenticated.socket.of("connect");
  unauthenticated.socket.says({ op: "error", id, code: "unauthenticated", message: "expired" });
  assert.deepEqual(unauthenticated.of("close"), [{ code: 4401, reason: "expired", reconnect_in_ms: null }]);
  assert.equal(unauthenticated.socket.closedWith, 1000);

  const forbidden = await fakeLine({ token: () => "another" });
  forbidden.socket.onopen();
  const [hello] = forbidden.socket.of("connect");
  forbidden.socket.says({ op: "error", id: hello.id, code: "forbidden", message: "not for you" });
  assert.deepEqual(forbidden.of("close"), [{ code: 4403, reason: "not for you", reconnect_in_ms: null }]);
});

test("a position is a sign of life", async () => {
  const line = await openLine();
  for (let beats = 0; beats < 20; beats++) {
    await line.clock.advance(25_000);
    line.socket.says({ op: "position", cursors: { events: `c${beats}` } });
  }
  assert.equal(line.client.state, "open");
  assert.equal(line.of("position").length, 20);
});

test("a page that slept asks before it gives the line up", async () => {
  const line = await openLine();
  await line.clock.sleep(600_000);
  assert.equal(line.client.state, "open");
  assert.equal(line.socket.of("ping").length, 1);
  await line.clock.advance(1_000);
  line.socket.says({ op: "pong", id: line.socket.of("ping")[0].id });
  await line.clock.advance(20_000);
  assert.equal(line.client.state, "open", "it answered");

  await line.clock.sleep(600_000);
  await line.clock.advance(5_000);
  assert.equal(line.client.state, "waiting", "it did not");
});

test("a server that says no welcome is left", async () => {
  const line = await fakeLine();
  line.socket.onopen();
  await line.clock.advance(20_000);
  assert.equal(line.client.state, "waiting");
  await line.clock.advance(250);
  assert.equal(line.sockets.length, 2);
});

for (const closes of [false, true]) {
  test(`a line that could not be opened is tried again soon, where ${closes ? "a" : "no"} close follows`, async () => {
    const line = await fakeLine();
    for (const pause of [187.5, 375, 750]) {
      line.socket.fails("refused");
      if (closes) line.socket.ends(1006);
      assert.deepEqual(line.of("close").at(-1), { code: 1006, reason: "refused", reconnect_in_ms: pause });
      assert.equal(line.client.state, "waiting");
      await line.clock.advance(pause);
    }
    assert.deepEqual([line.of("close").length, line.sockets.length], [3, 4]);
    await welcomed(line);
    assert.equal(line.client.state, "open");
  });
}

test("an error of a line that stands is told by its close", async () => {
  const line = await openLine();
  line.socket.fails("reset");
  assert.equal(line.client.state, "open");
  line.socket.ends(1006, "reset");
  line.socket.fails("late");
  assert.deepEqual(line.of("close"), [{ code: 1006, reason: "reset", reconnect_in_ms: 187.5 }]);
});

test("close ends everything and leaves no timer", async () => {
  const line = await openLine();
  const subscription = line.client.subscribe("a");
  const reading = subscription[Symbol.asyncIterator]().next();
  const rejected = assert.rejects(line.client.publish("a", 1), { code: "unavailable" });
  line.client.close();
  await rejected;
  assert.deepEqual(await reading, { done: true, value: undefined });
  assert.equal(line.sockets[0].closedWith, 1000);
  assert.deepEqual(line.clock.pending, []);
  await assert.rejects(line.client.publish("a", 1), { code: "unavailable" });
  assert.deepEqual(
    line.of("state").map(({ state }) => state),
    ["open", "closed"],
  );
});

test("close while it waits, or while it asks for a token, opens no more sockets", async () => {
  const line = await openLine();
  line.socket.ends(1006);
  line.client.close();
  await line.clock.advance(60_000);
  assert.equal(line.sockets.length, 1);
  assert.deepEqual(line.clock.pending, []);

  let give;
  const slow = await fakeLine({ token: () => new Promise((resolve) => (give = resolve)) });
  slow.client.close();
  give("token");
  await settled();
  assert.equal(slow.sockets.length, 0);
});
