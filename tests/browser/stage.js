// What the tests stand on: a browser, a publisher and consumer at the broker, programs that are started and ended.

import { execFileSync, spawn } from "node:child_process";
import { createServer } from "node:net";
import { resolve } from "node:path";

import amqplib from "amqplib";
import { chromium } from "playwright-core";

/** How long anything may take that should come at once; generous, for a machine that does much else. */
export const PATIENCE_MS = 60_000;

const TOP = resolve(import.meta.dirname ?? new URL(".", import.meta.url).pathname, "../..");

function needed(name) {
  const value = process.env[name];
  if (!value) throw new Error(`set ${name}: see tests/browser/README.md`);
  return value;
}

export const url = needed("PASSERELLE_URL");
export const adminUrl = needed("PASSERELLE_ADMIN_URL");
const amqpUrl = needed("AMQP_URL");
const program = resolve(needed("PASSERELLE_BIN"));

/** Waits until what is asked for is there, and says what was waited for when it never is. */
export async function until(what, ask) {
  const deadline = Date.now() + PATIENCE_MS;
  for (;;) {
    const found = await ask();
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`waited in vain until ${what}`);
    await new Promise((go) => setTimeout(go, 50));
  }
}

/** A browser; its pages fail the test by whatever they complain of. */
export async function openBrowser() {
  const executablePath = process.env.CHROMIUM ?? execFileSync("which", ["chromium"], { encoding: "utf8" }).trim();
  const browser = await chromium.launch({
    executablePath,
    args: ["--no-sandbox", "--disable-dev-shm-usage"],
    timeout: PATIENCE_MS,
  });
  const complaints = [];
  return {
    complaints,
    close: () => browser.close(),
    async page(address, options = {}) {
      const context = await browser.newContext(options);
      context.setDefaultTimeout(PATIENCE_MS);
      const page = await context.newPage();
      page.on("pageerror", (error) => complaints.push(String(error)));
      page.on("console", (message) => {
        // A line that was cut is reported by the browser itself, whatever the page does about it.
        const lost = /WebSocket connection to .* failed/.test(message.text());
        if (message.type() === "error" && !lost) complaints.push(message.text());
      });
      await page.goto(address);
      return page;
    },
  };
}

/** Someone at the broker. */
export async function openBroker() {
  const connection = await amqplib.connect(amqpUrl);
  const channel = await connection.createConfirmChannel();
  return {
    async publish(topic, content, options = {}) {
      const body = typeof content === "string" || Buffer.isBuffer(content) ? content : JSON.stringify(content);
      channel.publish("amq.topic", topic, Buffer.from(body), options);
      await channel.waitForConfirms();
    },
    declare: (exchange) => channel.assertExchange(exchange, "topic", { durable: true }),
    /** Puts something into a queue, which it makes. */
    async put(queue, content) {
      await channel.assertQueue(queue, { durable: true });
      channel.sendToQueue(queue, Buffer.from(JSON.stringify(content)));
      await channel.waitForConfirms();
    },
    /** Collects what comes on a pattern from now on. */
    async listen(pattern) {
      const got = [];
      const { queue } = await channel.assertQueue("", { exclusive: true });
      await channel.bindQueue(queue, "amq.topic", pattern);
      await channel.consume(queue, ({ fields, content }) => got.push([fields.routingKey, content.toString()]), {
        noAck: true,
      });
      return got;
    },
    close: () => connection.close(),
  };
}

async function freePort() {
  const server = createServer();
  await new Promise((go) => server.listen(0, "127.0.0.1", go));
  const { port } = server.address();
  await new Promise((go) => server.close(go));
  return port;
}

/** A process group that can be ended whole. */
function start(command, args, env) {
  const child = spawn(command, args, {
    cwd: TOP,
    env: { ...process.env, ...env },
    detached: true,
    stdio: ["ignore", "pipe", "pipe"],
  });
  let said = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => (said = (said + data).slice(-8192)));
  let over = false;
  const ended = new Promise((go) => child.once("exit", (code, signal) => go((over = [code, signal]))));
  return {
    said: () => said,
    over: () => over,
    async end(signal) {
      if (!over) process.kill(child.pid, signal);
      await ended;
    },
  };
}

async function answers(started, address) {
  await until(`${address} answers`, async () => {
    if (started.over()) throw new Error(`it ended: ${started.over()}\n${started.said()}`);
    return fetch(address).then(
      ({ ok }) => ok,
      () => false,
    );
  });
}

/** Of these tests, and not of the program, which would take them for misspelt settings. */
const NOT_SETTINGS = { PASSERELLE_BIN: undefined, PASSERELLE_URL: undefined, PASSERELLE_ADMIN_URL: undefined };

/** Ports of one's own, and the environment that makes passerelle use them. */
async function ports() {
  const [port, admin] = [await freePort(), await freePort()];
  const env = {
    PASSERELLE_SERVER__LISTEN: `127.0.0.1:${port}`,
    PASSERELLE_ADMIN__LISTEN: `127.0.0.1:${admin}`,
    PASSERELLE_AUTH__ANONYMOUS_PUBLISH: "true",
  };
  return { env, address: `http://127.0.0.1:${port}/`, admin: `http://127.0.0.1:${admin}/` };
}

/** A passerelle that a test may stop and start again at the same address. */
export async function ownPasserelle(settings = {}) {
  const { env, address, admin } = await ports();
  let running;
  const self = {
    address,
    /** Waits until a metric, with its labels as they are written, has this value. */
    counts: (metric, value) =>
      until(`${metric} is ${value}`, async () => {
        const text = await fetch(`${admin}metrics`).then((answer) => answer.text());
        return text.split("\n").includes(`${metric} ${value}`);
      }),
    async start() {
      running = start(program, ["--amqp", amqpUrl], { ...env, ...settings, ...NOT_SETTINGS });
      await answers(running, address);
      await self.counts('passerelle_amqp_link_up{link="publish"}', 1);
    },
    end: (signal) => running.end(signal),
  };
  await self.start();
  return self;
}

/** An example, started by its own one command. */
export async function example(name, ...args) {
  const { env, address } = await ports();
  const service = {
    SERVICE_PORT: String(await freePort()),
    AMQP_URL: amqpUrl,
    PASSERELLE_BIN: program,
    PASSERELLE_URL: address,
  };
  const running = start("bash", [`examples/${name}/run`, ...args], { ...env, ...service });
  await answers(running, address);
  return { address, end: () => running.end("SIGTERM") };
}
