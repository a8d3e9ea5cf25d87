"""A rig's own network namespace, joined to this machine by a cable that can be cut in several ways.

Needs root and iproute2 (Linux). Nothing leaves the machine: the only route leads to the cable's other end.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, get_args

from edgecap.errors import EdgecapError

Cut = Literal["half-open", "lost-up", "lost-down", "refused", "prohibited", "unplugged"]
"""`half-open`: packets vanish both ways, sockets stay; `lost-up`, `lost-down`: vanish one way only;
`refused`: connections are reset and refused; `prohibited`: the network says no; `unplugged`: no carrier."""
CUTS: tuple[Cut, ...] = get_args(Cut)
_NAMESPACES = Path("/run/netns")
_NOBODY = "02:00:00:00:00:fe"
"""A hardware address that no card has: what is sent there is lost without a word."""


class NamespaceError(EdgecapError):
    """The system does not give us a network namespace."""


def _remove_orphans() -> None:
    """Remove what processes have left behind that were killed: their addresses would be in our way."""
    for path in _NAMESPACES.glob("edgecap-*-*"):
        pid = path.name.split("-")[1]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            with contextlib.suppress(NamespaceError):
                _ip("netns", "del", path.name)


def _ip(*args: str) -> None:
    done = subprocess.run(["ip", *args], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NamespaceError(f"`ip {' '.join(args)}` failed: {done.stderr.strip()}", fix="run as root")


class Cable:
    """A context manager that makes the namespace and removes it.

    Args:
        number: 0 to 15, distinct among the cables of one process.
    """

    def __init__(self, number: int) -> None:
        tag = f"{os.getpid()}-{number}"
        self.name = f"edgecap-{tag}"
        self.path = _NAMESPACES / self.name
        # A network of four addresses for each cable of each process.
        block = (os.getpid() * 16 + number) % (1 << 14)
        self.near, self.far = (f"10.213.{block >> 6}.{(block & 63) * 4 + k}" for k in (1, 2))
        self.cut_as: Cut | None = None
        self._near_card, self._far_card = f"ecn{tag}", f"ecf{tag}"

    @staticmethod
    def available() -> bool:
        """Whether this process may make namespaces."""
        if os.geteuid() != 0 or shutil.which("ip") is None:
            return False
        probe = f"edgecap-probe-{os.getpid()}"
        try:
            _ip("netns", "add", probe)
            _ip("netns", "del", probe)
        except NamespaceError:
            return False
        return True

    def __enter__(self) -> Self:
        _remove_orphans()
        _ip("netns", "add", self.name)
        try:
            _ip(
                "link",
                "add",
                self._near_card,
                "type",
                "veth",
                "peer",
                "name",
                self._far_card,
                "netns",
                self.name,
            )
            _ip("addr", "add", f"{self.near}/30", "dev", self._near_card)
            _ip("link", "set", self._near_card, "up")
            self._inside("addr", "add", f"{self.far}/30", "dev", self._far_card)
            self._inside("link", "set", self._far_card, "up")
            self._inside("link", "set", "lo", "up")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(NamespaceError):
            _ip("link", "del", self._near_card)
        _ip("netns", "del", self.name)

    def cut(self, how: Cut) -> None:
        """Part the rig from this machine."""
        self.heal()
        if how in ("half-open", "lost-up"):
            self._inside(
                "neigh", "replace", self.near, "lladdr", _NOBODY, "dev", self._far_card, "nud", "permanent"
            )
        if how in ("half-open", "lost-down"):
            _ip("neigh", "replace", self.far, "lladdr", _NOBODY, "dev", self._near_card, "nud", "permanent")
        if how == "refused":
            self._inside("addr", "add", f"{self.near}/32", "dev", "lo")
        elif how == "prohibited":
            self._inside("route", "add", "prohibit", f"{self.near}/32")
        elif how == "unplugged":
            _ip("link", "set", self._near_card, "down")
        self.cut_as = how

    def heal(self) -> None:
        """Undo the cut, if there is one."""
        how, self.cut_as = self.cut_as, None
        if how in ("half-open", "lost-up"):
            self._inside("neigh", "del", self.near, "dev", self._far_card)
        if how in ("half-open", "lost-down"):
            _ip("neigh", "del", self.far, "dev", self._near_card)
        if how == "refused":
            self._inside("addr", "del", f"{self.near}/32", "dev", "lo")
        elif how == "prohibited":
            self._inside("route", "del", "prohibit", f"{self.near}/32")
        elif how == "unplugged":
            _ip("link", "set", self._near_card, "up")

    def _inside(self, *args: str) -> None:
        _ip("-n", self.name, *args)
