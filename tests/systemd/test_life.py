"""The life of an installed rig, in order: started, killed, hung, rebooted, upgraded, removed."""

from __future__ import annotations

import pytest

from tests.systemd.installed import SPOOL, STORE, InstalledRig
from tests.systemd.machine import Machine

# One machine for all of them: they must follow one another.
pytestmark = pytest.mark.timeout(1200)

SECRETS = ("/etc/edgecap/credentials/broker-password", "/etc/edgecap/credentials/ingest-password")


def test_mistakes_get_one_line_each(machine: Machine) -> None:
    """Before anything is installed."""

    def says(prefix: str, *options: str) -> str:
        done = machine.run(
            "sh", "-c", f'{prefix} /bundle/systemd/install.sh "$@"', "sh", *options, check=False
        )
        assert done.returncode == 1
        lines = done.stderr.strip().splitlines()
        assert len(lines) == 1, done.stderr
        assert lines[0].startswith("edgecap: ")
        return lines[0]

    machine.run("cp", "-r", "/bundle/systemd", "/tmp/anyone")
    assert "must be run as root: sudo" in says("cd /tmp/anyone; runuser -u nobody -- ./install.sh; exit;")
    assert "unknown option --rol" in says("", "--rol", "rig")
    assert "--role wants a value" in says("", "--role")
    assert "role glove is none of rig, site, both" in says("", "--role", "glove")
    assert "/nowhere is not a folder; make one with" in says("", "--offline", "/nowhere")
    assert "--purge goes with --uninstall" in says("", "--purge")
    # An empty folder, no network, an old Python, no venv.
    assert "nor an edgecap wheel in /mnt is there" in says("", "--offline", "/mnt")
    machine.run("sh", "-c", "mkdir /root/partial && cp /bundle/wheels/edgecap-*.whl /root/partial/")
    assert "cannot install from /root/partial: No matching distribution" in says(
        "", "--offline", "/root/partial"
    )
    checkout = "mkdir -p checkout/edgecap && cp -r /bundle/* checkout/ && touch checkout/pyproject.toml"
    machine.run("sh", "-c", f"cd /root && {checkout}")
    assert "check the network, or give --offline" in says("exec /root/checkout/systemd/install.sh;")
    machine.write("/tmp/old/python3", "#!/bin/sh\n[ $1 != --version ] || echo Python 3.9.2\nexit 1\n", "755")
    assert "Python 3.9.2 is too old, 3.11 is needed" in says(
        "PATH=/tmp/old:$PATH", "--offline", "/bundle/wheels"
    )
    machine.run("sh", "-c", "for d in /usr/lib/python3.*/ensurepip; do mv $d $d.away; done")
    try:
        assert "python3-venv is missing; install it: apt-get" in says("", "--offline", "/bundle/wheels")
    finally:
        machine.run("sh", "-c", "for d in /usr/lib/python3.*/ensurepip.away; do mv $d ${d%.away}; done")
    assert machine.run("test", "-e", "/opt/edgecap/bin", check=False).returncode != 0
    assert machine.out("find", "/etc/systemd/system", "-name", "edgecap*") == ""


def test_it_starts_ready_with_what_it_needs_and_no_more(rig: InstalledRig) -> None:
    m = rig.machine
    shown = m.show("edgecap.service", "ActiveState", "SubState", "NRestarts", "User", "MainPID")
    assert (shown["ActiveState"], shown["SubState"], shown["NRestarts"]) == ("active", "running", "0")
    status = m.out("cat", f"/proc/{rig.main_pid()}/status")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    user = m.out("id", "-u", "edgecap")
    assert fields["Uid"].split() == [user] * 4
    assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0
    assert (fields["NoNewPrivs"].strip(), fields["Seccomp"].strip()) == ("1", "2")
    groups = {m.out("getent", "group", gid).split(":")[0] for gid in fields["Groups"].split()}
    assert {"video", "dialout", "plugdev", "gpio", "i2c"} <= groups
    # Recordings are its own; secrets are root's, and reach the daemon all the same: it is connected.
    assert m.out("stat", "-c", "%U %a", "/var/lib/edgecap") == "edgecap 750"
    assert all(m.out("stat", "-c", "%U %a", path) == "root 600" for path in SECRETS)
    m.until("connected", lambda: any("connected to the broker" in e["MESSAGE"] for e in m.journal("edgecap")))


def test_what_it_logs_has_priorities(rig: InstalledRig) -> None:
    entries = [e for e in rig.machine.journal("edgecap") if e.get("_COMM") == "edgecap"]
    ready = [e for e in entries if e["MESSAGE"].startswith("edgecap.run: ready: ")]
    assert len(ready) == 1
    assert (ready[0]["PRIORITY"], ready[0]["SYSLOG_IDENTIFIER"]) == ("6", "edgecap")
    assert not any(e["MESSAGE"].startswith("<") for e in entries)


def test_the_kernels_were_compiled_at_the_installation(rig: InstalledRig) -> None:
    m = rig.machine
    assert m.out("sh", "-c", "cat /var/cache/edgecap/numba/*/complete")
    assert not [e for e in m.journal("edgecap") if "edgecap.kernels" in e["MESSAGE"]]


def test_a_configuration_that_cannot_be_used_gets_one_line(rig: InstalledRig) -> None:
    m = rig.machine
    before = len(m.journal("edgecap"))
    m.run("sed", "-i.good", "s/^reserve_mb/reserved_mb/", "/etc/edgecap/edgecap.toml")
    m.run("systemctl", "restart", "--no-block", "edgecap.service")
    words = "unknown key `spool.reserved_mb`; did you mean `spool.reserve_mb`"
    m.until("systemctl tells it", lambda: words in m.show("edgecap.service", "StatusText")["StatusText"])
    m.run("mv", "/etc/edgecap/edgecap.toml.good", "/etc/edgecap/edgecap.toml")
    rig.until_ready()  # it is tried again by itself
    mine = [e for e in m.journal("edgecap")[before:] if e.get("_COMM") == "edgecap"]
    errors = {e["MESSAGE"] for e in mine if int(e["PRIORITY"]) <= 3}
    assert len(errors) == 1, errors
    assert words in errors.pop()
    m.run("systemctl", "stop", "edgecap.service")
    m.run("systemctl", "start", "edgecap.service")  # by hand: restarts are counted from here
    rig.until_ready()


def test_a_second_run_of_the_installer_changes_nothing(rig: InstalledRig) -> None:
    pid = rig.main_pid()
    said = rig.install("--role", "both", "--offline", "./wheels")
    assert "this version is installed already" in said
    assert rig.main_pid() == pid
    assert rig.restarts() == 0


def test_a_session_arrives_and_the_clock_state_is_in_it(rig: InstalledRig) -> None:
    session = rig.start_recording()
    rig.stop_recording()
    report = rig.until_complete(session)
    assert report["outcome"] == "complete"
    assert {s["name"] for s in report["streams"]} >= {"left-hand-imu", "head-cam"}
    # adjtimex was allowed: the kernel states an error, if only a large one.
    assert rig.status()["clock"]["max_error_us"] > 0


def test_the_fleet_page_and_the_check(rig: InstalledRig) -> None:
    m = rig.machine
    m.run("systemctl", "start", "edgecap-fleet.service")
    fetch = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8080/rigs.json').read().decode())"
    m.until("the page has the rig", lambda: '"rigs":1' in m.out("python3", "-c", fetch, check=False))
    m.run("systemctl", "start", "edgecap-fleet-check.service")
    assert any("rig-01" in e["MESSAGE"] for e in m.journal("edgecap-fleet-check"))
    m.run("systemctl", "stop", "edgecap-fleet.service")


def test_a_state_directory_that_cannot_be_written_is_told_everywhere_and_waited_for(
    rig: InstalledRig,
) -> None:
    m = rig.machine
    before = len(m.journal("edgecap"))
    m.run("systemctl", "stop", "edgecap.service")
    m.run("sh", "-c", f"chown -R root:root {SPOOL} && chmod 700 {SPOOL}")
    m.run("systemctl", "start", "edgecap.service")
    status = rig.until_state("fault")
    assert SPOOL in status["fault"]
    assert status["led"] == "fault"
    m.until("systemctl tells it", lambda: SPOOL in m.show("edgecap.service", "StatusText")["StatusText"])
    errors = [e for e in m.journal("edgecap")[before:] if int(e["PRIORITY"]) <= 3]
    assert len(errors) == 1, errors
    assert SPOOL in errors[0]["MESSAGE"]
    # Once it is put right, nobody has to start anything.
    pid = rig.main_pid()
    m.run("sh", "-c", f"chown -R edgecap:edgecap {SPOOL}")
    rig.until_state("idle")
    assert (rig.main_pid(), rig.restarts()) == (pid, 0)


def test_killed_while_recording_it_is_back_and_the_session_is_closed(rig: InstalledRig) -> None:
    session, before, pid = rig.start_recording(), rig.restarts(), rig.main_pid()
    rig.machine.run("systemctl", "kill", "--signal=KILL", "edgecap.service")
    rig.machine.until("started again", lambda: rig.restarts() > before)
    rig.until_ready()
    assert rig.main_pid() != pid
    report = rig.until_complete(session)
    assert report["outcome"] == "interrupted"
    # The sign of life is in the service's own directory in memory, which outlives the daemon.
    ends = {g["t1_ns"] for s in report["streams"] for g in s["gaps"] if g["cause"] == "crash"}
    beat_ns = int(rig.machine.run("cat", "/run/edgecap/pulse").stdout.split()[2])
    assert len(ends) == 1
    assert 0 <= ends.pop() - beat_ns <= 1_500_000_000


def test_hung_it_is_ended_by_the_watchdog_and_back(rig: InstalledRig) -> None:
    session, before = rig.start_recording(), rig.restarts()
    rig.machine.run("systemctl", "kill", "--kill-who=main", "--signal=STOP", "edgecap.service")
    rig.machine.until("started again", lambda: rig.restarts() > before)
    # Nobody presses the button again: what was recorded goes on as another session, until somebody does.
    rig.machine.until("it goes on", lambda: rig.status().get("session_s", 0) >= 1)
    second = rig.status()["session"]
    assert second != session
    rig.stop_recording()
    assert rig.until_complete(second)["outcome"] == "complete"
    messages = [e["MESSAGE"] for e in rig.machine.journal("edgecap")]
    assert any("Watchdog timeout" in text and "edgecap.service" in text for text in messages)
    assert any("signal SIGABRT" in text for text in messages)
    assert rig.until_complete(session)["outcome"] == "interrupted"


def test_a_reboot_with_a_full_spool_delivers_it_afterwards(rig: InstalledRig) -> None:
    m = rig.machine
    m.run("systemctl", "disable", "--now", "test-broker.service")
    session = rig.start_recording()
    m.until("some of it is durable", lambda: rig.spooled() > 4)
    # The reboot comes while it records: the daemon closes the session within TimeoutStopSec.
    m.reboot()
    rig.until_ready()
    assert rig.spooled() > 4
    assert session not in rig.sessions()
    m.run("systemctl", "start", "test-broker.service")
    assert rig.until_complete(session)["outcome"] == "complete"
    m.until("released", lambda: rig.spooled() == 0)


def test_an_upgrade_keeps_recordings_configuration_and_secrets(rig: InstalledRig) -> None:
    m = rig.machine
    m.run("systemctl", "stop", "test-broker.service")
    session = rig.start_recording()
    m.until("some of it is durable", lambda: rig.spooled() > 4)
    rig.stop_recording()
    kept = "cd /etc/edgecap; sha256sum *.toml credentials/*; stat -c '%n %U %a' credentials/*"
    before = m.out("sh", "-c", kept)
    old = m.out("edgecap", "--version")
    refused = rig.install("--offline", "./wheels", folder="/newer", check=False)
    assert "another version is installed" in refused
    assert "--upgrade" in refused
    # One that fails leaves the old version at work.
    pid = rig.main_pid()
    m.run("sh", "-c", "mkdir /root/cut && cp /newer/wheels/edgecap-*.whl /root/cut/")
    failed = rig.install("--upgrade", "--offline", "/root/cut", folder="/newer", check=False)
    assert "cannot install from /root/cut" in failed
    assert (m.out("edgecap", "--version"), rig.main_pid()) == (old, pid)
    m.run("touch", "/run/before")
    rig.install("--upgrade", "--offline", "./wheels", folder="/newer")
    m.until("the new version runs", lambda: rig.main_pid() not in (0, pid))
    rig.until_ready()
    assert m.out("edgecap", "--version") == "edgecap 99.0.0"
    # No kernel differs between these versions: none was compiled again, on a small Pi a matter of minutes.
    assert m.out("find", "/var/cache/edgecap/numba", "-name", "*.nbc", "-newer", "/run/before") == ""
    assert "venv-" in m.out("readlink", "/opt/edgecap/bin")
    assert m.out("sh", "-c", kept) == before
    m.run("systemctl", "start", "test-broker.service")
    assert rig.until_complete(session)["outcome"] == "complete"


def test_uninstalling_keeps_data_and_purging_does_not(rig: InstalledRig) -> None:
    m = rig.machine
    session = rig.start_recording()
    # It still records: the session is closed first.
    assert "recordings stay in /var/lib/edgecap" in rig.install("uninstall", folder="/newer")
    left = "find /opt /etc /usr/local /var/cache /var/log -name '*edgecap*' ! -path '/etc/edgecap*'"
    left = m.out("sh", "-c", f"{left} ! -name 'edgecap.service.d'; ls -la /run/edgecap || :")
    assert left == ""
    assert m.out("systemctl", "list-units", "--all", "--no-legend", "edgecap*", check=False) == ""
    assert any("complete " + session in e["MESSAGE"] for e in m.journal("edgecap"))
    assert m.out("sh", "-c", f"find {SPOOL} {STORE} -name '*.seg' | wc -l") != "0"
    assert m.run("test", "-s", SECRETS[0], check=False).returncode == 0
    m.run("systemctl", "stop", "test-board.service")  # runs as the user that is about to go
    rig.install("--uninstall", "--purge")
    assert m.run("test", "-e", "/var/lib/edgecap", check=False).returncode != 0
    assert m.run("test", "-e", "/etc/edgecap", check=False).returncode != 0
    assert m.run("id", "edgecap", check=False).returncode != 0
