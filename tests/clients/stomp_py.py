"""stomp.py over a WebSocket, told what to do by JSON objects on its input and telling what happens by others: stomp_py.py URL"""

import json
import sys
from urllib.parse import urlsplit

import stomp


def show(happening):
    print(json.dumps(happening), flush=True)


class Listener(stomp.ConnectionListener):
    def on_connected(self, frame):
        show({"connected": frame.headers})

    def on_message(self, frame):
        show({"message": frame.headers, "body": frame.body})

    def on_receipt(self, frame):
        show({"receipt": frame.headers["receipt-id"]})

    def on_error(self, frame):
        show({"error": frame.headers, "body": frame.body})

    def on_disconnected(self):
        show({"closed": None})


def receipt_of(order):
    return {} if "receipt" not in order else {"receipt": order["receipt"]}


def subscribe(connection, order):
    headers = dict(order.get("headers", {}))
    ack = headers.pop("ack", "auto")
    connection.subscribe(order["destination"], order["id"], ack, headers | receipt_of(order))


def send(connection, order):
    headers = dict(order.get("headers", {})) | receipt_of(order)
    if "transaction" in order:
        headers["transaction"] = order["transaction"]
    connection.send(order["destination"], order["body"], headers=headers)


ORDERS = {
    "subscribe": subscribe,
    "unsubscribe": lambda connection, order: connection.unsubscribe(order["id"], headers=receipt_of(order)),
    "send": send,
    "ack": lambda connection, order: connection.ack(order["ack"], receipt=order.get("receipt")),
    "nack": lambda connection, order: connection.nack(order["ack"], receipt=order.get("receipt")),
    "begin": lambda connection, order: connection.begin(order["transaction"]),
    "commit": lambda connection, order: connection.commit(order["transaction"]),
    "abort": lambda connection, order: connection.abort(order["transaction"]),
    "leave": lambda connection, order: connection.disconnect("bye"),
}

parts = urlsplit(sys.argv[1])
connection = stomp.WSConnection(
    [(parts.hostname, parts.port)],
    ws_path=parts.path,
    heartbeats=(2000, 2000),
    reconnect_attempts_max=1,
    header={"Sec-WebSocket-Protocol": "v12.stomp"},
)
connection.set_listener("", Listener())
connection.connect(wait=True)
for line in sys.stdin:
    order = json.loads(line)
    ORDERS[order["order"]](connection, order)
