"""What anyone may publish on a rig's topics must not stop it, nor make it look as if it recorded."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from edgecap import topics
from edgecap.sim.firmware import recorded_stream
from edgecap.sim.recordings import RECORDINGS
from tests.system.site import RIG, SITE, Site

pytestmark = pytest.mark.timeout(120)
SPOILED = [b'{"id": "\xcf", "cmd": "status"}', b'{"id": ' * 2000, b"[" * 9000, b"\0", b"null", b""]


def test_the_daemon_survives_what_is_no_command_and_a_task_that_no_manifest_holds(tmp_path: Path) -> None:
    async def body() -> None:
        async with Site(tmp_path) as site:
            glove = await site.add_device("glove", [recorded_stream(RECORDINGS["anyskin"], name="tactile")])
            await site.start_ingest()
            await site.start_daemon()
            for payload in SPOILED:
                for channel in (topics.CMD, topics.DESIRED, topics.RECEIPT):
                    await site.link.publish(topics.topic(SITE, RIG, channel), payload, qos=1)
            await site.until("answered", lambda: len(site.answers) == len(SPOILED))
            assert not any(answer["ok"] for answer in site.answers)

            # A task that no manifest can hold is refused when it comes, not when a worker presses the button.
            too_long = b'{"version": "1", "task": "' + b"x" * 200_000 + b'"}'
            await site.link.publish(topics.topic(SITE, RIG, topics.DESIRED), too_long, qos=1)
            await site.until("refused", lambda: "200000 characters" in site.status.get("desired_error", ""))
            assert (site.status["desired_version"], site.status["task"]) == ("", "fold a towel")
            assert "'1'" in site.status["desired_error"]
            for number, name in enumerate(("task", "start")):
                args = {"text": "x" * 2000, "task": "x" * 2000}
                command = {"id": f"long-{number}", "cmd": name, "args": args}
                await site.link.publish(
                    topics.topic(SITE, RIG, topics.CMD), json.dumps(command).encode(), qos=1
                )
                await site.until("answered", lambda n=number: len(site.answers) == len(SPOILED) + n + 1)
                assert not site.answers[-1]["ok"]
                assert "2000 characters, the limit is 1000" in site.answers[-1]["message"]
            assert site.status["state"] == "idle"

            good = b'{"version": "2", "task": "fold"}'
            await site.link.publish(topics.topic(SITE, RIG, topics.DESIRED), good, qos=1)
            await site.until("applied", lambda: site.status.get("desired_version") == "2")
            assert (site.status["desired_error"], site.status["task"]) == ("", "fold")
            session = await site.start_session(glove)
            await site.samples("glove-tactile", 50)
            await glove.press(80)
            await site.until_state("idle")
            await site.until_complete(session)
            assert await site.stop_daemon() == 0

    asyncio.run(body())
