"""Prints what an exchange routes by a key, a JSON object a line: consume.py EXCHANGE KEY."""

import json
import os
import sys

import pika


def show(channel, method, properties, body):
    seen = {
        "key": method.routing_key,
        "body": body.decode(),
        "content_type": properties.content_type,
        "message_id": properties.message_id,
        "headers": properties.headers,
    }
    print(json.dumps(seen))


exchange, key = sys.argv[1:]
with pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"])) as connection:
    channel = connection.channel()
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(queue, exchange, key)
    channel.basic_consume(queue, show, auto_ack=True)
    print("ready")
    channel.start_consuming()
