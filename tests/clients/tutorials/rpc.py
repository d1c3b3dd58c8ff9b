"""The sixth tutorial, a service that is asked for Fibonacci numbers: rpc.py receive QUEUE, rpc.py send QUEUE NUMBER."""

import os
import sys
import uuid

import pika


def send(channel, queue, number):
    own = str(uuid.uuid4())
    replies = channel.queue_declare(queue="", exclusive=True).method.queue

    def hear(channel, method, properties, body):
        if properties.correlation_id == own:
            print(body.decode())
            channel.stop_consuming()

    channel.basic_consume(queue=replies, on_message_callback=hear, auto_ack=True)
    properties = pika.BasicProperties(reply_to=replies, correlation_id=own)
    channel.basic_publish(exchange="", routing_key=queue, properties=properties, body=number)
    channel.start_consuming()


def receive(channel, queue):
    channel.queue_declare(queue=queue)
    channel.basic_qos(prefetch_count=1)
    channel.basic_consume(queue=queue, on_message_callback=answer)
    print("ready")
    channel.start_consuming()


def answer(channel, method, properties, body):
    reply = pika.BasicProperties(correlation_id=properties.correlation_id)
    channel.basic_publish("", properties.reply_to, str(fibonacci(int(body))), reply)
    channel.basic_ack(delivery_tag=method.delivery_tag)


def fibonacci(number):
    return number if number < 2 else fibonacci(number - 1) + fibonacci(number - 2)


side, queue, *rest = sys.argv[1:]
with pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"])) as connection:
    {"send": send, "receive": receive}[side](connection.channel(), queue, *rest)
