"""Every kind of message that docs/asyncapi.yaml describes is heard from real programs, as it is described."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import msgpack
import pytest

from edgecap import topics
from edgecap.mqtt import Message, connect, parse_broker
from edgecap.status import OFFLINE
from tests.conformance.test_asyncapi import load, validator
from tests.system.site import RIG, SITE, Site
from tests.system.test_flow import replaying_glove

pytestmark = pytest.mark.timeout(180)


def plain(value: Any) -> Any:
    """msgpack as JSON Schema sees it: a bin is a string of as many characters."""
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, list):
        return [plain(v) for v in value]
    if isinstance(value, dict):
        return {key: plain(v) for key, v in value.items()}
    return value


class Checker:
    """Finds the one description that each message fits."""

    def __init__(self) -> None:
        document = load()
        self._header = validator(document, "#/components/schemas/ChunkHeader")
        self._messages = {
            suffix: [
                (name, validator(document, document["components"]["messages"][name]["payload"]["$ref"]))
                for name in channel["messages"]
            ]
            for suffix, channel in document["channels"].items()
        }
        self.wanted = {name for found in self._messages.values() for name, _ in found}
        self.heard: Counter[str] = Counter()

    def check(self, message: Message) -> None:
        suffix = topics.parse(message.topic).suffix
        binary = suffix in (topics.UP.suffix, topics.RECEIPT.suffix)
        body = plain(msgpack.unpackb(message.payload)) if binary else json.loads(message.payload)
        described = self._messages[suffix]
        fits = [name for name, schema in described if schema.is_valid(body)]
        errors = [str(e) for _, schema in described for e in schema.iter_errors(body)]
        assert len(fits) == 1, (suffix, fits, body, errors)
        self.heard[fits[0]] += 1
        if suffix == topics.UP.suffix:
            self._header.validate(plain(msgpack.unpackb(body[1].encode("latin-1"))))


async def told(site: Site, cmd: str, **args: str) -> bool:
    """Give a command as any program would, and wait for its answer."""
    number = len(site.answers)
    payload = json.dumps({"id": f"c-{number}", "cmd": cmd, "args": args}).encode()
    await site.link.publish(topics.topic(SITE, RIG, topics.CMD), payload, qos=1)
    await site.until("answered", lambda: len(site.answers) > number)
    return bool(site.answers[number]["ok"])


def test_all_that_is_said_over_a_session_is_as_described(tmp_path: Path) -> None:
    checker, heard = Checker(), list[Message]()

    async def body(site: Site) -> None:
        everything = f"{topics.ROOT}/{SITE}/{RIG}/#"
        broker = parse_broker(site.broker.url)
        async with connect(broker, client_id="all", subscribe=[everything], inbox=4096) as link:

            async def listen() -> None:
                async for message in link.messages():
                    heard.append(message)

            listening = asyncio.create_task(listen())
            await replaying_glove(site)
            await site.start_ingest()
            await site.start_daemon()
            desired = {"version": "7", "task": "stack cups", "max_kbit_s": 0, "paused": False}
            await site.link.publish(
                topics.topic(SITE, RIG, topics.DESIRED), json.dumps(desired).encode(), qos=1
            )
            await site.until("applied", lambda: site.status.get("desired_version") == "7")
            assert await told(site, "start")
            session = site.answers[-1]["message"].split()[-1]
            await site.devices["glove"].command("drop 5")
            await site.samples("glove-tactile", 100)
            assert await told(site, "mark", kind="note", text="there")
            assert await told(site, "status")
            assert not await told(site, "start")
            assert await told(site, "stop")
            await site.until_complete(session)
            assert await site.stop_daemon() == 0
            # The last of all; on a link of its own, for which the site's own hearing of it says nothing.
            await site.until("offline", lambda: any(m.payload == OFFLINE for m in heard))
            kinds = {json.loads(m.payload)["kind"] for m in heard if m.topic.endswith("/event")}
            assert kinds >= {"start", "stop", "mark", "gap", "refused"}
            listening.cancel()
            await asyncio.wait([listening])

    async def run() -> None:
        async with Site(tmp_path) as site:
            await body(site)

    asyncio.run(run())
    for message in heard:
        checker.check(message)
    assert set(checker.heard) == checker.wanted, checker.heard
