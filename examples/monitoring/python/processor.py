"""A processor: consumes the raw events and publishes the average of the last ten of each kind."""

import collections
import json
import os

import pika

url = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2f")
channel = pika.BlockingConnection(pika.URLParameters(url)).channel()
recent = collections.defaultdict(lambda: collections.deque(maxlen=10))
queue = channel.queue_declare("", exclusive=True).method.queue
channel.queue_bind(queue, "amq.topic", "monitor.raw.*")
for method, _, body in channel.consume(queue, auto_ack=True):
    kind, event = method.routing_key.split(".")[-1], json.loads(body)
    recent[kind].append(event["value"])
    average = {"value": round(sum(recent[kind]) / len(recent[kind]), 1), "unit": event["unit"]}
    channel.basic_publish("amq.topic", f"monitor.average.{kind}", json.dumps(average))
