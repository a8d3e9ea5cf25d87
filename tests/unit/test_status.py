"""Commands that are refused, with a reason and counted; the battery; what systemd is told."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecap import host
from edgecap.host import battery, battery_percent
from edgecap.service import notify_systemd
from edgecap.status import MAX_COMMAND_BYTES, CommandInbox, CommandRefused


def refuse(inbox: CommandInbox, payload: bytes, utc_s: float | None = None) -> CommandRefused:
    with pytest.raises(CommandRefused) as found:
        inbox.accept(payload, utc_s=utc_s)
    return found.value


def test_good_once_then_refused() -> None:
    inbox = CommandInbox()
    payload = json.dumps({"id": "a1", "cmd": "start", "args": {"task": "x"}}).encode()
    assert inbox.accept(payload, utc_s=None).args == {"task": "x"}
    assert "already answered" in str(refuse(inbox, payload))
    assert inbox.refused == 1


@pytest.mark.parametrize(
    ("payload", "reason", "id_"),
    [
        (b"", "malformed", ""),
        (b"[]", "malformed", ""),
        (b'{"id": "x", "cmd": "explode"}', "there is no command 'explode'; one of start, stop, ", "x"),
        (b'{"id": "x", "cmd": "start", "now": 1}', "unknown field `now`", "x"),
        (b'{"id": "", "cmd": "start"}', "1 to 64 characters", ""),
        (b'{"cmd": "start"}', "missing required field `id`", ""),
        (b'{"id": "x", "cmd": "start", "expires_utc_s": 100}', "expired 50 s ago", "x"),
        (b'{"id": "\xcf", "cmd": "start"}', "malformed", ""),
        (b'{"id": ' * 2000, "malformed", ""),
        (b" " * (MAX_COMMAND_BYTES + 1), "the limit is", ""),
    ],
)
def test_refusals_say_why(payload: bytes, reason: str, id_: str) -> None:
    error = refuse(CommandInbox(), payload, utc_s=150.0)
    assert reason in str(error)
    assert error.evidence["id"] == id_


def test_an_untrusted_clock_does_not_expire_commands() -> None:
    payload = b'{"id": "x", "cmd": "stop", "expires_utc_s": 100}'
    assert CommandInbox().accept(payload, utc_s=None).cmd == "stop"


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_cleanly(payload: bytes) -> None:
    inbox = CommandInbox()
    try:
        inbox.accept(payload, utc_s=0.0)
    except CommandRefused:
        assert inbox.refused == 1


def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        notify_systemd("READY=1")
        assert manager.recv(100) == b"READY=1"
    monkeypatch.delenv("NOTIFY_SOCKET")
    notify_systemd("READY=1")


def test_the_rigs_own_battery_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "SUPPLIES", tmp_path)
    assert (battery(), battery_percent()) == (None, None)
    supplies: dict[str, dict[str, str]] = {
        "ac": {"type": "Mains", "online": "0"},
        "hid-mouse": {"type": "Battery", "scope": "Device", "capacity": "3", "status": "Discharging"},
        "pack": {"type": "Battery", "capacity": "15", "status": "Discharging"},
    }
    for name, files in supplies.items():
        (tmp_path / name).mkdir()
        for file, text in files.items():
            (tmp_path / name / file).write_text(f"{text}\n")
    found = battery()
    assert found == (15.0, True)
    assert found.low
    assert battery_percent() == 15.0
    for file, text in (("status", "Charging"), ("capacity", "16")):
        (tmp_path / "pack" / file).write_text(text)
        found = battery()
        assert found is not None
        assert not found.low
        (tmp_path / "pack" / "status").write_text("Discharging")
    (tmp_path / "pack" / "capacity").write_text("")
    assert battery() is None
