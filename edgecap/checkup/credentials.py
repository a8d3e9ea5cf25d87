"""Files that prove who the rig is: readable by it, by nobody else, and not about to expire."""

from __future__ import annotations

import stat
from datetime import datetime, timedelta
from pathlib import Path

from edgecap.checkup.certificate import not_after
from edgecap.checkup.exam import Exam
from edgecap.checkup.finding import Facts, Finding, fail, failed, none, ok
from edgecap.config import broker_file
from edgecap.errors import ConfigError

SECRETS = ("password_file", "key_file")
CERTIFICATES = ("cert_file", "ca_file")
SOON = timedelta(days=14)


async def check_credentials(exam: Exam) -> list[Finding]:
    """Every file that `[broker]` names."""
    findings: list[Finding] = []
    for key in (*SECRETS, *CERTIFICATES):
        check = f"credential {key}"
        try:
            path = broker_file(exam.config.broker, key)
        except ConfigError as error:
            # Only the service has that directory; it is no fault of this shell that it has not.
            findings.append(none(check, f"only the service can tell: {error.what}"))
            continue
        if path is not None:
            findings.append(_secret(check, path) if key in SECRETS else _certificate(check, path, exam.utc()))
    return findings or [none("credentials", "none is configured in [broker]")]


def _secret(check: str, path: Path) -> Finding:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        with path.open("rb"):
            pass
    except OSError as error:
        return _unreadable(check, path, error)
    if mode & stat.S_IRWXO:
        fix = f"sudo chmod 600 {path}"
        return fail(check, f"{path} can be read by everybody (mode {mode:o})", fix, mode=f"{mode:o}")
    return ok(check, f"{path} is readable, mode {mode:o}", mode=f"{mode:o}")


def _certificate(check: str, path: Path, now: datetime) -> Finding:
    try:
        end = not_after(path)
    except OSError as error:
        return _unreadable(check, path, error)
    except ValueError as error:
        return failed(check, ConfigError(f"{path}: {error}", fix="give a certificate in PEM format"))
    left = end - now
    facts: Facts = {"not_after": end.isoformat(), "days_left": left.days}
    if left < timedelta(0):
        return fail(check, f"{path} expired on {end:%Y-%m-%d}", "renew it", **facts)
    if left < SOON:
        return fail(check, f"{path} expires on {end:%Y-%m-%d}, in {left.days} days", "renew it now", **facts)
    return ok(check, f"{path} is valid until {end:%Y-%m-%d}", **facts)


def _unreadable(check: str, path: Path, error: OSError) -> Finding:
    fix = "check the path, and that the daemon's user may read it"
    return fail(check, f"{path} cannot be read: {error.strerror}", fix)
