"""Delivery is paused and limited by command, by what is desired of a rig, and by its configuration."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from edgecap import topics
from tests.system.site import RIG, SITE, Site
from tests.system.test_flow import ctl, replaying_glove


class Metered(Site):
    uplink = ""

    def config(self) -> Path:
        path = super().config()
        path.write_text(path.read_text().replace("[uplink]\n", f"[uplink]\n{self.uplink}"))
        return path


def test_delivery_is_paused_and_limited_from_afar(tmp_path: Path) -> None:
    async def body(site: Metered) -> None:
        def told(**wanted: object) -> bool:
            uplink: dict[str, Any] = site.status.get("uplink", {})
            return all(uplink.get(name) == value for name, value in wanted.items())

        async def desire(**wanted: object) -> None:
            topic = topics.topic(SITE, RIG, topics.DESIRED)
            await site.link.publish(topic, json.dumps(wanted).encode(), qos=1, retain=True)

        await replaying_glove(site)
        await site.start_daemon()
        assert told(paused=False, max_kbit_s=0)

        assert await ctl(site, "pause") == (0, "uplink paused")
        assert await ctl(site, "limit", "2000") == (0, "uplink is limited to 2000 kbit/s")
        await site.until("paused and limited", lambda: told(paused=True, max_kbit_s=2000, held="paused"))
        assert await ctl(site, "resume") == (0, "uplink resumed")
        assert await ctl(site, "limit", "0") == (0, "uplink is not limited")
        await site.until("free again", lambda: told(paused=False, max_kbit_s=0))
        for nonsense in ("", "2.5", "lots"):
            code, words = await ctl(site, "limit", nonsense)
            assert (code, "limit needs kbit/s" in words) == (2, True), words
        code, words = await ctl(site, "limit", "99999999999")
        assert (code, "refused limit" in words) == (1, True), words

        await desire(version="7", max_kbit_s=500, paused=True)
        await site.until("as desired", lambda: told(paused=True, max_kbit_s=500))
        assert site.status["desired_version"] == "7"
        await desire(version="8", max_kbit_s=-1)
        await site.until("refused", lambda: any(e["kind"] == "refused" for e in site.events))
        assert site.status["desired_version"] == "7"

        # What is retained holds after a restart; what was commanded does not.
        await desire(version="9", max_kbit_s=700)
        await site.until("limited anew", lambda: told(max_kbit_s=700))
        await site.stop_daemon()
        await site.start_daemon()
        await site.until("limited after a restart", lambda: told(paused=False, max_kbit_s=700))

        # By configuration, where nothing is desired; a command overrules it for the daemon's life.
        await site.stop_daemon()
        await site.link.publish(topics.topic(SITE, RIG, topics.DESIRED), b"", qos=1, retain=True)
        site.uplink = "paused = true\nmax_kbit_s = 300\n"
        await site.start_daemon()
        assert told(paused=True, max_kbit_s=300, held="paused"), site.status["uplink"]
        assert await ctl(site, "resume") == (0, "uplink resumed")
        await site.until("resumed", lambda: told(paused=False, max_kbit_s=300, held=""))

    async def run() -> None:
        async with Metered(tmp_path) as site:
            await body(site)

    asyncio.run(run())
