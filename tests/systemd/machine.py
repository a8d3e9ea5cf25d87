"""A small Debian that boots its own systemd: a container over a cached root; its changes go to a folder."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

CACHE = Path(os.environ.get("EDGECAP_SYSTEMD_ROOT", "/var/cache/edgecap-systemd-root"))
PATIENCE_S = 120.0
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "PAGER": "",
}

START = """
while "$@"; code=$?; [ $code = 133 ]; do :; done
exit $code
"""
"""With --keep-unit, nspawn ends with 133 when its machine reboots, and wants to be started again."""


class Machine:
    """`with Machine(folder, binds) as machine`; booted and idle when it is entered.

    Its network is a loopback of its own. What it writes is kept in `folder`, so it can be booted again.

    Args:
        folder: Where its changes to the cached root go; must be on a real file system.
        binds: Folders of this computer that it sees, read-only, by the path that it sees them at.
    """

    def __init__(self, folder: Path, binds: dict[str, Path]) -> None:
        self.folder = folder
        self.name = f"edgecap-test-{secrets.token_hex(4)}"
        self.binds = binds
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._groups: list[Path] = []

    def __enter__(self) -> Machine:
        for part in ("upper", "work", "root"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        overlay = (
            f"mount -t overlay edgecap -o lowerdir={(CACHE / 'root').resolve()},upperdir={self.folder}/upper,"
            f"workdir={self.folder}/work {self.folder}/root"
        )
        nspawn = [
            "systemd-nspawn", f"--directory={self.folder}/root", "--boot", f"--machine={self.name}",
            "--register=no", "--keep-unit", "--private-network", "--console=pipe",
            # As on a rig, the daemon may read the kernel's NTP state.
            "--system-call-filter=adjtimex clock_adjtime",
            *(f"--bind-ro={outside}:{inside}" for inside, outside in self.binds.items()),
        ]  # fmt: skip
        self._groups = _control_groups(self.name)
        enter = "".join(f"mkdir {group}; echo $$ >{group}/cgroup.procs; " for group in self._groups)
        with (self.folder / "console.log").open("ab") as console:
            # The mount lives in a namespace that ends with the container.
            self._nspawn = subprocess.Popen(
                ["unshare", "--mount", "sh", "-ec", f"{enter}{overlay}; {START}", "sh", *nspawn],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            )
        try:
            self.until_booted()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        process = self._nspawn
        assert process is not None
        for nspawn in _children(process.pid):
            os.kill(nspawn, signal.SIGTERM)  # asks the container to power off
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            for pid in (*_children(process.pid), process.pid):
                os.kill(pid, signal.SIGKILL)
            process.wait()
        self._nspawn = None
        for group in self._groups:
            _remove(group)
        with contextlib.suppress(OSError):
            (Path("/run/systemd/nspawn/propagate") / self.name).rmdir()

    # ── inside ──────────────────────────────────────────────────────────────────────────────────────

    @property
    def leader(self) -> int:
        """The container's process 1, as this computer numbers it."""
        process = self._nspawn
        assert process is not None
        if process.poll() is not None:
            raise AssertionError(f"the container ended: {self.console()[-3000:]}")
        for nspawn in _children(process.pid):
            for leader in _children(nspawn):
                return leader
        raise ProcessLookupError("the container has no process 1 now")

    def console(self) -> str:
        return (self.folder / "console.log").read_text(errors="replace")

    def run(
        self, *command: str, check: bool = True, timeout_s: float = PATIENCE_S, text: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside, as root; `text` is its input."""
        done = subprocess.run(
            ["nsenter", "-t", str(self.leader), "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w", *command],
            capture_output=True, text=True, check=False, env=ENVIRONMENT, timeout=timeout_s, input=text,
        )  # fmt: skip
        if check and done.returncode != 0:
            raise AssertionError(
                f"{command} → {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
            )
        return done

    def out(self, *command: str, check: bool = True) -> str:
        """What a command prints."""
        return self.run(*command, check=check).stdout.strip()

    def write(self, path: str, text: str, mode: str = "644") -> None:
        """Make a file inside."""
        script = 'mkdir -p "${1%/*}" && umask 077 && cat >"$1" && chmod "$2" "$1"'
        self.run("sh", "-ec", script, "sh", path, mode, text=text)

    def show(self, unit: str, *properties: str) -> dict[str, str]:
        """`systemctl show`, as a map."""
        lines = self.out("systemctl", "show", unit, *(f"--property={p}" for p in properties)).splitlines()
        return dict(line.partition("=")[::2] for line in lines)

    def journal(self, unit: str) -> list[dict[str, str]]:
        """Every journal entry of a unit, of all boots."""
        lines = self.out("journalctl", "--output=json", "--no-pager", f"--unit={unit}").splitlines()
        return [json.loads(line) for line in lines]

    def until(self, what: str, holds: Callable[[], object], patience_s: float = PATIENCE_S) -> None:
        """Wait until something holds; fails with the last words of the journal."""
        deadline = time.monotonic() + patience_s
        while True:
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                if holds():
                    return
            if time.monotonic() > deadline:
                words = self.out("journalctl", "--no-pager", "--lines=60", check=False)
                raise AssertionError(f"never {what}\n{words}")
            time.sleep(0.1)

    def until_booted(self) -> None:
        """Wait until every service that starts at boot has started or failed."""

        def booted() -> bool:
            state = self.run("systemctl", "is-system-running", check=False).stdout.strip()
            return state in ("running", "degraded")

        self.until("booted", booted)

    def reboot(self) -> None:
        """Restart it in order, as `reboot` does."""
        before = self.leader
        self.run("systemctl", "reboot", "--no-block")
        self.until("rebooted", lambda: self.leader != before)
        self.until_booted()


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def _control_groups(name: str) -> list[Path]:
    """Where systemd keeps its groups here: one hierarchy, or two on a computer with both versions."""
    roots = [Path("/sys/fs/cgroup") / part for part in ("unified", "systemd", "")]
    found = [root / name for root in roots if (root / "cgroup.procs").exists()]
    if not found:
        raise AssertionError("no control group file system that systemd could use is mounted")
    return found


def _remove(group: Path) -> None:
    """Remove a group without processes and all groups below it."""
    for folder, _, _ in os.walk(group, topdown=False):
        with contextlib.suppress(OSError):
            Path(folder).rmdir()
