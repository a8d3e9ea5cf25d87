"""What `edgecap doctor` reads from the kernel's trees, scripted: every verdict, its text and its fix."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecap import clock
from edgecap.checkup import CHECKS, Check, Exam, Finding, Roots, examine
from edgecap.checkup.certificate import not_after
from edgecap.checkup.credentials import check_credentials
from edgecap.checkup.devices import why_unlocked
from edgecap.checkup.disk import check_disk_space, check_disk_speed, check_state_directory
from edgecap.checkup.latency import check_latency
from edgecap.checkup.permissions import User, check_permissions, may_use, user_of
from edgecap.checkup.power import check_power, check_throttling
from edgecap.checkup.temperature import check_temperature
from edgecap.checkup.wall_clock import check_wall_clock
from edgecap.config import parse_config
from edgecap.errors import SourceError
from edgecap.model import ClockPair
from tests.unprivileged import file_permissions_hold

BASE = 'site = "lab"\nrig = "rig-1"\n'


def exam(tmp_path: Path, text: str = "", **options: Any) -> Exam:
    """A rig whose kernel is a directory tree."""
    config = parse_config(f'{BASE}{text}\n[spool]\ndir = "{tmp_path}/spool"\nreserve_mb = 1\n')
    roots = Roots(tmp_path / "sys", tmp_path / "proc", tmp_path / "dev", tmp_path / "etc")
    return Exam(config, [], roots=roots, **options)


def look(check: Callable[[Exam], Any], patient: Exam) -> list[Finding]:
    found: list[Finding] = asyncio.run(check(patient))
    for finding in found:
        assert (finding.verdict == "fail") == bool(finding.fix), finding  # no failure without a fix
        assert "\n" not in finding.text + finding.fix
    return found


def write(tmp_path: Path, **files: str) -> None:
    for name, text in files.items():
        path = tmp_path / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


# ── power ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("flags", "verdict", "words", "fix"),
    [
        ("0", "ok", "no under-voltage", ""),
        ("0x0", "ok", "no under-voltage", ""),
        ("50005", "fail", "now the voltage is too low, it is throttled", "supply"),
        ("0x50000", "fail", "since power-up the voltage was too low, it was throttled", "supply"),
        ("e0008", "fail", "now it is at its soft temperature limit", "heat sink"),
        ("80000", "fail", "since power-up it was at its soft temperature limit", "heat sink"),
    ],
)
def test_throttling(tmp_path: Path, flags: str, verdict: str, words: str, fix: str) -> None:
    file = tmp_path / "sys/devices/platform/soc/soc:firmware/get_throttled"
    file.parent.mkdir(parents=True)
    file.write_text(flags + "\n")
    (found,) = look(check_throttling, exam(tmp_path))
    assert (found.verdict, words in found.text, fix in found.fix) == (verdict, True, True)
    assert found.facts["get_throttled"] == hex(int(flags, 16))


def test_throttling_from_vcgencmd_and_from_the_kernels_alarm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert look(check_throttling, exam(tmp_path))[0].verdict == "none"
    program = tmp_path / "vcgencmd"
    program.write_text('#!/bin/sh\n[ "$1" = get_throttled ] && echo "throttled=0x50000"\n')
    program.chmod(0o755)
    assert "voltage was too low" in look(check_throttling, exam(tmp_path))[0].text
    program.write_text("#!/bin/sh\necho 'VCHI initialization failed'; exit 255\n")
    assert look(check_throttling, exam(tmp_path))[0].verdict == "none"
    hwmon = "sys__class__hwmon__hwmon1__"
    write(tmp_path, **{f"{hwmon}name": "rpi_volt", f"{hwmon}in0_lcrit_alarm": "0"})
    assert look(check_throttling, exam(tmp_path))[0].verdict == "ok"
    write(tmp_path, **{f"{hwmon}in0_lcrit_alarm": "1"})
    assert "now the voltage is too low" in look(check_throttling, exam(tmp_path))[0].text
    write(tmp_path, **{f"{hwmon}name": "nvme"})  # another chip's input 0 is not the Pi's supply
    assert look(check_throttling, exam(tmp_path))[0].verdict == "none"


def test_supplies_and_batteries(tmp_path: Path) -> None:
    assert [f.verdict for f in look(check_power, exam(tmp_path))] == ["none"]
    supply = "sys__class__power_supply__"
    write(tmp_path, **{f"{supply}ac__type": "Mains", f"{supply}ac__online": "0"})
    battery = f"{supply}bat__"
    write(tmp_path, **{f"{battery}type": "Battery", f"{battery}capacity": "12"})
    for status, verdict in (("Discharging", "fail"), ("Charging", "ok")):
        write(tmp_path, **{f"{battery}status": status})
        mains, found = look(check_power, exam(tmp_path))
        assert (mains.check, mains.verdict) == ("power ac", "none")
        assert (found.check, found.verdict, found.facts["percent"]) == ("power bat", verdict, 12)
    write(tmp_path, **{f"{battery}capacity": "80", f"{battery}status": "Discharging"})
    assert look(check_power, exam(tmp_path))[1].verdict == "ok"


def test_an_adapter_that_holds_bytes_back(tmp_path: Path) -> None:
    boards = (("slow", "ttyUSB0"), ("quick", "ttyUSB1"), ("native", "ttyACM0"))
    ports = "".join(f'[[serial]]\nname = "{name}"\nport = "/dev/{tty}"\n' for name, tty in boards)
    write(tmp_path, sys__class__tty__ttyUSB0__device__latency_timer="16")
    write(tmp_path, sys__class__tty__ttyUSB1__device__latency_timer="1")
    slow, quick = look(check_latency, exam(tmp_path, ports))
    assert (slow.check, slow.verdict, slow.facts["latency_ms"]) == ("latency slow", "fail", 16)
    assert "70-edgecap.rules" in slow.fix
    assert (quick.check, quick.verdict) == ("latency quick", "ok")
    assert look(check_latency, exam(tmp_path)) == []


def test_temperature(tmp_path: Path) -> None:
    assert look(check_temperature, exam(tmp_path))[0].verdict == "none"
    zone = "sys__class__thermal__thermal_zone"
    write(tmp_path, **{f"{zone}0__temp": "51000", f"{zone}0__type": "cpu-thermal", f"{zone}1__temp": "bad"})
    (found,) = look(check_temperature, exam(tmp_path))
    assert (found.verdict, found.text) == ("ok", "51 °C (cpu-thermal)")
    write(tmp_path, **{f"{zone}1__temp": "80000"})
    (found,) = look(check_temperature, exam(tmp_path))
    assert (found.verdict, found.facts["celsius"]) == ("fail", 80.0)


# ── clock ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("synced", "error_us", "verdict"),
    [(True, 1500, "ok"), (True, 1_000_001, "fail"), (False, 16_000_000, "fail")],
)
def test_wall_clock(tmp_path: Path, synced: bool, error_us: int, verdict: str) -> None:
    pair = ClockPair(0, 0, 0, 0, 0, synced, error_us, 0, 1.5)
    (found,) = look(check_wall_clock, exam(tmp_path, read_pair=lambda: pair))
    assert (found.verdict, found.facts["max_error_ms"]) == (verdict, error_us / 1e3)
    real = clock.read_pair()
    assert look(check_wall_clock, exam(tmp_path))[0].facts["synced"] == real.ntp_synced


# ── permissions ─────────────────────────────────────────────────────────────────────────────────────────

STATUS = "Name:\tedgecap\nUid:\t990\t990\t990\t990\nGid:\t980\t980\t980\t980\nGroups:\t20 44 \n"


def machine(tmp_path: Path) -> None:
    write(
        tmp_path,
        proc__77__status=STATUS,
        etc__passwd="root:x:0:0::/:/bin/sh\nedgecap:x:990:980::/:/bin/false",
        etc__group="root:x:0:\ndialout:x:20:edgecap\nvideo:x:44:edgecap\ngpio:x:997:\nplugdev:x:46:",
    )


def test_user_of_a_process(tmp_path: Path) -> None:
    machine(tmp_path)
    assert user_of(exam(tmp_path), "77") == User("edgecap", 990, frozenset({980, 20, 44}))
    assert user_of(exam(tmp_path), "78") is None
    write(tmp_path, proc__78__status="nonsense")
    assert user_of(exam(tmp_path), "78") is None
    patient = exam(tmp_path)
    patient.daemon = "78"
    assert look(check_permissions, patient)[0].verdict == "none"


def test_groups_of_what_is_configured(tmp_path: Path) -> None:
    machine(tmp_path)
    (tmp_path / "dev").mkdir()
    port = tmp_path / "dev/ttyACM0"
    for name in ("ttyACM0", "gpiochip0"):
        (tmp_path / "dev" / name).touch(mode=0o600)
    text = (
        f'[button]\ngpio = 17\n[[serial]]\nname = "hand"\nport = "{port}"\n'
        '[[camera]]\nbackend = "picamera2"\nname = "cam"\n[[iio]]\nname = "imu"\ndevice = "icm"'
    )
    patient = exam(tmp_path, text)
    patient.daemon = "77"
    rows = {f.check: f for f in look(check_permissions, patient)}
    assert [f.verdict for f in rows.values()] == ["fail"] * 4
    assert f"edgecap may not open {port}" in rows["group dialout"].text
    assert "udev rules" in rows["group dialout"].fix  # it is in the group already; the node is not
    assert "camera_auto_detect=1" in rows["group video"].fix
    assert "usermod -aG gpio edgecap" in rows["group gpio"].fix
    assert "dtparam=i2c_arm=on" in rows["group plugdev"].fix
    port.chmod(0o666)
    assert {f.check: f for f in look(check_permissions, patient)}["group dialout"].verdict == "ok"
    patient = exam(tmp_path)
    patient.daemon = "77"
    assert {f.verdict for f in look(check_permissions, patient)} == {"none"}
    (tmp_path / "etc/group").write_text("root:x:0:\n")
    patient = exam(tmp_path, "[button]\ngpio = 17")
    patient.daemon = "77"
    rows = {f.check: f for f in look(check_permissions, patient)}
    assert "groupadd -r gpio" in rows["group gpio"].fix


@given(st.integers(0, 0o777), st.booleans(), st.booleans())
def test_may_use_is_what_the_mode_says(mode: int, owner: bool, member: bool) -> None:
    """Against the rule as it stands in path_resolution(7): the first class that matches decides."""
    user = User("u", 5 if owner else 6, frozenset({7} if member else {8}))
    digits = f"{mode:03o}"
    digit = digits[0] if owner else digits[1] if member else digits[2]

    class Node:
        st_uid, st_gid, st_mode = 5, 7, mode

    assert may_use(Node, user) == (int(digit) >= 6)  # type: ignore[arg-type]
    assert may_use(Node, User("root", 0, frozenset()))  # type: ignore[arg-type]


# ── disk ────────────────────────────────────────────────────────────────────────────────────────────────


def test_disk_of_a_directory_that_is_not_there_yet(tmp_path: Path) -> None:
    patient = exam(tmp_path)
    (state,) = look(check_state_directory, patient)
    assert (state.verdict, f"{tmp_path}/spool will be made" in state.text) == ("ok", True)
    (speed,) = look(check_disk_speed, patient)
    assert speed.facts["sync_p50_ms"] <= speed.facts["sync_p99_ms"]  # type: ignore[operator]
    patient.bytes_s = 1e6
    (space,) = look(check_disk_space, patient)
    assert space.verdict == "ok"
    assert "at least" in space.text
    assert list(tmp_path.iterdir()) == []  # nothing is left behind, and nothing was made


def test_disk_that_is_full_slow_or_barred(tmp_path: Path) -> None:
    patient = exam(tmp_path)
    patient.bytes_s = 1e15
    assert "the sensors need" in look(check_disk_speed, patient)[0].text
    full = exam(tmp_path, "")
    full.config = parse_config(f'{BASE}[spool]\ndir = "{tmp_path}"\nreserve_mb = {1 << 40}')
    assert "no session can start" in look(check_disk_space, full)[0].text
    tmp_path.chmod(0o500)
    try:
        with file_permissions_hold():
            assert "Permission denied" in look(check_state_directory, patient)[0].text
            assert look(check_disk_speed, patient)[0].verdict == "none"
    finally:
        tmp_path.chmod(0o700)


# ── credentials ─────────────────────────────────────────────────────────────────────────────────────────


def make_certificate(folder: Path, days: int) -> Path:
    command = [
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
        "-keyout", "key.pem", "-out", "cert.pem", "-days", str(days), "-subj", "/CN=rig-1",
    ]  # fmt: skip
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder / "cert.pem"


@pytest.mark.parametrize("days", [1, 400, 40_000])
def test_end_of_a_certificate_is_what_openssl_says(tmp_path: Path, days: int) -> None:
    """UTCTime before 2050, GeneralizedTime after (RFC 5280 § 4.1.2.5)."""
    path = make_certificate(tmp_path, days)
    said = subprocess.run(
        ["openssl", "x509", "-enddate", "-noout", "-in", path], check=True, capture_output=True, text=True
    ).stdout.strip()
    wanted = datetime.strptime(said, "notAfter=%b %d %H:%M:%S %Y GMT").replace(tzinfo=UTC)
    assert not_after(path) == wanted
    text = path.read_text()
    path.write_text("-----BEGIN PRIVATE KEY-----\n" + text[:100])
    with pytest.raises(ValueError, match="no certificate"):
        not_after(path)
    lines = text.splitlines()
    path.write_text("\n".join([lines[0], *lines[1:3], lines[-1]]))
    with pytest.raises(ValueError, match="cut short"):
        not_after(path)


def test_credentials(tmp_path: Path) -> None:
    assert [f.verdict for f in look(check_credentials, exam(tmp_path))] == ["none"]
    cert = make_certificate(tmp_path, 30)
    key, password = tmp_path / "key.pem", tmp_path / "password"
    password.write_text("secret\n")
    for path, mode in ((key, 0o600), (password, 0o644)):
        path.chmod(mode)
    text = (
        f'[broker]\ncert_file = "{cert}"\nkey_file = "{key}"\npassword_file = "{password}"\n'
        f'ca_file = "{tmp_path}/none.pem"'
    )
    end = not_after(cert)

    def rows(now: datetime) -> dict[str, Finding]:
        return {f.check: f for f in look(check_credentials, exam(tmp_path, text, utc=lambda: now))}

    found = rows(end - timedelta(days=20))
    assert {c: f.verdict for c, f in found.items()} == {
        "credential password_file": "fail",
        "credential key_file": "ok",
        "credential cert_file": "ok",
        "credential ca_file": "fail",
    }
    assert "can be read by everybody (mode 644)" in found["credential password_file"].text
    assert found["credential password_file"].fix == f"sudo chmod 600 {password}"
    assert "No such file" in found["credential ca_file"].text
    assert "secret" not in str(found)
    assert "in 9 days" in rows(end - timedelta(days=9, hours=1))["credential cert_file"].text
    assert "expired on" in rows(end + timedelta(seconds=1))["credential cert_file"].text
    with file_permissions_hold():
        key.chmod(0)
        assert "Permission denied" in rows(end - timedelta(days=20))["credential key_file"].text


def test_a_credential_that_only_the_service_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    text = '[broker]\nkey_file = "${CREDENTIALS_DIRECTORY}/broker-key"'
    (found,) = look(check_credentials, exam(tmp_path, text))
    assert (found.verdict, "only the service" in found.text) == ("none", True)


# ── the round ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_check_that_cannot_be_carried_out_fails_and_the_others_go_on(tmp_path: Path) -> None:
    async def broken(_: Exam) -> list[Finding]:
        raise PermissionError(13, "Permission denied")

    async def refused(_: Exam) -> list[Finding]:
        raise SourceError("the bus is on fire", fix="pull the plug")

    async def fine(_: Exam) -> list[Finding]:
        return [Finding("fine", "ok", "it is")]

    async def run() -> list[Finding]:
        checks = (Check("one", broken), Check("two", refused), Check("three", fine))
        return [f async for f in examine(exam(tmp_path), checks)]

    one, two, three = asyncio.run(run())
    assert (one.check, one.verdict, "Permission denied" in one.text) == ("one", "fail", True)
    assert (two.text, two.fix) == ("the bus is on fire", "pull the plug")
    assert three.verdict == "ok"


def test_docs_explain_every_check() -> None:
    text = (Path(__file__).parents[2] / "docs/DOCTOR.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    named = {line.split("`")[1].split(" ")[0] for line in rows}
    subjects = {check.name.split(" ")[0] for check in CHECKS}
    subjects |= {
        "device",
        "stream",
        "picture",
        "latency",
        "clock",
        "group",
        "topics",
        "delivery",
        "credential",
        "power",
    }
    assert subjects - {"devices", "permissions", "credentials"} <= named


@pytest.mark.parametrize(
    ("pongs", "impossible", "suspect", "strange", "words", "fix"),
    [
        (0, 0, 0, 0, "none of 40 pings was answered", "PONG"),
        (0, 0, 0, 39, "39 answers bear an id that no ping had or awaits", "PONG"),
        (0, 9, 3, 0, "its counter contradicts itself, 12 times", "prev_tx_done_us"),
        (20, 0, 7, 1, "its counter contradicts itself, 7 times", "one counter of µs"),
        (20, 0, 0, 0, "not locked after 20 answers", "check the link"),
    ],
)
def test_why_a_boards_clock_cannot_be_had(
    pongs: int, impossible: int, suspect: int, strange: int, words: str, fix: str
) -> None:
    counted = {"pongs": pongs, "pings": 40, "rejected_impossible": impossible, "suspect_frames": suspect}
    counted |= {"rejected_unknown": strange, "rejected_stale": 0, "rejected_duplicate": 0}
    said, todo = why_unlocked(counted)
    assert (words in said, fix in todo) == (True, True), (said, todo)
