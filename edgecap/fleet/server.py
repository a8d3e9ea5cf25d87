"""The operator's page, its data and the metrics, over HTTP. Reads only: commands go through `edgecap ctl`."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from importlib import resources
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from edgecap import clock, topics
from edgecap.errors import UsageError
from edgecap.fleet.attention import as_told
from edgecap.fleet.board_clock import board_clocks
from edgecap.fleet.metrics import exposition
from edgecap.fleet.roster import RigRow, Roster, follow
from edgecap.mqtt import Broker, Connection, keep_connected

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MAX_ROWS = 500
"""More rows than this nobody reads; the search narrows them down."""
SHOWN_EVENTS = 30
PAGE = {"/": ("page.html", "text/html"), "/page.js": ("page.js", "text/javascript"),
        "/page.css": ("page.css", "text/css")}  # fmt: skip
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


class FleetServer:
    """Follows the fleet on a broker and answers HTTP.

    Args:
        broker: Where rigs speak.
        client_id: Of this program at the broker.
        site: Only this site; `+` for all.
    """

    def __init__(self, broker: Broker, *, client_id: str, site: str = "+") -> None:
        self.roster = Roster()
        self.connected, self.trouble = False, "not connected yet"
        self._broker, self._client_id, self._site = broker, client_id, site

    @asynccontextmanager
    async def serve(self, host: str, port: int) -> AsyncIterator[str]:
        """Serve; yields the URL. Raises `UsageError` if the address cannot be listened on."""
        app = web.Application(middlewares=[_harden])
        app.router.add_get("/rigs.json", self._rigs)
        app.router.add_get("/rig.json", self._rig)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._health)
        for path, (name, content_type) in PAGE.items():
            app.router.add_get(path, _static(name, content_type))
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            try:
                await web.TCPSite(runner, host, port).start()
            except OSError as error:
                raise UsageError(
                    f"cannot listen on {host}:{port}: {error.strerror}",
                    fix="choose another --listen HOST:PORT",
                ) from error
            link = asyncio.create_task(self._link(), name="fleet link")
            try:
                bound = runner.addresses[0]
                yield f"http://{bound[0]}:{bound[1]}"
            finally:
                link.cancel()
                await asyncio.gather(link, return_exceptions=True)
        finally:
            await runner.cleanup()

    async def _link(self) -> None:
        async def body(connection: Connection) -> None:
            await follow(connection, self.roster)

        await keep_connected(
            self._broker,
            body,
            client_id=self._client_id,
            subscribe=[topics.subscription(c, site=self._site) for c in (topics.STATUS, topics.EVENT)],
            on_state=self._on_state,
        )

    def _on_state(self, connected: bool, reason: str) -> None:
        self.connected, self.trouble = connected, reason

    async def _rigs(self, request: web.Request) -> web.Response:
        """Rows (`?q=` part of a name or reason, `?all=1` the good ones too), counts and events."""
        now_ns = clock.now_ns()
        query = request.query.get("q", "").strip().lower()
        rows = self.roster.rows(now_ns)
        worded = [(row, row.reasons(now_ns)) for row in rows]
        shown = [
            (row, why)
            for row, why in worded
            if (why or request.query.get("all") or query) and query in _text(row, why)
        ]
        body = {
            "connected": self.connected,
            "trouble": self.trouble,
            "rigs": len(rows),
            "states": Counter(row.state for row in rows),
            "severities": Counter(why[0].severity for _, why in worded if why),
            "matching": len(shown),
            "rows": [_as_json(row, why, now_ns) for row, why in shown[:MAX_ROWS]],
            "events": [
                {**msgspec.structs.asdict(e), "age_s": round((now_ns - e.heard_ns) / 1e9, 1)}
                for e in list(self.roster.events)[: -SHOWN_EVENTS - 1 : -1]
            ],
        }
        return web.Response(body=msgspec.json.encode(body), content_type="application/json")

    async def _rig(self, request: web.Request) -> web.Response:
        """One rig (`?site=` and `?rig=`) with all its streams and the clocks of its boards."""
        now_ns = clock.now_ns()
        row = self.roster.find(request.query.get("site", ""), request.query.get("rig", ""))
        if row is None:
            raise web.HTTPNotFound(text="no such rig has spoken to this broker")
        body = _as_json(row, row.reasons(now_ns), now_ns)
        if row.status is not None:
            body["streams"] = msgspec.to_builtins(row.status.streams)
            body["clocks"] = msgspec.to_builtins(board_clocks(row.status))
        return web.Response(body=msgspec.json.encode(body), content_type="application/json")

    async def _metrics(self, request: web.Request) -> web.Response:
        accept = request.headers.get("Accept", "")
        text, media_type = await asyncio.to_thread(exposition, self.roster, accept)
        return web.Response(body=text, headers={"Content-Type": media_type})

    async def _health(self, _: web.Request) -> web.Response:
        """200 while the broker is heard, for a service's or a load balancer's check."""
        return web.Response(status=200 if self.connected else 503, text=self.trouble or "ok")


def _text(row: RigRow, why: list[Any]) -> str:
    return f"{row.site}/{row.rig} {row.state} {' '.join(r.text for r in why)}".lower()


def _as_json(row: RigRow, why: list[Any], now_ns: int) -> dict[str, Any]:
    status = row.status
    told: dict[str, Any] = {}
    if status is not None:
        told = {
            "session": status.session,
            "session_s": status.session_s,
            "task": status.task,
            "led": status.led,
            "waiting_bytes": status.spool.bytes,
            "free_bytes": status.spool.free_bytes,
            "hours_left": status.spool.hours_left,
            "battery_percent": status.battery_percent,
            "bound_us": round(max((v.u_ns for v in status.streams), default=0) / 1e3, 1),
            "streams": [
                {"stream": v.stream, "state": v.state, "rate_hz": v.rate_hz, "lost": v.lost}
                for v in status.streams
            ],
        }
    return {
        "site": row.site,
        "rig": row.rig,
        "state": row.state,
        "for_s": round((now_ns - row.since_ns) / 1e9, 1),
        "reasons": as_told(why),
        **told,
    }


def _static(name: str, content_type: str) -> Any:
    data = resources.files("edgecap.fleet").joinpath(name).read_bytes()

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=data, content_type=content_type, charset="utf-8")

    return answer


@web.middleware
async def _harden(request: web.Request, handler: Any) -> web.StreamResponse:
    response: web.StreamResponse = await handler(request)
    response.headers.update(HEADERS)
    return response
