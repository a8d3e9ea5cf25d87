"""The host program as a program: how it is built, how it refuses, how it ends, what it costs."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from pathlib import Path

import pytest

from edgecap.errors import SourceError
from edgecap.sim.firmware import TRUTH_DTYPE, HostFirmware, grasp_force, motion_imu, read_truth
from edgecap.sim.firmware_build import SOURCES, build_firmware, find_compiler
from tests.hw.board import running
from tests.reference import serial_frames as sf

GOOD = "name=imu,kind=imu,rate_hz=100,model=motion,channels=3"


def test_a_build_is_kept(build_dir, plain_binary):
    before = plain_binary.stat().st_mtime_ns
    assert build_firmware(build_dir) == plain_binary
    assert plain_binary.stat().st_mtime_ns == before


def test_changed_sources_are_built_anew(build_dir, plain_binary, tmp_path):
    copy = tmp_path / "firmware"
    for path in SOURCES.rglob("*.[ch]"):
        if "build" not in path.parts:
            target = copy / path.relative_to(SOURCES)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    (copy / "Makefile").write_bytes((SOURCES / "Makefile").read_bytes())
    assert build_firmware(build_dir, sources=copy) == plain_binary
    changed = copy / "core" / "cobs.c"
    changed.write_text(changed.read_text() + "/* changed */\n")
    assert build_firmware(build_dir, sources=copy) != plain_binary
    changed.write_text(changed.read_text() + "this is no C\n")
    with pytest.raises(SourceError, match=r"does not build .*cobs\.c.*error"):
        build_firmware(build_dir, sources=copy)


def test_a_missing_compiler_or_checkout_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(SourceError, match=r"no C compiler.*install one"):
        build_firmware(tmp_path)
    with pytest.raises(SourceError, match=r"sources are not at .*checkout"):
        build_firmware(tmp_path, sources=tmp_path)
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(SourceError, match="no C compiler"):
        find_compiler()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--skew-ppm", "fast"], "--skew-ppm: `fast` is not a number"),
        (["--stream", GOOD.replace("imu,rate", "gimbal,rate")], "kind: `gimbal` is not known"),
        (["--stream", GOOD.replace("model=motion", "model=still")], "model `still` is not known; use motion"),
        (["--stream", "name=x,kind=imu"], "needs name, kind and rate_hz"),
        (["--stream", "name=x,kind=imu,rate_hz=1"], "needs either file=REC.npy or model=motion"),
        (["--stream", GOOD + ",colour=red"], "unknown key `colour`"),
        (["--stream", GOOD + ",units=a:b"], "units names 2 of 3 channels"),
        (["--stream", "name=x,kind=imu,rate_hz=1,file=/nowhere.npy"], "/nowhere.npy: No such file"),
        (["--stream", "name=x,kind=imu,rate_hz=1,file=/proc/version"], "it is not a .npy file"),
        (["--stream", GOOD.replace("=100", "=20000")], "is not a number from 0.1 to 10000"),
        (["--stream", GOOD] * 9, "more than 8 streams"),
        (
            ["--stream", GOOD + ",channel_names=" + "n" * 400, "--link", "/nowhere/port"],
            "cannot open a pty or its link",
        ),
        (["surplus"], "`surplus` is not an option"),
    ],
)
def test_refusals_name_what_is_wrong(sanitized_binary, args, message):
    done = subprocess.run(
        [sanitized_binary, *args],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"},  # it exits on the spot, and that is right
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_refusal_reaches_python(binary, tmp_path):
    device = HostFirmware([], link=tmp_path / "missing" / "port", binary=binary)
    with pytest.raises(SourceError, match="cannot open a pty or its link"):
        asyncio.run(device.start())


@pytest.mark.parametrize("how", ["quit", "end of input", "SIGTERM"])
def test_it_ends_cleanly_and_the_truth_is_whole(binary, tmp_path, how):
    async def main():
        async with running(binary, tmp_path, [motion_imu(axes=3)]) as (device, board):
            await board.command(sf.OP_START)
            await board.until(lambda: board.n_samples() >= 50, "samples")
            if how == "quit":
                await device.command("quit")
            elif how == "SIGTERM":
                os.kill(device.pid, signal.SIGTERM)
            if how != "end of input":
                await board.until(lambda: board.gone, "hang-up")
                with pytest.raises(SourceError, match="ended"):
                    await device.command("totals")
        return board.n_samples()

    received = asyncio.run(main())
    assert not os.path.lexists(tmp_path / "port")
    assert (tmp_path / "truth.bin").stat().st_size % TRUTH_DTYPE.itemsize == 0
    assert len(read_truth(tmp_path / "truth.bin")) >= received


def test_unknown_commands_are_refused(binary, tmp_path):
    async def main():
        async with running(binary, tmp_path, []) as (device, _):
            for text in ("dance", "stall", "stall soon", "garbage -1", "", "silence imu", "x" * 400):
                with pytest.raises(SourceError, match="refuses"):
                    await device.command(text)
            assert await device.command("stall 0") == ""

    asyncio.run(main())


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_four_streams_at_1_khz_cost_little(plain_binary, tmp_path):
    streams = [motion_imu("a"), motion_imu("b"), grasp_force("c"), grasp_force("d")]

    async def main():
        async with running(plain_binary, tmp_path, streams) as (device, board):
            await board.command(sf.OP_START)
            await board.until(lambda: board.n_samples() >= 100, "samples")
            before, n = cpu_s(device.pid), board.n_samples()
            await board.until(lambda: board.n_samples() >= n + 2000, "two seconds")
            used = (cpu_s(device.pid) - before) / 2.0
            await board.command(sf.OP_STOP)
            return used

    used = asyncio.run(main())
    print(f"{100 * used:.1f} % of a core")
    assert used < 0.10
