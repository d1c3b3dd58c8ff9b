// The landing page: shows what arrives, and how to publish and subscribe oneself.
//
// It uses the client that everybody can use, and keeps nothing: a bounded list, redrawn a few times a second
// whatever the rate is.

import { connect } from "./client.js";

/** How many messages the list holds. */
const SHOWN_MAX = 200;
/** How often what came is drawn. */
const DRAW_MS = 120;
/** How many seconds the little curve looks back. */
const CURVE_SECONDS = 60;
/** Over how many seconds the rate is averaged. */
const RATE_SECONDS = 5;

const byId = (id) => document.getElementById(id);
const here = new URL(".", import.meta.url);

function element(name, className, ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

// The line.

const client = connect({ client: "landing page" });
const outages = new Set();
let retryAt = 0;

client.on("state", showState);
client.on("close", ({ reason, reconnect_in_ms }) => {
  retryAt = performance.now() + (reconnect_in_ms ?? 0);
  if (reconnect_in_ms === null)
    showBanner(`The server ended this connection${reason ? `: ${reason}` : "."} Reload the page to try again.`);
});
client.on("outage", ({ source }) => {
  outages.add(source);
  showOutages();
});
client.on("restored", ({ source }) => {
  outages.delete(source);
  showOutages();
});
client.on("open", () => {
  outages.clear();
  showOutages();
});

function showState() {
  const pill = byId("state");
  const seconds = Math.max(1, Math.ceil((retryAt - performance.now()) / 1000));
  const text = { open: "live", connecting: "connecting", waiting: `back in ${seconds} s`, closed: "closed" }[
    client.state
  ];
  if (pill.textContent !== text) pill.textContent = text;
  pill.dataset.state = client.state;
}

function showBanner(text) {
  byId("banner").textContent = text;
  byId("banner").hidden = text === "";
}

function showOutages() {
  const names = [...outages].join(", ");
  if (names) showBanner(`There is no link to the broker (${names}): the server's log says why. This page goes on by itself when there is.`);
  else showBanner("");
}

// What arrives: collected at any speed, drawn at a calm one.

const arrived = [];
const counts = new Array(CURVE_SECONDS).fill(0);
let second = Math.floor(performance.now() / 1000);
let total = 0;
let paused = false;
let subscription;

function listen(pattern) {
  subscription?.unsubscribe();
  clear();
  byId("empty-pattern").textContent = pattern === "" ? "the empty topic" : pattern;
  subscription = client.subscribe(pattern, { last: 3, onmessage: keep, ongap: keep });
  subscription.ready.catch(
    (error) => error.code !== "closed" && showBanner(`'${pattern}' was refused: ${error.message}`),
  );
}

function keep(item) {
  if (item.topic !== undefined && !item.replay) {
    turnSeconds();
    counts[counts.length - 1] += 1;
  }
  total += 1;
  arrived.push(item);
  if (arrived.length > SHOWN_MAX) arrived.shift();
}

function clear() {
  arrived.length = 0;
  total = 0;
  byId("messages").replaceChildren();
  draw();
}

function draw() {
  const list = byId("messages");
  if (!paused && arrived.length > 0) {
    list.prepend(...arrived.splice(0).map(row).reverse());
    while (list.childElementCount > SHOWN_MAX) list.lastElementChild.remove();
  }
  byId("empty").hidden = total > 0;
  const shown = list.childElementCount;
  const foot =
    paused && arrived.length > 0
      ? `${arrived.length}${arrived.length === SHOWN_MAX ? " or more" : ""} wait behind the pause`
      : `the newest ${shown} of ${total}`;
  byId("foot").hidden = !(paused && arrived.length > 0) && total <= shown;
  if (byId("foot").textContent !== foot) byId("foot").textContent = foot;
}

/** One message, or one gap, as a line that opens. */
function row(item) {
  if (item.reason !== undefined && item.data === undefined) {
    const missed =
      item.missed === null
        ? "some messages may have been"
        : `${item.missed} ${item.missed === 1 ? "message was" : "messages were"}`;
    return element("li", "gap", `${missed} missed here (${item.reason})`);
  }
  const topic = element("span", "topic", ...breakable(item.topic || "(empty topic)"));
  topic.style.setProperty("--hue", hue(item.topic));
  const when = element("time", "when", clock(item.timestamp_ms));
  const summary = element(
    "summary",
    "",
    topic,
    element("span", "payload", ...painted(brief(item.data))),
    element("span", "source", item.source),
    when,
  );
  const details = element("details", "", summary);
  details.addEventListener("toggle", () => details.childElementCount === 1 && details.append(whole(item)), {
    once: true,
  });
  return element("li", item.replay ? "" : "fresh", details);
}

/** A topic that breaks after its dots, where it has to. */
const breakable = (topic) => topic.split(/(?<=\.)/).flatMap((word) => [word, document.createElement("wbr")]);

/** What a line shows when it is opened: made only then. */
function whole(item) {
  const text =
    item.data instanceof Uint8Array
      ? hex(item.data)
      : typeof item.data === "string"
        ? item.data
        : JSON.stringify(item.data, null, 2);
  const pre = element("pre", "", ...(typeof item.data === "string" ? [text] : painted(text)));
  pre.tabIndex = 0;
  const facts = element("dl", "facts");
  const headers = item.headers && JSON.stringify(item.headers);
  const rows = { "content type": item.content_type, "message id": item.message_id, headers, cursor: item.cursor };
  for (const [name, value] of Object.entries(rows)) {
    if (value !== undefined) facts.append(element("div", "", element("dt", "", name), element("dd", "", value)));
  }
  return element("div", "whole", pre, facts);
}

function brief(data) {
  if (data instanceof Uint8Array) return `${data.length} bytes  ${hex(data.subarray(0, 16))}`;
  return (typeof data === "string" ? data : JSON.stringify(data)).slice(0, 300);
}

const hex = (bytes) => [...bytes.subarray(0, 4096)].map((byte) => byte.toString(16).padStart(2, "0")).join(" ");

/** Colours names, strings and numbers of a JSON text. */
function painted(text) {
  if (!/^[[{]/.test(text)) return [text];
  const parts = [];
  let rest = 0;
  for (const found of text.matchAll(/("(?:[^"\\]|\\.)*")(\s*:)?|-?\d[\d.eE+-]*|\btrue\b|\bfalse\b|\bnull\b/g)) {
    parts.push(text.slice(rest, found.index));
    const kind = found[1] === undefined ? "number" : found[2] ? "name-of" : "string";
    parts.push(element("span", kind, found[1] ?? found[0]), found[2] ?? "");
    rest = found.index + found[0].length;
  }
  return [...parts, text.slice(rest)];
}

/** The same first word, the same colour: one of 24, by FNV-1a. */
function hue(topic) {
  let hash = 2166136261;
  for (const character of topic.split(".")[0]) hash = Math.imul(hash ^ character.codePointAt(0), 16777619) >>> 0;
  return (hash % 24) * 15;
}

function clock(milliseconds) {
  const time = new Date(milliseconds);
  const two = (number) => String(number).padStart(2, "0");
  return `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}.${String(time.getMilliseconds()).padStart(3, "0")}`;
}

// The rate and its curve.

function turnSeconds() {
  const now = Math.floor(performance.now() / 1000);
  for (const _ of Array.from({ length: Math.min(now - second, CURVE_SECONDS) })) {
    counts.push(0);
    counts.shift();
  }
  second = now;
}

function showRate() {
  turnSeconds();
  const complete = counts.slice(-RATE_SECONDS - 1, -1);
  const rate = complete.reduce((sum, count) => sum + count, 0) / RATE_SECONDS;
  byId("rate").textContent = rate < 10 ? String(Number(rate.toFixed(1))) : Math.round(rate).toLocaleString("en");
  const highest = Math.max(1, ...counts);
  const points = counts
    .slice(0, -1)
    .map((count, index) => `${(index * 120) / (CURVE_SECONDS - 2)} ${23 - (count * 21) / highest}`);
  const [area, line] = byId("spark").children;
  line.setAttribute("d", `M${points.join("L")}`);
  area.setAttribute("d", `M0 24L${points.join("L")}L120 24Z`);
}

// What one can do here.

byId("pattern-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const pattern = byId("pattern").value.trim();
  const address = new URL(location.href);
  address.searchParams.set("pattern", pattern);
  history.replaceState(null, "", address);
  showOutages();
  listen(pattern);
});

byId("pause").addEventListener("click", () => {
  paused = !paused;
  byId("pause").setAttribute("aria-pressed", String(paused));
  byId("pause").textContent = paused ? "Go on" : "Pause";
  draw();
});

byId("clear").addEventListener("click", clear);

byId("publish").addEventListener("submit", async (event) => {
  event.preventDefault();
  const { data, options } = payload(byId("payload").value);
  byId("send").disabled = true;
  try {
    const { routed } = await client.publish(byId("topic").value, data, options);
    published(routed ? "Confirmed by the broker." : "Confirmed, but no queue and nobody here wanted it.");
  } catch (error) {
    published(`${error.message} (${error.code})`, "bad");
    // Trying the same again will not change that.
    if (error.code === "forbidden") return;
  }
  byId("send").disabled = false;
});

byId("topic").addEventListener("input", () => (byId("send").disabled = false));

/** JSON goes as JSON, anything else as the text it is. */
function payload(text) {
  try {
    return { data: JSON.parse(text), options: {} };
  } catch {
    return { data: text, options: { content_type: "text/plain" } };
  }
}

function published(text, className = "") {
  byId("published").textContent = text;
  byId("published").className = className;
}

const tabs = [...document.querySelectorAll("[role=tab]")];

function choose(tab) {
  for (const other of tabs) {
    const chosen = other === tab;
    other.setAttribute("aria-selected", String(chosen));
    other.tabIndex = chosen ? 0 : -1;
    byId(other.getAttribute("aria-controls")).hidden = !chosen;
  }
}

for (const [index, tab] of tabs.entries()) {
  tab.addEventListener("click", () => choose(tab));
  tab.addEventListener("keydown", ({ key }) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[key];
    if (step === undefined) return;
    const next = tabs[(index + step + tabs.length) % tabs.length];
    choose(next);
    next.focus();
  });
}

// What one can copy, with this server's own address in it.

byId("snippet").textContent = `<!doctype html>
<meta charset="utf-8">
<ul id="list"></ul>
<script type="module">
  import { connect } from "${new URL("client.js", here)}";

  connect().subscribe("#", ({ topic, data }) => {
    const item = document.createElement("li");
    item.append(topic, " ", JSON.stringify(data));
    list.prepend(item);
  });
</script>`;

const socket = new URL("ws", here);
socket.protocol = socket.protocol.replace("http", "ws");
const elsewhere = here.host === "127.0.0.1:8080" || here.host === "localhost:8080" ? "" : ` --url ${socket}`;
byId("shell").textContent = `passerelle pub${elsewhere} hello.world '{"text": "hello"}'

# and to watch from the shell
passerelle sub${elsewhere} '#'`;

for (const block of document.querySelectorAll(".code")) {
  if (!navigator.clipboard) break; // Only where the browser trusts the address.
  const button = element("button", "copy", "Copy");
  button.type = "button";
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(block.querySelector("code").textContent);
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
  block.append(button);
}

const asked = new URL(location.href).searchParams.get("pattern");
if (asked !== null) byId("pattern").value = asked;
listen(byId("pattern").value);
setInterval(draw, DRAW_MS);
setInterval(() => {
  showRate();
  showState();
}, 1000);
