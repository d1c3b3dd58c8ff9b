"""A web service: raises an event for each request, and obeys the command that the page sends through the broker."""

import json
import os
import random
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pika

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2f")
PORT = int(os.environ.get("SERVICE_PORT", "8090"))
COMMANDS = "monitor.service"  # the queue: a call to this topic arrives there

connection = pika.BlockingConnection(pika.URLParameters(URL))
channel = connection.channel()
slow_ms = 0


def publish(event):
    channel.basic_publish("amq.topic", "monitor.raw.request", json.dumps(event))


class Service(BaseHTTPRequestHandler):
    def do_GET(self):
        began = time.monotonic()
        time.sleep((random.uniform(5, 25) + slow_ms) / 1000)  # the work
        body = f"hello from {self.path}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        took_ms = round((time.monotonic() - began) * 1000, 1)
        event = {"value": took_ms, "unit": "ms", "path": self.path, "status": 200, "by": "python"}
        # A connection of pika belongs to its thread, so the event is handed over.
        connection.add_callback_threadsafe(lambda: publish(event))

    def log_message(self, *_):
        pass


def command(_channel, _method, properties, body):
    global slow_ms
    try:
        slow_ms = min(max(int(json.loads(body)["slow_ms"]), 0), 2000)
        answer = {"slow_ms": slow_ms, "by": "python"}
    except (ValueError, KeyError, TypeError):
        answer = {"error": 'send {"slow_ms": NUMBER}'}
    if properties.reply_to:
        reply = pika.BasicProperties(correlation_id=properties.correlation_id)
        channel.basic_publish("", properties.reply_to, json.dumps(answer), reply)


server = ThreadingHTTPServer(("127.0.0.1", PORT), Service)
threading.Thread(target=server.serve_forever, daemon=True).start()
channel.queue_declare(COMMANDS, auto_delete=True)
channel.basic_consume(COMMANDS, command, auto_ack=True)
channel.start_consuming()
