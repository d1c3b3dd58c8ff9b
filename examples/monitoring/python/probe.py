"""A probe: this machine's CPU, memory, disk and network each second, and an alert when the CPU crosses a threshold."""

import json
import os
import re
import time

import pika

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2f")
THRESHOLD = float(os.environ.get("CPU_THRESHOLD", "80"))
PARTS_OF_DISKS = re.compile(r"^(loop|ram|zram|dm-|md|sr)|^[a-z]+d[a-z]+\d+$|p\d+$")

connection = pika.BlockingConnection(pika.URLParameters(URL))
channel = connection.channel()


def publish(topic, event):
    channel.basic_publish("amq.topic", f"monitor.{topic}", json.dumps(event))


def lines(path):
    with open(path) as file:
        return [line.split() for line in file.read().splitlines()]


def counters():
    """What only grows: busy and all CPU ticks, bytes to and from disks, bytes over the network."""
    ticks = [int(field) for field in lines("/proc/stat")[0][1:9]]
    sectors = sum(int(line[5]) + int(line[9]) for line in lines("/proc/diskstats") if not PARTS_OF_DISKS.match(line[2]))
    with open("/proc/net/dev") as file:
        cards = [line.split(":") for line in file.read().splitlines()[2:]]
    network = sum(int(fields.split()[0]) + int(fields.split()[8]) for name, fields in cards if name.strip() != "lo")
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks), sectors * 512, network


def memory_percent():
    sizes = {line[0]: int(line[1]) for line in lines("/proc/meminfo")}
    return 100 * (1 - sizes["MemAvailable:"] / sizes["MemTotal:"])


before, alarmed = counters(), False
while True:
    connection.sleep(1)  # and not time.sleep, so that heartbeats are answered
    now = counters()
    busy, ticks, disk, network = (new - old for new, old in zip(now, before))
    before = now
    cpu = 100 * busy / max(ticks, 1)
    values = {
        "cpu": (cpu, "%"),
        "memory": (memory_percent(), "%"),
        "disk": (disk / 1000, "kB/s"),
        "network": (network / 1000, "kB/s"),
    }
    for kind, (value, unit) in values.items():
        publish(f"raw.{kind}", {"value": round(value, 1), "unit": unit})
    if (cpu > THRESHOLD) != alarmed:
        alarmed = not alarmed
        publish("alert.cpu", {"above": alarmed, "value": round(cpu, 1), "threshold": THRESHOLD, "at": time.time()})
