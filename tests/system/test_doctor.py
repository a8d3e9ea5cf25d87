"""`edgecap doctor` as a person runs it: on a good rig, beside its daemon, with a broker that refuses."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from edgecap import topics
from edgecap.checkup import Check, Exam, Finding, examine
from edgecap.checkup import broker as broker_check
from edgecap.checkup.credentials import check_credentials
from edgecap.checkup.devices import check_devices
from edgecap.cli.doctor import exam_of, look
from edgecap.cli.main import main
from edgecap.cli.run import sources_of
from edgecap.config import load_config, parse_config
from edgecap.ingest.completeness import verify_session
from edgecap.ingest.store import SessionKey, open_store
from edgecap.mqtt import connect, parse_broker
from edgecap.sim.broker import LoopbackBroker, TlsFiles
from edgecap.sim.firmware import motion_imu
from tests.system.certificates import make_certificates
from tests.system.site import RIG, SITE, Site

pytestmark = pytest.mark.timeout(240)
OF_THIS_MACHINE = {"ntp", "temperature", "throttling", "disk speed"}
ACL = f"""
user good
topic readwrite edgecap/v1/{SITE}/{RIG}/#
user mute
topic read edgecap/v1/{SITE}/{RIG}/#
user plain
topic write edgecap/v1/{SITE}/{RIG}/#
topic read edgecap/v1/{SITE}/{RIG}/receipt
topic read edgecap/v1/{SITE}/{RIG}/cmd
topic read edgecap/v1/{SITE}/{RIG}/desired
"""


async def doctor(config: Path, *, seconds: float = 1.0) -> dict[str, Finding]:
    """Findings by check, of what `edgecap doctor` composes."""
    findings = await look(exam_of(load_config(config), None, seconds))
    found = {f.check: f for f in findings}
    assert len(found) == len(findings)  # nothing is told twice
    return found


async def doctor_program(config: Path) -> tuple[int, dict[str, Any]]:
    """Exit code and JSON of a process of its own."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "edgecap", "doctor", "--json", "--config", str(config)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await process.communicate()
    assert process.returncode is not None
    assert out, errors.decode()
    return process.returncode, json.loads(out)


@pytest.fixture(autouse=True)
def no_broker_by_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGECAP_BROKER", raising=False)


def test_a_good_rig_alone_and_beside_its_daemon(tmp_path: Path) -> None:
    async def run() -> None:
        async with Site(tmp_path) as site:
            glove = await site.add_device("glove", [motion_imu()])
            site.add_section('[[camera]]\nbackend = "synthetic"\nname = "cam"\nwidth = 320\nheight = 240')
            config = site.config()
            await site.start_ingest()
            for _ in range(5):  # a busy machine may lose samples, and that is then told
                alone = await doctor(config, seconds=2)
                bad = {c for c, f in alone.items() if f.verdict == "fail"} - OF_THIS_MACHINE
                if not bad:
                    break
            assert not bad, alone
            assert alone["daemon"].verdict == "none"
            assert "test-glove" in alone["device glove"].text
            assert abs(alone["stream glove-imu"].facts["rate_hz"] - 1000) < 50
            assert alone["stream glove-imu"].facts["sent"] >= alone["stream glove-imu"].facts["n"]
            assert 0 < alone["clock glove"].facts["u_us"] < 1000
            assert alone["disk space"].facts["hours"] > 0
            assert alone["topics"].facts["echo_ms"] > 0
            assert alone["delivery"].facts["receipt_ms"] > 0
            assert not (tmp_path / "spool").exists()

            # Once more: the store still holds one trial session, whole, and marked as discarded.
            await doctor(config)
            store = open_store(str(site.store))
            assert list(store.sessions()) == [SessionKey(SITE, RIG, "doctor-1")]
            report = verify_session(store, SessionKey(SITE, RIG, "doctor-1"))
            assert (report.complete, report.outcome) == (True, "discarded")

            await site.start_daemon()
            code, body = await doctor_program(config)
            assert body["ok"] == (code == 0) == all(f["verdict"] != "fail" for f in body["findings"])
            assert (body["site"], body["rig"]) == (SITE, RIG)
            beside = {f["check"]: f for f in body["findings"]}
            assert "it runs (idle) and holds the devices" in beside["daemon"]["text"].replace(
                f"process {site.daemon.process.pid}",
                "it",  # type: ignore[union-attr]
            )
            assert alone["picture cam"].verdict == "ok"
            for check in ("device glove", "device cam"):
                assert beside[check]["verdict"] == "ok"
                assert "the daemon is running and holds it" in beside[check]["text"]
            assert beside["streams"]["verdict"] == "none"
            await site.start_session(glove)
            await site.samples("glove-imu", 1500)
            await site.until("well", lambda: all(v["state"] == "ok" for v in site.status["streams"][:1]))
            recording = await doctor(config)
            row = recording["stream glove-imu"]
            # A busy machine may lose samples, and that is told.
            assert row.verdict == "ok" or row.text.startswith("gaps: "), row
            held = recording["device glove"]  # for a while its loss is all that is said of a board
            loss = "silent" in held.text or "lost" in held.text
            assert loss or recording["clock glove"].verdict == "ok", held
            await glove.press(80)
            await site.until_state("idle")

            # A sensor that dies while nothing is recorded is known before anybody presses the button.
            await glove.command("silence imu 600000")
            line = "glove-imu: sensor gives no data"
            await site.until("known", lambda: line in site.status["problems"].get("glove", ""))
            await site.until("shown", lambda: site.status["led"] == "sensor-fault")
            async with asyncio.timeout(30):
                while not (await glove.command("led")).startswith("230 159 0 "):  # on the glove, too
                    await asyncio.sleep(0.05)
            dead = await doctor(config)
            assert (dead["device glove"].verdict, line in dead["device glove"].text) == ("fail", True)
            assert "check wiring and power" in dead["device glove"].fix
            await glove.command("silence imu 0")
            await site.until("well again", lambda: site.status["led"] == "idle")
            assert await site.stop_daemon() == 0

    asyncio.run(run())


def clip(path: Path, luma: int, contrast: int) -> Path:
    """A second of a flat picture with a coarse chequerboard in it."""
    cells = np.indices((96, 160)).sum(axis=0) // 8 % 2
    picture = np.full((144, 160), 128, np.uint8)
    picture[:96] = luma + contrast * cells
    with av.open(str(path), "w") as container:
        track = container.add_stream("libx264", rate=10)
        track.width, track.height, track.pix_fmt = 160, 96, "yuv420p"
        for _ in range(10):
            container.mux(track.encode(av.VideoFrame.from_ndarray(picture, "yuv420p")))
        container.mux(track.encode())
    return path


def test_a_lens_cap_and_other_pictures_that_are_worth_nothing(tmp_path: Path) -> None:
    text = f'site = "lab"\nrig = "r"\n[spool]\ndir = "{tmp_path}/spool"\n'
    for name, luma, contrast in (("cap", 16, 0), ("sun", 235, 0), ("film", 110, 2), ("good", 60, 120)):
        path = clip(tmp_path / f"{name}.mp4", luma, contrast)
        text += f'[[camera]]\nbackend = "file"\nname = "{name}"\npath = "{path}"\nloop = true\n'
    config = parse_config(text)

    async def run() -> None:
        seconds = 2.0
        while True:  # a busy machine looks less often
            found = await check_devices(Exam(config, sources_of(config), seconds=seconds))
            rows = {f.check: f for f in found}
            if all(rows[f"picture {c.name}"].verdict != "none" for c in config.camera) or seconds > 60:
                break
            seconds *= 2
        assert {c.name: rows[f"picture {c.name}"].verdict for c in config.camera} == {
            **dict.fromkeys(("cap", "sun", "film"), "fail"),
            "good": "ok",
        }
        for name, state, fix in (
            ("cap", "dark", "lens cap"),
            ("sun", "overexposed", "away from the light"),
            ("film", "blurred", "peel the film off"),
        ):
            row = rows[f"picture {name}"]
            assert row.text.startswith(f"{state}: brightness ")
            assert fix in row.fix

    asyncio.run(run())


def rig(tmp_path: Path, url: str, more: str = "") -> Path:
    config = tmp_path / "rig.toml"
    config.write_text(
        f'site = "{SITE}"\nrig = "{RIG}"\n[broker]\nurl = "{url}"\n{more}\n'
        f'[spool]\ndir = "{tmp_path}/spool"\nreserve_mb = 1\n'
    )
    return config


def speak(config: Path) -> dict[str, Finding]:
    """What the two checks of the broker find."""

    async def run() -> dict[str, Finding]:
        exam = exam_of(load_config(config), None, 1.0)
        checks = (Check("credentials", check_credentials), Check("broker", broker_check.check_broker))
        return {f.check: f async for f in examine(exam, checks)}

    return asyncio.run(run())


def test_brokers_that_refuse(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("right\n")
    password.chmod(0o600)
    users = dict.fromkeys(("good", "mute", "plain"), "right")
    with LoopbackBroker(tmp_path / "b", program="mosquitto", users=users, acl=ACL) as broker:

        def findings(user: str) -> dict[str, Finding]:
            url = broker.url.replace("//", f"//{user}@")
            return speak(rig(tmp_path, url, f'password_file = "{password}"'))

        good = findings("good")
        assert [good[c].verdict for c in ("broker", "topics", "delivery")] == ["ok", "ok", "none"]
        assert "nobody is subscribed" in good["delivery"].text
        assert good["topics"].facts
        plain = findings("plain")
        assert [plain[c].verdict for c in ("broker", "topics")] == ["ok", "ok"]
        assert "may not read it" in plain["topics"].text
        mute = findings("mute")
        assert (mute["broker"].verdict, mute["topics"].verdict) == ("ok", "fail")
        assert "access list" in mute["topics"].fix
        password.write_text("wrong\n")
        wrong = findings("good")
        assert (wrong["broker"].verdict, "password" in wrong["broker"].fix) == ("fail", True)
        assert "topics" not in wrong
        password.unlink()
        assert "cannot be read" in findings("good")["broker"].text
    gone = speak(rig(tmp_path, broker.url))
    assert (gone["broker"].verdict, "refused" in gone["broker"].text) == ("fail", True)


def test_a_broker_with_certificates(tmp_path: Path) -> None:
    made = make_certificates(tmp_path / "pki")
    made.client_key.chmod(0o600)
    tls = TlsFiles(made.server_cert, made.server_key, made.ca)
    with LoopbackBroker(tmp_path / "b", program="mosquitto", tls=tls) as broker:
        files = f'ca_file = "{made.ca}"\ncert_file = "{made.client_cert}"\nkey_file = "{made.client_key}"'
        found = speak(rig(tmp_path, broker.url, files))
        assert [found[c].verdict for c in ("broker", "topics")] == ["ok", "ok"]
        assert found["credential key_file"].verdict == "ok"
        # They are made for two days: time to renew them.
        assert (found["credential cert_file"].verdict, found["credential cert_file"].fix) == (
            "fail",
            "renew it now",
        )
        bare = speak(rig(tmp_path, broker.url, f'ca_file = "{made.ca}"'))
        assert bare["broker"].verdict == "fail"


def test_the_trial_session_never_changes() -> None:
    """A store that holds it would refuse other bytes under the same name: they need a new `TRIAL`."""
    found = [hashlib.sha256(c.packed).hexdigest()[:16] for c in broker_check.trial_session("lab", "rig-01")]
    assert (broker_check.TRIAL, found) == ("doctor-1", ["61a2cd39acecc50e", "b17566721e7e56af"])


def test_an_ingest_that_gives_no_receipt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_check, "RECEIPT_S", 0.3)

    async def run() -> None:
        with LoopbackBroker(tmp_path / "b", program="mosquitto") as broker:
            address = parse_broker(broker.url)
            config = load_config(rig(tmp_path, broker.url))
            async with connect(address, client_id="deaf", subscribe=[topics.subscription(topics.UP)]):
                found = {
                    f.check: f for f in await broker_check.check_broker(Exam(config, [], broker=address))
                }
            assert found["delivery"].verdict == "fail"
            assert "edgecap ingest" in found["delivery"].fix

    asyncio.run(run())


def test_the_table_and_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = rig(tmp_path, "")
    assert main(["doctor", "--config", str(config)]) == 1
    lines = capsys.readouterr().out.splitlines()
    (devices,) = [line for line in lines if " devices " in line]
    assert devices.startswith("✗")
    assert "none is configured → add a [[serial]]" in devices
    (broker,) = [line for line in lines if " broker " in line]
    assert broker.startswith("–")
    assert lines[-1].endswith("checks failed")
    assert main(["doctor", "--config", str(config), "--seconds", "0"]) == 2
    assert main(["doctor", "--config", str(tmp_path / "none.toml")]) == 2
