"""The shipped RP2040 image in an emulator, behind a pty: built, started, told what its sensors see."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import importlib.util
import json
import os
import pty
import shutil
import subprocess
import tty
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from edgecap.sim.firmware_build import SOURCES

EMULATOR = Path(__file__).with_name("emulator")
BOARDS = ("glove", "hand", "force4", "imu")
MAGNETS = (0x0C, 0x0D, 0x0E, 0x0F)
FINGERS = ("thumb", "index", "middle", "ring")
"""Where each of `MAGNETS` is, as the streams are called."""
FLASH_ID = bytes.fromhex("e66164084337a52c")
ANSWER_S = 60.0
PRIORITY = -10
AWAKE_NS = 150e6
"""The board's own time by which it has set its sensors up; by then the emulator is warm, too."""


def script(name: str) -> ModuleType:
    """A script of the firmware's build, as a module."""
    spec = importlib.util.spec_from_file_location(f"rp2040_{name}", SOURCES / "rp2040" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build_images(folder: Path) -> Path:
    """Build every board's image, as `make rp2040` ships them, with warnings as errors."""
    command = ["make", "-s", "-j2", "-C", str(SOURCES), "rp2040", f"BUILD={folder}"]
    environment = {k: v for k, v in os.environ.items() if k not in {"MAKEFLAGS", "MFLAGS", "MAKELEVEL"}}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr + done.stdout
    return folder


def install_emulator() -> None:
    """The locked npm packages, beside their lock file."""
    npm = shutil.which("npm")
    assert npm is not None, "npm is missing: apt-get install nodejs npm"
    wanted = (EMULATOR / "package-lock.json").read_bytes()
    installed = EMULATOR / "node_modules" / ".edgecap-lock"
    with (EMULATOR / "package-lock.json").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests of another process may want it, too
        if installed.is_file() and installed.read_bytes() == wanted:
            return
        command = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
        done = subprocess.run(command, cwd=EMULATOR, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        installed.write_bytes(wanted)


class EmulatedBoard:
    """A running board: `async with EmulatedBoard(images, "glove", folder) as board: …`.

    Args:
        images: Folder of `build_images`.
        board: Which of `BOARDS`.
        folder: For the emulator's options.
        seed: Of every random number that the emulator draws.
        record: Keep what the sensors measured, for `samples()`.
        imu: Settings of the inertial sensor: `whoAmI`, `present`, `ppm`, `frozen`, `int1`, and
            `lsm6dsv16x` for one of that kind instead of an ICM-42688-P.
        magnets: Addresses that have a sensor.
        image: Another image than the board's own.
        usb: The port is the board's USB; otherwise its UART.
    """

    def __init__(
        self,
        images: Path,
        board: str,
        folder: Path,
        *,
        seed: int = 1,
        record: bool = True,
        imu: dict[str, Any] | None = None,
        magnets: tuple[int, ...] = MAGNETS,
        image: Path | None = None,
        usb: bool = False,
    ) -> None:
        self.port = ""
        self._options = folder / f"emulator-{board}-{seed}.json"
        self._options.write_text(
            json.dumps(
                {
                    "image": str(image or images / f"edgecap-{board}.bin"),
                    "flashId": list(FLASH_ID),
                    "muxed": board in ("glove", "hand"),
                    "usb": usb,
                    "seed": seed,
                    "record": record,
                    "imu": {"ppm": 0} | (imu or {}),
                    "magnets": [{"address": a, "present": a in magnets} for a in MAGNETS],
                }
            )
        )
        self._process: asyncio.subprocess.Process | None = None
        self._slave = -1
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> EmulatedBoard:
        master, self._slave = pty.openpty()
        tty.setraw(self._slave)
        os.set_blocking(master, False)
        self.port = os.ttyname(self._slave)
        try:
            self._process = await asyncio.create_subprocess_exec(
                "node",
                str(EMULATOR / "board.mjs"),
                str(self._options),
                str(master),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=1 << 28,
                pass_fds=(master,),
            )
        finally:
            os.close(master)
        with contextlib.suppress(PermissionError):  # a real board is not slowed by what else its host does
            os.setpriority(os.PRIO_PROCESS, self._process.pid, PRIORITY)
        assert "ready" in await self._answer()
        while (await self.command("state"))["nanos"] < AWAKE_NS:
            await asyncio.sleep(0.02)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(ANSWER_S):
                await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
            with contextlib.suppress(OSError):
                os.close(self._slave)

    async def _answer(self) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        async with asyncio.timeout(ANSWER_S):
            line = await self._process.stdout.readline()
        assert line, "the emulator ended"
        answer: dict[str, Any] = json.loads(line)
        assert "error" not in answer, answer["error"]
        return answer

    async def command(self, name: str, **arguments: Any) -> dict[str, Any]:
        """Tell the emulator something; what it answers."""
        assert self._process is not None
        assert self._process.stdin is not None
        async with self._lock:
            self._process.stdin.write(json.dumps({"name": name} | arguments).encode() + b"\n")
            await self._process.stdin.drain()
            return await self._answer()

    async def samples(self) -> dict[str, list[list[float]]]:
        """What the sensors measured, by sensor: number of the boot, emulated ns, values."""
        return await self.command("samples")
