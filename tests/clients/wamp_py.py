"""Autobahn|Python, told what to do by JSON objects on its input and telling what happens by others: wamp_py.py URL SERIALIZER"""

import asyncio
import json
import sys

from autobahn.asyncio.wamp import ApplicationRunner, ApplicationSession
from autobahn.wamp import serializer, types
from autobahn.wamp.exception import ApplicationError

SERIALIZERS = {
    "json": serializer.JsonSerializer,
    "msgpack": serializer.MsgPackSerializer,
    "cbor": serializer.CBORSerializer,
}


def bytes_of(value):
    """Bytes, which JSON does not have, are shown in hexadecimal digits."""
    return {"bytes": value.hex()}


def show(happening):
    print(json.dumps(happening, default=bytes_of), flush=True)


def content(args, kwargs):
    return {"args": list(args or []), "kwargs": kwargs or {}}


class Session(ApplicationSession):
    async def onJoin(self, details):
        self.subscriptions, self.registrations, self.calls, self.invocations = {}, {}, {}, {}
        show({"joined": details.session, "details": {"authrole": details.authrole, "realm": details.realm}})
        self.listening = asyncio.ensure_future(self.listen())

    async def listen(self):
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            order = json.loads(line)
            doing = asyncio.ensure_future(self.obey(order))
            if order["order"] == "call":
                self.calls[order["id"]] = doing
            # One after the other as far as they are sent.
            await asyncio.sleep(0)

    async def obey(self, order):
        try:
            await getattr(self, "do_" + order["order"])(order)
        except ApplicationError as error:
            show({"failed": order["id"], "error": error.error, **content(error.args, error.kwargs)})

    async def do_subscribe(self, order):
        def event(*args, event_details, **kwargs):
            told = {"publication": event_details.publication, "topic": event_details.topic}
            told["details"] = {"retained": event_details.retained}
            show({"event": order["id"], **told, **content(args, kwargs)})

        options = types.SubscribeOptions(details_arg="event_details", **order.get("options", {}))
        subscription = await self.subscribe(event, order["topic"], options=options)
        self.subscriptions[order["id"]] = subscription
        show({"subscribed": order["id"], "subscription": subscription.id})

    async def do_unsubscribe(self, order):
        await self.subscriptions[order["id"]].unsubscribe()
        show({"unsubscribed": order["id"]})

    async def do_publish(self, order):
        options = types.PublishOptions(**order.get("options", {}))
        published = self.publish(
            order["topic"], *order.get("args", []), options=options, **order.get("kwargs", {})
        )
        if published is not None:
            show({"published": order["id"], "publication": (await published).id})

    async def do_call(self, order):
        options = types.CallOptions(**order.get("options", {}))
        value = await self.call(
            order["procedure"], *order.get("args", []), options=options, **order.get("kwargs", {})
        )
        if isinstance(value, types.CallResult):
            show({"result": order["id"], **content(value.results, value.kwresults)})
        else:
            show({"result": order["id"], **content([] if value is None else [value], {})})

    async def do_register(self, order):
        async def answer(*args, **kwargs):
            number = len(self.invocations) + 1
            self.invocations[number] = asyncio.get_running_loop().create_future()
            show({"invocation": number, "registration": order["id"], **content(args, kwargs)})
            return await self.invocations[number]

        self.registrations[order["id"]] = await self.register(answer, order["procedure"])
        show({"registered": order["id"]})

    async def do_unregister(self, order):
        await self.registrations[order["id"]].unregister()
        show({"unregistered": order["id"]})

    async def do_yield(self, order):
        result = types.CallResult(*order.get("args", []), **order.get("kwargs", {}))
        self.invocations[order["invocation"]].set_result(result)

    async def do_fail(self, order):
        error = ApplicationError(order["error"], *order.get("args", []), **order.get("kwargs", {}))
        self.invocations[order["invocation"]].set_exception(error)

    async def do_leave(self, order):
        self.leave()

    def onLeave(self, details):
        show({"closed": "closed", "reason": details.reason, "message": details.message})
        self.disconnect()

    def onDisconnect(self):
        asyncio.get_running_loop().stop()


url, name = sys.argv[1:]
runner = ApplicationRunner(url, "realm1", serializers=[SERIALIZERS[name]()])
runner.run(Session, log_level="error")
