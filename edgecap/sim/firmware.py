"""The device firmware as a program of this machine, behind a pty: told what to measure and when to fail."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from edgecap.errors import SourceError
from edgecap.model import ChannelInfo, SampleDtype, StreamKind
from edgecap.sim.firmware_build import build_firmware, telling_line
from edgecap.sim.recordings import Recording

ANSWER_TIMEOUT_S = 60.0
PRIORITY = -10
"""A real board is not slowed by what else its host does."""

LIGHT = 0xFF
"""In place of a stream's number in the truth file."""
TRUTH_DTYPE = np.dtype(
    [
        ("stream", "u1"),
        ("reserved", "u1"),
        ("boot_no", "<u2"),
        ("index", "<u4"),
        ("raw_ns", "<i8"),
        ("t_us", "<u4"),
        ("run", "<u4"),
    ]
)
"""One sample of the truth file: rig time `raw_ns` at which the device counter reached `t_us`."""


@dataclass(frozen=True, slots=True)
class FirmwareStream:
    """One stream of the simulated device: replays `file`, or follows the seeded motion model if None."""

    name: str
    kind: StreamKind
    rate_hz: float
    channels: tuple[ChannelInfo, ...]
    dtype: SampleDtype = "int16"
    file: Path | None = None
    lag_us: int = 0
    own_ppm: float | None = None
    """A sensor that samples by a clock of its own, so much slower than the board's, into a FIFO."""

    def spec(self) -> str:
        """The value of `--stream`."""
        pairs = {
            "name": self.name,
            "kind": self.kind,
            "dtype": self.dtype,
            "rate_hz": f"{self.rate_hz:.3f}",
            "lag_us": str(self.lag_us),
            "channel_names": ":".join(channel.name for channel in self.channels),
            "units": ":".join(channel.unit for channel in self.channels),
            "scales": ":".join(f"{channel.scale:.9g}" for channel in self.channels),
            "full_scales": ":".join(f"{channel.full_scale:.9g}" for channel in self.channels),
        }
        if self.own_ppm is not None:
            pairs["own_ppm"] = f"{self.own_ppm:.6f}"
        if self.file is not None:
            pairs["file"] = str(self.file)
        else:
            pairs |= {"model": "motion", "channels": str(len(self.channels))}
        for key, value in pairs.items():
            if "," in value:
                raise SourceError(f"stream {self.name}: {key} `{value}` contains a comma", fix="rename it")
        return ",".join(f"{key}={value}" for key, value in pairs.items())


def recorded_stream(recording: Recording, *, name: str = "", rate_hz: float = 0.0) -> FirmwareStream:
    """A stream that replays a recording, at its own rate unless told otherwise."""
    return FirmwareStream(
        name=name or recording.name,
        kind=recording.kind,
        rate_hz=rate_hz or recording.rate_hz,
        channels=recording.channels,
        dtype=recording.dtype,
        file=recording.path,
    )


def motion_imu(name: str = "imu", *, rate_hz: float = 1000.0, axes: int = 9) -> FirmwareStream:
    """An inertial unit on a moving hand: accelerometer, gyroscope and (with 9 axes) magnetometer, int16."""
    sensors = (("accel", "m/s^2", 16 * 9.80665), ("gyro", "rad/s", 34.906585), ("mag", "uT", 4912.0))
    channels = tuple(
        ChannelInfo(f"{sensor}_{axis}", unit, full / 32768, full)
        for sensor, unit, full in sensors
        for axis in "xyz"
    )
    return FirmwareStream(name, "imu", rate_hz, channels[:axes])


def grasp_force(name: str = "force", *, rate_hz: float = 1000.0, taxels: int = 10) -> FirmwareStream:
    """A glove's force sensors during grasps, int16, 0 to 12 N."""
    channels = tuple(ChannelInfo(f"taxel_{i}", "N", 0.001, 32.767) for i in range(taxels))
    return FirmwareStream(name, "force", rate_hz, channels)


def read_truth(path: Path) -> NDArray[np.void]:
    """The samples of a truth file as an array of `TRUTH_DTYPE`; a record cut short at the end is left out."""
    records = _records(path)
    samples: NDArray[np.void] = records[records["stream"] != LIGHT]
    return samples


def read_light(path: Path) -> NDArray[np.void]:
    """The changes of the light in a truth file: as `TRUTH_DTYPE`, `index` is the colour 0xRRGGBB."""
    records = _records(path)
    changes: NDArray[np.void] = records[records["stream"] == LIGHT]
    return changes


def _records(path: Path) -> NDArray[np.void]:
    data = path.read_bytes()
    return np.frombuffer(data[: len(data) // TRUTH_DTYPE.itemsize * TRUTH_DTYPE.itemsize], TRUTH_DTYPE)


class HostFirmware:
    """A running device: `async with HostFirmware([motion_imu()], link=path) as device: …`.

    Args:
        streams: What the device measures, at most eight.
        link: Symbolic link to its pty, stable across `unplug`.
        serial_number: As told in HELLO.
        skew_ppm: How much faster than rig time its counter runs.
        start_us: Its counter at power-up and reset.
        truth: File to write with the true time of each sample.
        usb_frame_us: Length of a USB frame; 0 sends at once.
        seed: Of the motion model and the faults.
        loop: Start recordings again at their end; otherwise the sensor falls silent.
        binary: The program; built if None.
    """

    def __init__(
        self,
        streams: Sequence[FirmwareStream],
        *,
        link: Path | None = None,
        serial_number: str = "host-0001",
        skew_ppm: float = 0.0,
        start_us: int = 0,
        truth: Path | None = None,
        usb_frame_us: int = 0,
        seed: int = 1,
        loop: bool = True,
        binary: Path | None = None,
    ) -> None:
        self.link = link
        self.truth = truth
        self.port = ""
        """What the host program opens; the link if there is one."""
        self._binary = binary
        self._args = [
            f"--serial={serial_number}",
            f"--skew-ppm={skew_ppm!r}",
            f"--start-us={start_us}",
            f"--usb-frame-us={usb_frame_us}",
            f"--seed={seed}",
            "--replay-loop" if loop else "--replay-once",
            *(f"--stream={stream.spec()}" for stream in streams),
        ]
        if link is not None:
            self._args.append(f"--link={link}")
        if truth is not None:
            self._args.append(f"--truth={truth}")
        self._process: asyncio.subprocess.Process | None = None
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> HostFirmware:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def pid(self) -> int:
        return self._running().pid

    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise SourceError("the firmware is not running", fix="enter it with `async with`")
        return self._process

    async def start(self) -> None:
        """Build if needed, start, wait for the port. Raises `SourceError` with what the program said."""
        binary = self._binary or await asyncio.to_thread(build_firmware)
        self._process = await asyncio.create_subprocess_exec(
            str(binary),
            *self._args,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        with contextlib.suppress(OSError):  # only root may
            os.setpriority(os.PRIO_PROCESS, self._process.pid, PRIORITY)
        try:
            line = await self._read_line()
            while not line.startswith("port "):
                line = await self._read_line()
        except SourceError:
            await self.stop(check=False)
            raise
        self.port = str(self.link) if self.link is not None else line.removeprefix("port ")

    async def _read_line(self) -> str:
        process = self._running()
        assert process.stdout is not None
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                line = await process.stdout.readline()
        except TimeoutError:
            raise SourceError(
                f"the firmware (pid {process.pid}) says nothing for {ANSWER_TIMEOUT_S:.0f} s"
            ) from None
        if not line:
            raise SourceError(f"the firmware ended: {await self._last_words()}")
        return line.decode().rstrip("\n")

    async def _last_words(self) -> str:
        process = self._running()
        assert process.stderr is not None
        text = (await process.stderr.read()).decode(errors="replace").strip()
        return text or f"exit code {await process.wait()}, no message"

    async def command(self, text: str) -> str:
        """Send one stdin command and await its answer.

        Returns:
            What follows `ok`, for example `boot_no=1 boot_id=42` for `reset`.

        Raises:
            SourceError: The firmware answers `error`, or has ended.
        """
        async with self._lock:
            await self._write(text)
            return await self._answer(text)

    async def _write(self, text: str) -> None:
        process = self._running()
        assert process.stdin is not None
        with contextlib.suppress(ConnectionError):  # its end shows in the answer
            process.stdin.write(text.encode() + b"\n")
            await process.stdin.drain()

    async def _answer(self, text: str) -> str:
        while True:
            line = await self._read_line()
            verdict, _, rest = line.partition(" ")
            if verdict == "port":  # plugged in again
                if self.link is None:
                    self.port = rest
                continue
            if verdict != "ok":
                raise SourceError(f"the firmware refuses `{text}`: {rest}")
            return rest

    async def totals(self) -> dict[str, int]:
        """Samples produced per stream since START; also flushes the truth file."""
        pairs = (pair.partition("=") for pair in (await self.command("totals")).split())
        return {name: int(count) for name, _, count in pairs}

    async def press(self, *lengths_ms: int) -> None:
        """Press the button for so long, once or several times; no delay of ours comes between the presses."""
        presses = [f"press {ms}" for ms in lengths_ms]
        async with self._lock:
            await self._write("\n".join(presses))
            for press in presses:
                await self._answer(press)

    async def stop(self, *, check: bool = True) -> None:
        """End it; the truth file is whole afterwards. Raises `SourceError` if it did not end well."""
        process = self._process
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                _, errors = await asyncio.gather(self._drain(process.stdout), self._drain(process.stderr))
                code = await process.wait()
        except TimeoutError:
            process.kill()
            code, errors = await process.wait(), b"it did not end by itself"
        finally:
            self._process = None
            if process.returncode is None:  # we were cancelled
                process.kill()
        if check and code != 0:
            raise SourceError(
                f"the firmware ended with code {code}: {telling_line(errors.decode(errors='replace'))}",
                stderr=errors.decode(errors="replace"),
            )

    @staticmethod
    async def _drain(pipe: asyncio.StreamReader | None) -> bytes:
        return b"" if pipe is None else await pipe.read()
