"""Answers every ping with a pong, a second later."""

import os

import pika

url = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2f")
connection = pika.BlockingConnection(pika.URLParameters(url))
channel = connection.channel()
queue = channel.queue_declare("", exclusive=True).method.queue
channel.queue_bind(queue, "amq.topic", "ping")


def pong():
    channel.basic_publish("amq.topic", "pong", "pong")


def ping(*_):
    connection.call_later(1, pong)


channel.basic_consume(queue, ping, auto_ack=True)
channel.start_consuming()
