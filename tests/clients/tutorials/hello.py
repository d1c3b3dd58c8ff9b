"""The first tutorial, a message by way of a named queue: hello.py send QUEUE BODY, hello.py receive QUEUE."""

import os
import sys

import pika


def send(channel, queue, body):
    channel.basic_publish(exchange="", routing_key=queue, body=body)


def receive(channel, queue):
    channel.basic_consume(queue=queue, on_message_callback=show, auto_ack=True)
    print("ready")
    channel.start_consuming()


def show(channel, method, properties, body):
    print(body.decode())


side, queue, *rest = sys.argv[1:]
with pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"])) as connection:
    channel = connection.channel()
    channel.queue_declare(queue=queue)
    {"send": send, "receive": receive}[side](channel, queue, *rest)
