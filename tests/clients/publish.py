"""Publishes numbered messages, each confirmed and routed before the next: publish.py TOPIC COUNT."""

import json
import os
import sys

import pika

topic, count = sys.argv[1], int(sys.argv[2])
with pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"])) as connection:
    channel = connection.channel()
    channel.confirm_delivery()
    for number in range(count):
        body = json.dumps({"from": "pika", "number": number})
        channel.basic_publish("amq.topic", topic, body, mandatory=True)
