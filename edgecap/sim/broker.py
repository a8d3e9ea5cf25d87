"""A broker on loopback for demo and tests: mosquitto where it is installed, else amqtt in its own process.

Run `python -m edgecap.sim.broker --port N` for amqtt in the foreground.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import getpass
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from edgecap.errors import BrokerError

READY_S = 60.0
"""amqtt takes seconds to import on a small machine."""
_HOST = "127.0.0.1"
_CONNECT = bytes.fromhex("10 12 00 04 4d515454 04 02 000a 0006 72656164793f")
"""MQTT 3.1.1 CONNECT, clean session, keepalive 10 s, client id `ready?`."""
_DISCONNECT = bytes.fromhex("e000")

Program = Literal["mosquitto", "amqtt"]


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """What a TLS listener needs; with `ca` clients must show a certificate, whose name is their user."""

    cert: Path
    key: Path
    ca: Path | None = None


class LoopbackBroker:
    """A broker process; a context manager that ends it.

    Args:
        directory: For its config, log and password file.
        program: Which broker; by default mosquitto where it is on PATH.
        port: 0 takes a free one; the port stays the same over `restart`.
        users: Names and passwords; anonymous access is refused when given (mosquitto only).
        acl: Text of an access list file (mosquitto only).
        tls: Listen with TLS (mosquitto only).
        options: Further lines of mosquitto.conf.

    Raises:
        BrokerError: it does not start; names the port and quotes its log.
    """

    def __init__(
        self,
        directory: Path,
        *,
        program: Program | None = None,
        port: int = 0,
        users: Mapping[str, str] | None = None,
        acl: str = "",
        tls: TlsFiles | None = None,
        options: str = "",
    ) -> None:
        self.directory = directory
        self.program: Program = program or ("mosquitto" if _mosquitto() else "amqtt")
        self._held = HeldPort() if port == 0 else None
        self.port = self._held.number if self._held is not None else port
        self._tls = tls
        self._process: subprocess.Popen[bytes] | None = None
        self._config = directory / "mosquitto.conf"
        directory.mkdir(parents=True, exist_ok=True)
        if self.program == "amqtt":
            if users or acl or tls or options:
                raise BrokerError("the amqtt broker is started without options", fix="use mosquitto")
        else:
            self._configure(users or {}, acl, options)

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"{'mqtts' if self._tls else 'mqtt'}://{_HOST}:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log_file(self) -> Path:
        return self.directory / "broker.log"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it and return when it answers an MQTT CONNECT."""
        if _taken(self.port):
            raise BrokerError(
                f"port {self.port} on {_HOST} is taken by another program", fix="choose another port"
            )
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                self._command(), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            self._await_ready()
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Ask it to end, and make it end."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def kill(self) -> None:
        """End it as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Make it silent while its sockets stay open, as a half-open link is."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def _command(self) -> list[str]:
        if self.program == "amqtt":
            return [sys.executable, "-m", "edgecap.sim.broker", "--port", str(self.port)]
        found = _mosquitto()
        if found is None:
            raise BrokerError("mosquitto is not installed", fix="run: apt-get install mosquitto")
        return [found, "-c", str(self._config)]

    def _configure(self, users: Mapping[str, str], acl: str, options: str) -> None:
        lines = [
            f"listener {self.port} {_HOST}",
            f"allow_anonymous {'false' if users else 'true'}",
            "persistence false",
            f"user {getpass.getuser()}",  # as root it would become user mosquitto, who cannot read our files
        ]
        if users:
            path = self.directory / "passwords"
            path.write_text("".join(f"{name}:{password}\n" for name, password in users.items()))
            path.chmod(0o600)
            subprocess.run(["mosquitto_passwd", "-U", str(path)], check=True, capture_output=True)
            lines.append(f"password_file {path}")
        if acl:
            path = self.directory / "acl"
            path.write_text(acl)
            path.chmod(0o600)
            lines.append(f"acl_file {path}")
        if self._tls:
            lines += [f"certfile {self._tls.cert}", f"keyfile {self._tls.key}"]
            if self._tls.ca:
                lines += [
                    f"cafile {self._tls.ca}",
                    "require_certificate true",
                    "use_identity_as_username true",
                ]
        self._config.write_text("\n".join([*lines, options, ""]))

    def _await_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + READY_S
        while not (_answers(self.port) if self._tls is None else _taken(self.port)):
            if self._process.poll() is not None:
                raise BrokerError(
                    f"the {self.program} broker on port {self.port} ended at once "
                    f"(exit code {self._process.returncode}): {self._last_words()}",
                    fix="choose another port, or look into its log",
                    log=str(self.log_file),
                )
            if time.monotonic() > deadline:
                raise BrokerError(
                    f"the {self.program} broker on port {self.port} is not ready within {READY_S:g} s: "
                    f"{self._last_words()}",
                    log=str(self.log_file),
                )
            time.sleep(0.01)

    def _last_words(self) -> str:
        lines = self.log_file.read_text(errors="replace").strip().splitlines()
        return " | ".join(lines[-3:]) if lines else "it said nothing"


class HeldPort:
    """A TCP port on loopback, `number`, that is nobody else's for as long as this object lives.

    Its socket never listens, so that connecting is refused, and a server that sets SO_REUSEADDR, as most do,
    may bind the port beside it. One that was merely free just now may have been given to another program
    since, which asked for any port, too.
    """

    def __init__(self) -> None:
        holder = socket.socket()
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((_HOST, 0))
        self.number = int(holder.getsockname()[1])
        weakref.finalize(self, os.close, holder.detach())


def _mosquitto() -> str | None:
    """Debian installs it outside the PATH of ordinary users."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((_HOST, port)) == 0


def _answers(port: int) -> bool:
    """Whether an MQTT CONNECT gets a CONNACK, of whatever kind."""
    try:
        with socket.create_connection((_HOST, port), timeout=2) as sock:
            sock.sendall(_CONNECT)
            answer = sock.recv(4)
            with contextlib.suppress(OSError):
                sock.sendall(_DISCONNECT)
            return len(answer) >= 1 and answer[0] == 0x20
    except OSError:
        return False


async def _serve_amqtt(port: int) -> None:
    from amqtt.broker import Broker

    broker = Broker(
        {
            "listeners": {"default": {"type": "tcp", "bind": f"{_HOST}:{port}"}},
            "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
        }
    )
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await broker.start()
    await stop.wait()
    await broker.shutdown()


def main() -> int:
    """Run amqtt on loopback until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m edgecap.sim.broker", description=main.__doc__)
    parser.add_argument("--port", type=int, default=1883)
    args = parser.parse_args()
    if _taken(args.port):
        print(f"port {args.port} on {_HOST} is taken by another program", file=sys.stderr)  # noqa: T201
        return 1
    logging.basicConfig(level=logging.ERROR, format="%(name)s: %(message)s")
    asyncio.run(_serve_amqtt(args.port))
    return 0


if __name__ == "__main__":
    sys.exit(main())
