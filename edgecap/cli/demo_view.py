"""What `edgecap demo` shows while it runs: streams, clock bound, spool, receipts, events."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import msgspec
from rich.bar import Bar
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from edgecap import topics
from edgecap.codec.receipt import decode_receipt
from edgecap.mqtt import Message
from edgecap.status import NOT_JSON, RigStatus

_STATE = {"ok": "green", "waiting": "yellow"}
_LED = {"recording": "green", "idle": "blue", "draining": "cyan"}
PLAIN_EVERY_S = 2.0


class DemoView:
    """Shows the demo's progress: a live table on a terminal, plain lines elsewhere.

    Args:
        console: Where to draw.
        seconds: Length of the recording, for the bar.
    """

    def __init__(self, console: Console, seconds: float) -> None:
        self.console, self.seconds = console, seconds
        self.status: RigStatus | None = None
        self.receipts = 0
        self.chunks_receipted = 0
        self._numbers: dict[str, Any] = {}
        self._events: deque[str] = deque(maxlen=5)
        self._recording_since: float | None = None
        self._plain_at = 0.0
        self._live: Live | None = None

    def __enter__(self) -> DemoView:
        if self.console.is_terminal:
            self._live = Live(self._draw(), console=self.console, refresh_per_second=8, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def step(self, text: str) -> None:
        """Say what the demo is at."""
        self.console.print(f"[bold]▸[/] {text}", highlight=False)

    def detail(self, text: str) -> None:
        """Say how far a step is; only where it can be overwritten."""
        if self._live is not None:
            self._live.update(Panel(Text(text, style="dim"), title="edgecap demo"))

    def progress(self, done: int, total: int) -> None:
        """How far the export is."""
        if self._live is not None:
            self._live.update(Panel(Bar(max(total, 1), 0, done, color="green"), title="exporting to MCAP"))

    @property
    def spool_chunks(self) -> int:
        """Chunks that the rig still holds, as it last said."""
        return int(self._numbers.get("spool_chunks", -1))

    def progress_made(self) -> tuple[object, ...]:
        """What changes as long as the rig gets on."""
        state = self.status.state if self.status is not None else ""
        return state, self.spool_chunks, self._numbers.get("uplink_sent"), self.chunks_receipted

    def standing(self) -> str:
        """Where the rig stands, in words."""
        if self.status is None:
            return "it has not spoken yet"
        said = f"it is {self.status.state}, {max(self.spool_chunks, 0)} chunks wait"
        problems = "; ".join(self.status.problems.values())
        return f"{said}; {problems}" if problems else said

    def wait_for(self, text: str) -> None:
        """Say what is waited for."""
        self._events.append(text)
        if self._live is None:
            self.console.print(f"  {text}", highlight=False)
        self._show()

    def see(self, message: Message) -> None:
        """Take a message of the rig into account."""
        suffix = topics.parse(message.topic).suffix
        if suffix == topics.STATUS.suffix:
            try:
                self.status = msgspec.json.decode(message.payload, type=RigStatus)
            except NOT_JSON:
                return  # the last will
            recording = self.status.state == "recording"
            self._recording_since = (self._recording_since or time.monotonic()) if recording else None
        elif suffix == topics.TELEMETRY.suffix:
            self._numbers = msgspec.json.decode(message.payload)
        elif suffix == topics.EVENT.suffix:
            event = msgspec.json.decode(message.payload)
            line = f"{event['kind']}: {event['text']}"
            self._events.append(line)
            if self._live is None:
                self.console.print(f"  {line}", highlight=False)
        elif suffix == topics.RECEIPT.suffix:
            self.receipts += 1
            self.chunks_receipted += sum(1 for _ in decode_receipt(message.payload).ids())
        self._show()

    def _show(self) -> None:
        if self._live is not None:
            self._live.update(self._draw())
        elif self.status is not None and time.monotonic() - self._plain_at > PLAIN_EVERY_S:
            self._plain_at = time.monotonic()
            number = self._number
            seen = ", ".join(
                f"{v.stream} {number(v.stream, 'n', v.n):.0f} ±{number(v.stream, 'u_us', 0):.0f} µs"
                for v in self.status.streams
            )
            line = (
                f"{self.status.state}{f' {seen}' if seen else ''}; {self.chunks_receipted} chunks receipted"
            )
            self.console.print(f"  {line}", highlight=False, soft_wrap=True)

    def _number(self, stream: str, what: str, default: float) -> float:
        return float(self._numbers.get(f"{stream.replace('-', '_')}_{what}", default))

    def _draw(self) -> RenderableType:
        status = self.status
        if status is None:
            return Panel(Text("starting …", style="dim"), title="edgecap demo")
        table = Table(expand=True, box=None, header_style="dim")
        for name in ("stream", "verdict", "rate", "samples", "lost", "clock bound"):
            table.add_column(name, justify="left" if name in ("stream", "verdict") else "right")
        for v in status.streams:
            u_us = self._number(v.stream, "u_us", v.u_ns / 1000)
            table.add_row(
                v.stream,
                Text(f"● {v.state}", style=_STATE.get(v.state, "red")),
                f"{self._number(v.stream, 'rate_hz', v.rate_hz):.1f} Hz",
                f"{self._number(v.stream, 'n', v.n):,.0f}",
                f"{self._number(v.stream, 'lost', v.lost):.0f}",
                f"± {u_us:.0f} µs",
            )
        n = self._numbers
        flow = Text.assemble(
            ("LED ", "dim"),
            (f"◉ {status.led}", _LED.get(status.led, "red")),
            ("   spool ", "dim"),
            f"{n.get('spool_chunks', 0)} chunks, {n.get('spool_bytes', 0) / 1e6:.2f} MB",
            ("   sent ", "dim"),
            f"{n.get('uplink_sent', 0)}",
            ("   receipted ", "dim"),
            f"{self.chunks_receipted} chunks in {self.receipts} receipts",
            ("   p99 ", "dim"),
            f"{n.get('receipt_p99_ms', 0):.0f} ms",
        )
        done_s = time.monotonic() - self._recording_since if self._recording_since else 0.0
        bar = Bar(self.seconds, 0, min(done_s, self.seconds), color="green" if done_s else "white")
        events = Text("\n".join(self._events), style="dim")
        title = f"edgecap demo · {status.state} {status.session}"
        return Panel(Group(table, Text(), flow, bar, events), title=title, subtitle=status.task)
