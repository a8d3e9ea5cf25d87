"""The topic table: every name edgecap publishes or subscribes to, and the rule names obey."""

from __future__ import annotations

import re
from typing import NamedTuple

from edgecap.errors import NameRefused

ROOT = "edgecap/v1"
NAME_PATTERN = r"[a-z0-9-]{1,64}"
_NAME = re.compile(NAME_PATTERN)
INGEST_GROUP = "edgecap-ingest"


class Channel(NamedTuple):
    """How one topic suffix is published."""

    suffix: str
    qos: int
    retain: bool
    content_type: str


STATUS = Channel("status", 1, True, "application/json")
TELEMETRY = Channel("telemetry", 0, False, "application/json")
EVENT = Channel("event", 1, False, "application/json")
UP = Channel("up", 1, False, "application/vnd.msgpack")
RECEIPT = Channel("receipt", 1, False, "application/vnd.msgpack")
CMD = Channel("cmd", 1, False, "application/json")
CMD_RESULT = Channel("cmd/res", 1, False, "application/json")
DESIRED = Channel("desired", 1, True, "application/json")
CHANNELS = (STATUS, TELEMETRY, EVENT, UP, RECEIPT, CMD, CMD_RESULT, DESIRED)


class Address(NamedTuple):
    """The parts of a topic, all validated."""

    site: str
    rig: str
    suffix: str
    stream: str = ""


def check_name(what: str, name: str) -> str:
    """Return `name`, or raise `NameRefused` saying which kind of name (`what`) it is."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise NameRefused(
            f"{what} {name!r} is not a valid name",
            fix=f"use 1 to 64 of the characters a-z, 0-9 and '-', as in {suggest_name(str(name))!r}",
        )
    return name


def suggest_name(name: str) -> str:
    """The nearest valid name."""
    return re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-")[:64] or "rig-01"


def topic(site: str, rig: str, channel: Channel, stream: str = "") -> str:
    """Build a topic; `stream` belongs to `UP` only."""
    base = f"{ROOT}/{check_name('site', site)}/{check_name('rig', rig)}/{channel.suffix}"
    return f"{base}/{check_name('stream', stream)}" if stream else base


def subscription(channel: Channel, *, site: str = "+", rig: str = "+", share: str = "") -> str:
    """The filter that matches a channel of many rigs, shared among workers when `share` is given."""
    filter_ = f"{ROOT}/{site}/{rig}/{channel.suffix}" + ("/+" if channel is UP else "")
    return f"$share/{share}/{filter_}" if share else filter_


def parse(name: str) -> Address:
    """Split a topic into its parts; raise `NameRefused` when it is not one of ours."""
    parts = name.split("/")
    if name.startswith(ROOT + "/") and len(parts) >= 5:
        site, rig = check_name("site", parts[2]), check_name("rig", parts[3])
        suffix = "/".join(parts[4:])
        if parts[4] == UP.suffix and len(parts) == 6:
            return Address(site, rig, UP.suffix, check_name("stream", parts[5]))
        if any(suffix == c.suffix for c in CHANNELS if c is not UP):
            return Address(site, rig, suffix)
    raise NameRefused(f"topic {name[:200]!r} is not one of {ROOT}/SITE/RIG/…")
