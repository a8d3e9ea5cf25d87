"""What a check found out about one thing."""

from __future__ import annotations

from typing import Literal

import msgspec

from edgecap.errors import EdgecapError

Verdict = Literal["ok", "fail", "none"]
Fact = int | float | str | bool | None
Facts = dict[str, Fact]


class Finding(msgspec.Struct, frozen=True):
    """One row of the table; docs/DOCTOR.md explains each `check`."""

    check: str
    """The subject, and which one of several: `device left-hand`."""
    verdict: Verdict
    """`none`: it does not apply here, or cannot be known now; the text says why."""
    text: str
    fix: str = ""
    facts: Facts = {}
    """What was measured, with units in the names."""


def ok(check: str, text: str, **facts: Fact) -> Finding:
    """It is as it should be."""
    return Finding(check, "ok", text, "", facts)


def fail(check: str, text: str, fix: str, **facts: Fact) -> Finding:
    """It is not, and this is what to do."""
    return Finding(check, "fail", text, fix, facts)


def none(check: str, why: str, **facts: Fact) -> Finding:
    """It does not apply, or cannot be known now."""
    return Finding(check, "none", why, "", facts)


def failed(check: str, error: EdgecapError) -> Finding:
    """An error as a finding."""
    return Finding(check, "fail", error.what, error.fix)
