"""paho-mqtt, told what to do by JSON objects on its input and telling what happens by others: paho_mqtt.py URL OPTIONS"""

import json
import sys
from urllib.parse import urlsplit

from paho.mqtt.client import CallbackAPIVersion, Client, MQTTv31, MQTTv311, MQTTv5
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

url = urlsplit(sys.argv[1])
options = json.loads(sys.argv[2])
version = options["version"]
is_5 = version == 5
held = []
topics = {}


def show(happening):
    print(json.dumps(happening), flush=True)


def properties_of(kind, **values):
    if not is_5:
        return None
    properties = Properties(kind)
    for name, value in values.items():
        if value is not None:
            setattr(properties, name, value)
    return properties


def code(reason):
    return reason if isinstance(reason, int) else reason.value


def told(properties):
    if properties is None:
        return {}
    correlation = getattr(properties, "CorrelationData", None)
    return {
        "type": getattr(properties, "ContentType", None),
        "reply": getattr(properties, "ResponseTopic", None),
        "correlation": None if correlation is None else correlation.decode(),
        "ids": getattr(properties, "SubscriptionIdentifier", []),
        "user": dict(getattr(properties, "UserProperty", [])),
    }


def on_message(client, _, message):
    head = {"topic": message.topic, "qos": message.qos, "retain": message.retain, "dup": message.dup}
    holds = options.get("hold") and message.qos > 0
    # Before it is told: the order to acknowledge may follow at once, in another thread.
    if holds:
        held.append(message)
    show({"message": {**head, **told(message.properties)}, "body": message.payload.decode()})
    if not holds:
        client.ack(message.mid, message.qos)


def on_connect(_client, _, flags, reason, properties):
    reached = {"reason": code(reason), "present": flags.session_present}
    if properties is not None:
        reached["assignedClientIdentifier"] = getattr(properties, "AssignedClientIdentifier", None)
        reached["receiveMaximum"] = getattr(properties, "ReceiveMaximum", None)
    # The library has numbers of its own for what 3.x answers.
    show({"connected": reached} if code(reason) == 0 else {"error": code(reason)})


client = Client(
    CallbackAPIVersion.VERSION2,
    client_id=options.get("client", ""),
    transport="websockets",
    protocol={3: MQTTv31, 4: MQTTv311, 5: MQTTv5}[version],
    manual_ack=True,
    reconnect_on_failure=False,
    **({} if is_5 else {"clean_session": options.get("clean", True)}),
)
client.on_message = on_message
client.on_connect = on_connect
client.on_subscribe = lambda _c, _u, _m, reasons, _p: show({"subscribed": [code(reason) for reason in reasons]})
client.on_unsubscribe = lambda _c, _u, _m, reasons, _p: show({"unsubscribed": [code(reason) for reason in reasons]})
client.on_publish = lambda _c, _u, _m, reason, _p: show({"published": code(reason)})
client.on_disconnect = lambda _c, _u, _f, reason, _p: show({"closed": code(reason)})
client.ws_set_options(path=url.path)
if "user" in options:
    client.username_pw_set(options["user"], options["password"])
if "will" in options:
    will = options["will"]
    client.will_set(will["topic"], will["payload"], retain=will.get("retain", False))


def subscribe(order):
    wanted = []
    for one in order["filters"]:
        if is_5:
            how = SubscribeOptions(one.get("qos", 0), one.get("nl", False), one.get("rap", False), one.get("rh", 0))
        else:
            how = one.get("qos", 0)
        wanted.append((one["filter"], how))
    client.subscribe(wanted, properties=properties_of(PacketTypes.SUBSCRIBE, SubscriptionIdentifier=order.get("id")))


def publish(order):
    given = order.get("properties") or {}
    correlation = given.get("correlation")
    properties = properties_of(
        PacketTypes.PUBLISH,
        ContentType=given.get("type"),
        ResponseTopic=given.get("reply"),
        CorrelationData=None if correlation is None else correlation.encode(),
        UserProperty=list(given["user"].items()) if "user" in given else None,
    )
    client.publish(order["topic"], order["body"], order.get("qos", 0), order.get("retain", False), properties)


def acknowledge(_order):
    # With the first there is room for another, which comes while the second is acknowledged, and is held in its turn.
    taken = held[:]
    del held[: len(taken)]
    for message in taken:
        client.ack(message.mid, message.qos)


orders = {
    "subscribe": subscribe,
    "unsubscribe": lambda order: client.unsubscribe(order["filters"]),
    "publish": publish,
    "acknowledge": acknowledge,
    "leave": lambda _order: client.disconnect(),
    "break": lambda _order: client.socket().close(),
}

connect = properties_of(
    PacketTypes.CONNECT, ReceiveMaximum=options.get("receive"), SessionExpiryInterval=options.get("expiry")
)
clean = {"clean_start": options.get("clean", True)} if is_5 else {}
client.connect(url.hostname, url.port, keepalive=options.get("keepalive", 60), properties=connect, **clean)
client.loop_start()
for line in sys.stdin:
    order = json.loads(line)
    orders[order["order"]](order)
