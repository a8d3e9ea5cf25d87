"""Turns the edges of one button into gestures. No I/O and no clock of its own: times come in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

GestureKind = Literal["press", "double", "hold"]

DOUBLE_NS = 400_000_000
"""A second press that starts within this of the first one's release makes a double press."""
HOLD_NS = 3_000_000_000
"""A press this long is a hold, told while the button is still down."""
DEBOUNCE_NS = 10_000_000
"""A level counts once it has held for this; contacts bounce for a few milliseconds."""
LATE_NS = 30_000_000
"""An edge may be fed this long after its time: a press is final only then."""


@dataclass(frozen=True, slots=True)
class Gesture:
    """What the worker meant, with the time of its first edge."""

    kind: GestureKind
    t_ns: int


class Gestures:
    """Recogniser of short press, double press and hold.

    Feed edges as they come, then call `poll` at `deadline_ns()` at the latest; both may be called late:
    what is recognised depends on the edges' times alone. Edges that go back in time are taken as
    simultaneous with the newest one.
    """

    def __init__(
        self,
        *,
        immediate: bool = False,
        double_ns: int = DOUBLE_NS,
        hold_ns: int = HOLD_NS,
        debounce_ns: int = DEBOUNCE_NS,
    ) -> None:
        """Args:
        immediate: Deliver `press` at its release, without waiting for a second one: no doubles then.
        double_ns: From release to the next press.
        hold_ns: From press to `hold`.
        debounce_ns: Shorter pulses, either way, are not seen.
        """
        self._immediate = immediate
        self._double_ns, self._hold_ns, self._debounce_ns = double_ns, hold_ns, debounce_ns
        self._raw = False
        self._raw_ns = 0
        self._edge_ns = 0
        """First edge of the contact's present unrest."""
        self._down = False
        self._down_ns = 0
        self._held = False
        self._first: tuple[int, int] | None = None
        """Press and release times of a press that may become a double."""
        self._second = False
        self._found: list[Gesture] = []

    def feed(self, down: bool, t_ns: int) -> None:
        """An edge of the contact at `t_ns`; repeated levels are ignored."""
        t_ns = max(t_ns, self._raw_ns)
        self._advance(t_ns, 0)
        if down == self._raw:
            return
        if down != self._down and t_ns - self._raw_ns >= self._debounce_ns:
            self._edge_ns = t_ns
        self._raw, self._raw_ns = down, t_ns

    def cancel(self) -> None:
        """Forget a press that has not ended: its button cannot be seen any more."""
        self._raw = self._down = self._held = self._second = False

    def poll(self, now_ns: int) -> list[Gesture]:
        """Gestures recognised up to `now_ns`, in order; each is told once."""
        self._advance(now_ns, LATE_NS)
        found, self._found = self._found, []
        return found

    def deadline_ns(self) -> int | None:
        """When `poll` may next find something if no edge comes; None while it cannot."""
        if self._found:
            return 0
        if self._raw != self._down:
            return self._raw_ns + self._debounce_ns
        if self._down:
            return None if self._held or self._second else self._down_ns + self._hold_ns
        return None if self._first is None else self._first[1] + self._double_ns + LATE_NS + 1

    def _advance(self, now_ns: int, late_ns: int) -> None:
        """Let time pass: levels that have held, holds and expired double windows, in the order they fell."""
        if self._raw != self._down:
            self._expire(self._edge_ns, 0)
            if now_ns - self._raw_ns < self._debounce_ns:
                return
            self._down = self._raw
            if self._down:
                self._press(self._edge_ns)
            else:
                self._release(self._edge_ns)
        self._expire(now_ns, late_ns)

    def _expire(self, until_ns: int, late_ns: int) -> None:
        """Deadlines of the debounced state that fall before `until_ns`."""
        if self._down:
            if not self._held and not self._second and until_ns - self._down_ns >= self._hold_ns:
                self._held = True
                self._tell("hold", self._down_ns)
        elif self._first is not None and until_ns - self._first[1] > self._double_ns + late_ns:
            self._tell("press", self._first[0])
            self._first = None

    def _press(self, t_ns: int) -> None:
        self._down_ns, self._held = t_ns, False
        if self._first is not None:
            self._tell("double", self._first[0])
            self._first, self._second = None, True

    def _release(self, t_ns: int) -> None:
        if self._held or self._second:
            self._held = self._second = False
        elif self._immediate:
            self._tell("press", self._down_ns)
        else:
            self._first = (self._down_ns, t_ns)

    def _tell(self, kind: GestureKind, t_ns: int) -> None:
        self._found.append(Gesture(kind, t_ns))
