"""A board's light at irregular instants, for a camera that sees it: `edgecap calibrate sync --method led`.

The board itself tells when it switched (events led-on and led-off, to the microsecond), so that neither the
link nor this program's pace matters. Irregular, because a steady rhythm looks the same a beat later.
"""

from __future__ import annotations

import asyncio
import difflib
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping

from edgecap.daemon.recording import OpenSource
from edgecap.errors import SessionError

SHORTEST_S, LONGEST_S = 0.1, 0.6
"""Between two switchings: longer than two frames of a slow camera, and many within half a minute."""
MOST_S = 120.0
DEFAULT_S = 20.0
WHITE, DARK = (255, 255, 255), (0, 0, 0)


def intervals_s(seed: int, seconds: float) -> Iterator[float]:
    """How long the light stays on, off, on …, for `seconds` in all or a little more; ends dark."""
    rng = random.Random(seed)
    total, n = 0.0, 0
    while total < seconds or n % 2:
        wait_s = rng.uniform(SHORTEST_S, LONGEST_S)
        total, n = total + wait_s, n + 1
        yield wait_s


async def blink(device: OpenSource, seed: int, seconds: float, may_go_on: Callable[[], bool]) -> int:
    """Blink with a board's light, then give the light back; returns how often it was switched on."""
    n = 0
    with device.borrowed_light() as show:
        for k, wait_s in enumerate(intervals_s(seed, seconds)):
            if not may_go_on():
                break
            show(DARK if k % 2 else WHITE)
            n += k % 2 == 0
            await asyncio.sleep(wait_s)
    return n


def read_request(args: Mapping[str, str]) -> tuple[int, float]:
    """The seed and the seconds that a command asks for; raises `SessionError`."""
    try:
        seconds = float(args.get("seconds", "") or DEFAULT_S)
    except ValueError:
        seconds = math.nan
    if not 1.0 <= seconds <= MOST_S:
        raise SessionError(
            f"refused blink: {args.get('seconds', '')[:20]!r} is no number of seconds from 1 to {MOST_S:g}"
        )
    seed = args.get("seed", "0")
    if not (seed.isascii() and seed.isdecimal()) or len(seed) > 18:
        raise SessionError(f"refused blink: seed {seed[:20]!r} is no whole number of up to 18 digits")
    return int(seed), seconds


def find_board(devices: Iterable[OpenSource], name: str) -> OpenSource:
    """The device of that name that has a light; raises `SessionError`."""
    lit = {d.name: d for d in devices if d.has_light}
    if name in lit:
        return lit[name]
    near = difflib.get_close_matches(name, lit, 1)
    known = f"did you mean {near[0]}?" if near else f"boards here: {', '.join(lit) or 'none'}"
    raise SessionError(f"refused blink: no board {name[:64]!r} with a light is open", fix=known)
