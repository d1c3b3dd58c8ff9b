"""The second tutorial, tasks for workers that acknowledge: work.py send QUEUE TASK…, work.py receive QUEUE.

A dot in a task is a second's work.
"""

import os
import sys
import time

import pika


def send(channel, queue, *tasks):
    properties = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)
    for task in tasks:
        channel.basic_publish(exchange="", routing_key=queue, body=task, properties=properties)


def receive(channel, queue):
    channel.basic_qos(prefetch_count=1)
    channel.basic_consume(queue=queue, on_message_callback=work)
    print("ready")
    channel.start_consuming()


def work(channel, method, properties, body):
    print(body.decode())
    time.sleep(body.count(b"."))
    channel.basic_ack(delivery_tag=method.delivery_tag)


side, queue, *rest = sys.argv[1:]
with pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"])) as connection:
    channel = connection.channel()
    channel.queue_declare(queue=queue, durable=True)
    {"send": send, "receive": receive}[side](channel, queue, *rest)
