"""A calibration map in a JSON file: records by key, each new one beside or in place of what was there."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Protocol

import msgspec

from edgecap.config import MAX_CALIBRATION_BYTES
from edgecap.errors import UsageError


class Keyed(Protocol):
    """A record that knows its name in a map."""

    @property
    def key(self) -> str: ...


def read_map(path: Path) -> dict[str, Any]:
    """The map in a file, empty if there is no file; raises `UsageError` when it is none."""
    fix = "give --out another name"
    try:
        found = json.loads(path.read_text("utf-8")) if path.exists() else {}
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not JSON: {error}", fix=fix) from error
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", fix=fix) from error
    if not isinstance(found, dict):
        raise UsageError(f"{path} is not a calibration map", fix=fix)
    return found


def add_to_map(path: Path, record: Keyed) -> int:
    """Put a record into the map; the file is replaced whole, so that a daemon never reads half of it.

    Returns:
        The record's version: one more than that of the record it replaces.

    Raises:
        UsageError: the file is not such a map, cannot be written, or would outgrow a manifest.
    """
    found = read_map(path)
    fields = msgspec.to_builtins(record)
    before = found.get(record.key)
    if isinstance(before, dict) and isinstance(before.get("version"), int):
        fields["version"] = before["version"] + 1
    found[record.key] = fields
    text = json.dumps(found, indent=2, ensure_ascii=False) + "\n"
    if len(text.encode()) > MAX_CALIBRATION_BYTES:
        raise UsageError(
            f"{path} would have {len(text.encode())} bytes, a manifest holds {MAX_CALIBRATION_BYTES}",
            fix="take old records out",
        )
    partial = path.with_name(f".{path.name}.part")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UsageError(f"cannot write {path}: {error.strerror}", fix="give --out another name") from error
    return int(fields["version"])
