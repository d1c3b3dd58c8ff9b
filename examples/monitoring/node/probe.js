// A probe: this machine's CPU, memory, disk and network each second, and an alert when the CPU crosses a threshold.

import { readFileSync } from "node:fs";

import amqplib from "amqplib";

const URL = process.env.AMQP_URL ?? "amqp://guest:guest@127.0.0.1:5672/%2f";
const THRESHOLD = Number(process.env.CPU_THRESHOLD ?? 80);
const PARTS_OF_DISKS = /^(loop|ram|zram|dm-|md|sr)|^[a-z]+d[a-z]+\d+$|p\d+$/;

const connection = await amqplib.connect(URL);
connection.on("close", () => process.exit(1)); // Whoever started it starts it again.
const channel = await connection.createChannel();

const publish = (topic, event) => channel.publish("amq.topic", `monitor.${topic}`, Buffer.from(JSON.stringify(event)));
const lines = (path) =>
  readFileSync(path, "utf8")
    .trimEnd()
    .split("\n")
    .map((line) => line.trim().split(/[\s:]+/));
const sum = (numbers) => numbers.reduce((total, number) => total + Number(number), 0);

/** What only grows: busy and all CPU ticks, bytes to and from disks, bytes over the network. */
function counters() {
  const ticks = lines("/proc/stat")[0].slice(1, 9);
  const disks = lines("/proc/diskstats").filter((line) => !PARTS_OF_DISKS.test(line[2]));
  const cards = lines("/proc/net/dev")
    .slice(2)
    .filter(([name]) => name !== "lo");
  return [
    sum(ticks) - ticks[3] - ticks[4],
    sum(ticks),
    sum(disks.flatMap((line) => [line[5], line[9]])) * 512,
    sum(cards.flatMap((line) => [line[1], line[9]])),
  ];
}

function memoryPercent() {
  const sizes = Object.fromEntries(lines("/proc/meminfo"));
  return 100 * (1 - sizes.MemAvailable / sizes.MemTotal);
}

let before = counters();
let alarmed = false;

setInterval(() => {
  const now = counters();
  const [busy, ticks, disk, network] = now.map((counter, index) => counter - before[index]);
  before = now;
  const cpu = (100 * busy) / Math.max(ticks, 1);
  const values = {
    cpu: [cpu, "%"],
    memory: [memoryPercent(), "%"],
    disk: [disk / 1000, "kB/s"],
    network: [network / 1000, "kB/s"],
  };
  for (const [kind, [value, unit]] of Object.entries(values)) {
    publish(`raw.${kind}`, { value: Number(value.toFixed(1)), unit });
  }
  if (cpu > THRESHOLD !== alarmed) {
    alarmed = !alarmed;
    publish("alert.cpu", {
      above: alarmed,
      value: Number(cpu.toFixed(1)),
      threshold: THRESHOLD,
      at: Date.now() / 1000,
    });
  }
}, 1000);
