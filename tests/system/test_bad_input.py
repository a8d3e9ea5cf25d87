"""Bad input: one line that names the thing and the fix, the right exit code, no traceback, nothing lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgecap.cli.main import main
from edgecap.codec import wire
from edgecap.codec.chunk import Chunk, StreamChain, unpack_chunk
from edgecap.errors import ChunkError, NameRefused
from edgecap.ingest.store import open_store
from edgecap.sim.broker import HeldPort, LoopbackBroker
from edgecap.sim.firmware import HostFirmware, motion_imu

BASE = 'site = "lab"\nrig = "rig-01"\n[session]\ntask = "t"\noperator = "o"\nconsent = "c"\n'


def refused(capsys: pytest.CaptureFixture[str], args: list[str], *, code: int, says: list[str]) -> None:
    """Run a command that must fail, once for its line and once for its traceback."""
    capsys.readouterr()
    assert main(args) == code
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("edgecap: ")]
    assert len(error) == 1, error
    for words in says:
        assert words in error[0]
    assert "Traceback" not in error[0]


def rig_with(tmp_path: Path, text: str) -> list[str]:
    config = tmp_path / "rig.toml"
    config.write_text(f'{BASE}[spool]\ndir = "{tmp_path}/spool"\nreserve_mb = 1\n{text}')
    return ["run", "--config", str(config)]


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("", 2, ["no device is configured"]),
        ('[calibration]\nfile = "/no/c.json"\n[[serial]]\nname = "g"\nport = "/dev/x"', 2, ["/no/c.json"]),
        ('[calibration]\nfile = "/etc/passwd"\n[[serial]]\nname = "g"\nport = "/dev/x"', 2, ["JSON map"]),
        ('[[serial]]\nname = "glove"\nport = 7', 2, ["serial[0].port", "Expected `str`"]),
        ('[[serial]]\nname = "glove"\nprot = "x"', 2, ["serial[0].prot", "did you mean `serial[0].port`"]),
        (
            '[broker]\nurl = "http://x"\n[[serial]]\nname = "g"\nport = "/dev/x"',
            2,
            ["scheme 'http'", "mqtt://"],
        ),
        ('[broker]\nurl = "mqtt://me:pw@x"\n[[serial]]\nname = "g"\nport = "/dev/x"', 2, ["password"]),
    ],
)
def test_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, code: int, says: list[str]
) -> None:
    refused(capsys, rig_with(tmp_path, text), code=code, says=says)


def test_debug_shows_the_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--debug", *rig_with(tmp_path, "")]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_broker_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    held = HeldPort()
    port = held.number
    url = f"mqtt://127.0.0.1:{port}"
    for args in (["fleet", "--once"], ["ctl", "rig-01", "status"]):
        refused(capsys, [*args, "--broker", url], code=1, says=[f"127.0.0.1:{port}", "refused"])
    refused(capsys, ["fleet", "--once"], code=2, says=["no MQTT broker is named", "--broker"])
    refused(capsys, ["ctl", "Rig 1", "stop", "--broker", url], code=2, says=["'Rig 1'", "'rig-1'"])
    refused(capsys, ["ctl", "../x", "stop", "--broker", url], code=2, says=["site", "'..'"])
    for words, says in (
        ("task", "task in words"),
        ("stop now", "'now'"),
        ("start fold --task stack", "given twice"),
        ("stop --task fold", "goes with start"),
        ("status --timeout nan", "--timeout nan"),
        ("blink glove --seconds 1e9", "give 1 to 120"),
        ("blink glove --seed -1", "--seed -1"),
    ):
        refused(capsys, ["ctl", "rig-01", *words.split(), "--broker", url], code=2, says=[says])


def test_bad_credentials(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pw").write_text("wrong\n")
    with LoopbackBroker(tmp_path, program="mosquitto", users={"operator": "right"}) as broker:
        url = broker.url.replace("//", "//operator@")
        args = ["fleet", "--once", "--broker", url, "--password-file", str(tmp_path / "pw")]
        refused(capsys, args, code=1, says=[f"127.0.0.1:{broker.port}", "password"])
        (tmp_path / "pw").write_text("right\n")
        assert main(args) == 0


def chunk() -> Chunk:
    chain = StreamChain(site="lab", rig="rig-01", boot="b", session="s-1", stream="hand-imu")
    return chain.seal(kind="event", codec="msgpack", payload=b"\x90", t0_ns=0, t1_ns=1, n=0, raw_bytes=1)


def test_chunks_that_are_not() -> None:
    whole = chunk().packed
    for length in range(len(whole)):
        with pytest.raises(ChunkError):
            unpack_chunk(whole[:length])
    parts = wire.unpack(whole, what="chunk", max_bytes=1 << 20)
    with pytest.raises(ChunkError, match=r"format version 2.*update edgecap"):
        unpack_chunk(wire.pack([2, *parts[1:]]))
    with pytest.raises(ChunkError, match=r"payload hash .* differs"):
        unpack_chunk(wire.pack([1, parts[1], b"\x91\x80", None]))
    header = wire.unpack(parts[1], what="header", max_bytes=1 << 20)
    for what in ("site", "rig", "session", "stream"):
        evil = wire.pack({**header, what: "../../etc"})
        with pytest.raises(NameRefused, match=f"{what} '../../etc'"):
            unpack_chunk(wire.pack([1, evil, parts[2], None]))
    with pytest.raises(ChunkError, match="missing required field `seq`"):
        unpack_chunk(
            wire.pack([1, wire.pack({k: v for k, v in header.items() if k != "seq"}), parts[2], None])
        )
    # A second `seq` that a careless reader would take instead of the first.
    twice = bytes([parts[1][0] + 1]) + parts[1][1:] + b"\xa3seq\x07" if parts[1][0] < 0x8F else b""
    if not twice:
        twice = parts[1][:1] + (int.from_bytes(parts[1][1:3]) + 1).to_bytes(2) + parts[1][3:] + b"\xa3seq\x07"
    with pytest.raises(ChunkError, match="duplicate map key 'seq'"):
        unpack_chunk(wire.pack([1, twice, parts[2], None]))


def test_stores_and_sessions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("not a directory")
    held = HeldPort()
    url = f"mqtt://127.0.0.1:{held.number}"
    ingest = ["ingest", "--store", str(tmp_path / "file"), "--broker", url]
    refused(capsys, ingest, code=1, says=[str(tmp_path / "file")])
    store = open_store(str(tmp_path / "store"), create=True)
    store.append([chunk()])
    store.commit()
    store.close()
    place = str(tmp_path / "store")
    refused(capsys, ["sessions", "verify", place, "s-2"], code=1, says=["'s-2'", "s-1"])
    refused(capsys, ["sessions", "ls", str(tmp_path / "none")], code=1, says=[str(tmp_path / "none")])
    out = str(tmp_path / "out")
    export = ["export", place, "--to", "mcap", "--out", out]
    refused(capsys, [*export[:2], "s-2", *export[2:]], code=1, says=["'s-2'", "s-1"])
    bag = ["export", place, "s-1", "--to", "rosbag", "--out", out]
    refused(capsys, bag, code=2, says=["'rosbag'", "mcap"])
    nowhere = ["export", place, "s-1", "--to", "mcap", "--out", str(tmp_path / "file" / "x")]
    refused(capsys, nowhere, code=2, says=[str(tmp_path / "file" / "x")])


def test_two_daemons_on_one_spool(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from edgecap.spool import Spool

    with Spool.open(tmp_path / "spool", reserve_bytes=1 << 20):
        args = rig_with(tmp_path, '[[serial]]\nname = "glove"\nport = "/dev/not-there"')
        refused(capsys, args, code=1, says=[str(tmp_path / "spool")])


def test_no_session_without_consent(tmp_path: Path) -> None:
    """The daemon runs, refuses to start, says why, and shows it on the light."""
    from tests.system.site import Site

    async def run() -> None:
        async with Site(tmp_path) as site:
            await site.add_device("glove", [motion_imu()])
            config = site.config()
            config.write_text(config.read_text().replace('consent = "c-1"', 'consent = ""'))
            site.config = lambda: config  # type: ignore[method-assign]
            await site.start_daemon()
            assert site.status["led"] == "no-consent"
            await site.devices["glove"].press(100)
            await site.until("refused", lambda: any(e["kind"] == "refused" for e in site.events))
            (event,) = [e for e in site.events if e["kind"] == "refused"]
            assert "no consent is set" in event["text"]
            assert "session.consent" in event["text"]
            assert site.status["state"] == "idle"

    asyncio.run(run())


def test_a_demo_that_cannot_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    out = ["demo", "--out", str(tmp_path / "file" / "x")]
    refused(capsys, out, code=2, says=[str(tmp_path / "file" / "x"), "--out"])
    refused(capsys, ["demo", "--seconds", "0"], code=2, says=["--seconds 0"])
    with LoopbackBroker(tmp_path, program="mosquitto") as broker:
        taken = ["demo", "--out", str(tmp_path / "out"), "--port", str(broker.port)]
        refused(capsys, taken, code=1, says=[f"port {broker.port}", "taken"])
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CC", "")
    refused(
        capsys, ["demo", "--out", str(tmp_path / "out")], code=1, says=["no C compiler", "apt install gcc"]
    )


def test_a_demo_that_is_told_to_end_leaves_no_process(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "edgecap", "demo", "--seconds", "600", "--out", str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as demo:
        deadline = time.monotonic() + 90
        while not (out / "logs" / "daemon.log").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        demo.send_signal(signal.SIGTERM)
        said, _ = demo.communicate(timeout=90)
    assert demo.returncode == 130, said
    assert "edgecap: interrupted" in said
    left = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            left += [words for words in [process.read_bytes()] if os.fsencode(tmp_path) in words]
    assert not left


def test_the_firmware_says_what_it_cannot_do(tmp_path: Path) -> None:
    from edgecap.errors import SourceError

    async def run() -> None:
        async with HostFirmware([motion_imu()], link=tmp_path / "tty") as device:
            with pytest.raises(SourceError, match="refuses `dance 3`"):
                await device.command("dance 3")

    asyncio.run(run())
