"""A bounded directory of what ingest refused, each with its reason, for a person to look at."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

MOST_FILES = 1000
MOST_BYTES = 64 << 20


class RefusedBin:
    """Keeps the latest refused payloads; the same payload again takes no more room.

    Args:
        path: Directory; made when the first payload comes. None keeps nothing.
        most_files: Payloads kept.
        most_bytes: Their bytes.
    """

    def __init__(
        self, path: Path | None, *, most_files: int = MOST_FILES, most_bytes: int = MOST_BYTES
    ) -> None:
        self.path = path
        self._most_files, self._most_bytes = most_files, most_bytes
        self._kept: dict[str, int] = {}
        if path is not None and path.is_dir():
            found = sorted(path.glob("*.chunk"), key=lambda p: p.stat().st_mtime_ns)
            self._kept = {p.stem: p.stat().st_size for p in found}

    def keep(self, payload: bytes, *, topic: str, reason: str, t_utc_ns: int) -> Path | None:
        """Write payload and reason; returns the payload's file, or None when it is not kept."""
        if self.path is None or len(payload) > self._most_bytes:
            return None
        name = hashlib.sha256(payload).hexdigest()[:32]
        file = self.path / f"{name}.chunk"
        if name in self._kept:
            return file
        self.path.mkdir(parents=True, exist_ok=True)
        self._kept[name] = len(payload)
        while len(self._kept) > self._most_files or sum(self._kept.values()) > self._most_bytes:
            oldest = next(iter(self._kept))
            del self._kept[oldest]
            for suffix in (".chunk", ".json"):
                (self.path / f"{oldest}{suffix}").unlink(missing_ok=True)
        about = {"topic": topic, "reason": reason, "t_utc_ns": t_utc_ns, "bytes": len(payload)}
        (self.path / f"{name}.json").write_text(json.dumps(about) + "\n", encoding="utf-8")
        file.write_bytes(payload)
        return file
