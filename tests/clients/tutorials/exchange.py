"""The third to fifth tutorials, copies by way of an exchange that is fanout, direct or topic:

exchange.py send EXCHANGE TYPE KEY BODY, exchange.py receive EXCHANGE TYPE KEY…; the key of a fanout is empty.
"""

import os
import sys

import pika


def send(channel, exchange, key, body):
    channel.basic_publish(exchange=exchange, routing_key=key, body=body)


def receive(channel, exchange, *keys):
    queue = channel.queue_declare(queue="", exclusive=True).method.queue
    for key in keys:
        channel.queue_bind(exchange=exchange, queue=queue, routing_key=key)
    channel.basic_consume(queue=queue, on_message_callback=show, auto_ack=True)
    print("ready")
    channel.start_consuming()


def show(channel, method, properties, body):
    print(f"{method.routing_key}:{body.decode()}")


side, exchange, kind, *rest = sys.argv[1:]
with pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"])) as connection:
    channel = connection.channel()
    channel.exchange_declare(exchange=exchange, exchange_type=kind)
    {"send": send, "receive": receive}[side](channel, exchange, *rest)
