"""What is examined, from where, and what has been found out on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from edgecap import clock
from edgecap.config import Config
from edgecap.errors import EdgecapError
from edgecap.model import ClockPair
from edgecap.mqtt import Broker
from edgecap.source.protocol import Source
from edgecap.spool.files import nearest_existing
from edgecap.status import RigStatus


@dataclass(frozen=True, slots=True)
class Roots:
    """Where the kernel and the system tell about themselves."""

    sys: Path = Path("/sys")
    proc: Path = Path("/proc")
    dev: Path = Path("/dev")
    etc: Path = Path("/etc")


@dataclass(slots=True)
class Exam:
    """Given to every check in turn.

    Attributes:
        config: Of the rig.
        sources: Its devices.
        broker: Where it delivers, None when nowhere; an error when it cannot be used as configured.
        panel: Opens the rig's own button, light and buzzer; None without any.
        seconds: How long to record.
        roots: The system's trees.
        read_pair: Reads the clocks and the kernel's NTP state.
        utc: The wall clock.
        tell: Says what is going on, for a person who waits.
        daemon: Process id of the rig's daemon, "" when it is unknown; None while none runs.
        told: What that daemon says of itself.
        untold: Why it says nothing.
        bytes_s: What the sensors produce per second, uncompressed; None until it has been measured.
    """

    config: Config
    sources: Sequence[Source]
    broker: Broker | EdgecapError | None = None
    panel: Callable[[], AbstractContextManager[object]] | None = None
    seconds: float = 3.0
    roots: Roots = field(default_factory=Roots)
    read_pair: Callable[[], ClockPair] = clock.read_pair
    utc: Callable[[], datetime] = lambda: datetime.now(UTC)
    tell: Callable[[str], None] = lambda _: None
    daemon: str | None = None
    told: RigStatus | None = None
    untold: str = ""
    bytes_s: float | None = None

    @property
    def spool_dir(self) -> Path:
        return Path(self.config.spool.dir)

    def existing_dir(self) -> Path:
        """The spool's directory, or the nearest above it that exists."""
        return nearest_existing(self.spool_dir)


def read_text(path: Path) -> str | None:
    """The stripped text of a small file of the kernel; None when there is none or it cannot be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None


def read_int(path: Path, base: int = 10) -> int | None:
    """The number in a small file of the kernel; None when there is none."""
    text = read_text(path)
    try:
        return int(text, base) if text is not None else None
    except ValueError:
        return None
