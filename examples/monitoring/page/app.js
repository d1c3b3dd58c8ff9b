// Draws what the probe, the service and the processor publish, and sends commands to the service.

import { connect } from "./client.js";

const WINDOW_MS = 120_000;
const EVENTS_MAX = 50;
const KINDS = { request: "Requests", cpu: "CPU", memory: "Memory", disk: "Disk", network: "Network" };

const byId = (id) => document.getElementById(id);
const client = connect();
client.on("state", ({ state }) => (byId("state").textContent = state === "open" ? "live" : state));

/** A card with a chart: raw points and the line of averages, newest at the right. */
class Chart {
  series = { raw: [], average: [] };

  constructor(kind, title) {
    const card = document.createElement("article");
    card.className = "card";
    card.id = `chart-${kind}`;
    card.innerHTML = `<span class="now">–</span><h2></h2><canvas role="img"></canvas>`;
    card.querySelector("h2").textContent = title;
    this.now = card.querySelector(".now");
    this.canvas = card.querySelector("canvas");
    this.canvas.setAttribute("aria-label", `${title}, raw and averaged`);
    byId("charts").append(card);
  }

  add(series, { timestamp_ms, data }) {
    this.series[series].push({ at: timestamp_ms, value: data.value });
    this.unit = data.unit;
    const last = (name) => this.series[name].at(-1)?.value ?? "–";
    this.now.innerHTML = "<strong></strong> <small></small>";
    this.now.children[0].textContent = `${last("raw")} ${this.unit}`;
    this.now.children[1].textContent = `average ${last("average")}`;
  }

  draw(now) {
    const scale = devicePixelRatio;
    const { clientWidth: width, clientHeight: height } = this.canvas;
    Object.assign(this.canvas, { width: width * scale, height: height * scale });
    const style = getComputedStyle(document.documentElement);
    const pen = this.canvas.getContext("2d");
    pen.scale(scale, scale);
    for (const series of Object.values(this.series)) {
      while (series.length > 0 && series[0].at < now - WINDOW_MS - 5_000) series.shift();
    }
    const values = [...this.series.raw, ...this.series.average].map(({ value }) => value);
    const top = this.unit === "%" ? 100 : round(Math.max(1, ...values));
    const place = ({ at, value }) => [
      width - ((now - at) / WINDOW_MS) * width,
      height - 1 - (value / top) * (height - 16),
    ];
    pen.fillStyle = style.getPropertyValue("--soft");
    pen.font = "11px system-ui, sans-serif";
    pen.fillText(`${top.toLocaleString("en")} ${this.unit ?? ""}`, 0, 10);
    pen.strokeStyle = style.getPropertyValue("--line");
    path(pen, [
      [0, 15],
      [width, 15],
    ]);
    path(pen, [
      [0, height - 0.5],
      [width, height - 0.5],
    ]);
    pen.lineJoin = "round";
    pen.strokeStyle = style.getPropertyValue("--raw");
    path(pen, this.series.raw.map(place));
    pen.lineWidth = 2.5;
    pen.strokeStyle = style.getPropertyValue("--average");
    path(pen, this.series.average.map(place));
  }
}

function path(pen, points) {
  pen.beginPath();
  for (const point of points) pen.lineTo(...point);
  pen.stroke();
}

/** The next of 1, 2, 5, 10, 20 … that is not smaller. */
function round(value) {
  const decade = 10 ** Math.floor(Math.log10(value));
  return decade * [1, 2, 5, 10].find((step) => step * decade >= value);
}

const charts = Object.fromEntries(Object.entries(KINDS).map(([kind, title]) => [kind, new Chart(kind, title)]));

// What was measured lately is sent first, so that the charts are not empty after a reload.
client.subscribe("monitor.*.*", {
  last: 120,
  onmessage(message) {
    const [, series, kind] = message.topic.split(".");
    if (series === "alert") return alert(message);
    charts[kind]?.series[series] && charts[kind].add(series, message);
  },
});

function alert({ timestamp_ms, data }) {
  const text = data.above ? `CPU at ${data.value} %, above ${data.threshold} %` : `CPU back at ${data.value} %`;
  list("alerts", timestamp_ms, text).className = data.above ? "above" : "";
}

/** Puts an event on top of a list. */
function list(id, at, text) {
  const events = byId(id);
  if (!events.dataset.begun) events.replaceChildren();
  events.dataset.begun = "yes";
  const item = document.createElement("li");
  item.textContent = `${new Date(at).toLocaleTimeString()}  ${text}`;
  events.prepend(item);
  if (events.childElementCount > EVENTS_MAX) events.lastElementChild.remove();
  return item;
}

// RabbitMQ tells of connections, channels, queues and bindings, when its plugin is on and a source carries it.
const rabbitmq = client.subscribe("#", {
  source: "rabbitmq",
  last: 3,
  onmessage({ topic, timestamp_ms, headers = {} }) {
    const about =
      headers.name ?? headers.user_provided_name ?? headers.queue ?? headers.destination_name ?? headers.user ?? "";
    list("rabbitmq", timestamp_ms, `${topic} ${about}`);
  },
});
rabbitmq.ready.catch(() => {
  byId("rabbitmq").firstElementChild.textContent =
    "There is no source named rabbitmq: with a RabbitMQ whose plugin rabbitmq_event_exchange is on, start this example with RABBITMQ_EVENTS=1.";
});

async function command(slow_ms) {
  const answer = byId("answer");
  answer.textContent = "asked …";
  try {
    const { data } = await client.call("monitor.service", { slow_ms }, { timeout_ms: 5000 });
    answer.textContent = data.error ?? `The service (${data.by}) answers: ${data.slow_ms} ms slower from now on.`;
  } catch (error) {
    answer.textContent = `${error.message} (${error.code})`;
  }
}

byId("slow").addEventListener("click", () => command(300));
byId("fast").addEventListener("click", () => command(0));

setInterval(() => Object.values(charts).forEach((chart) => chart.draw(Date.now())), 250);
