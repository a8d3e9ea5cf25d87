"""The records of a session's own stream, read from chunks that may hold anything."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec

from edgecap.codec.chunk import Chunk
from edgecap.codec.records import decode_records
from edgecap.errors import ChunkError
from edgecap.ingest.stream_words import stream_in_words
from edgecap.model import SESSION_STREAM, Gap, Mark


class SessionRecords:
    """What a session's own stream says of it; give `take` its chunks in order of seq.

    Args:
        problems: Told, in words, whatever is wrong with the records.

    Attributes:
        opening: The manifest; None without one.
        closing: The close record; None without one.
        kinds: Stream → kind of its descriptor.
        carried: Stream → its rate, channels and units, in words.
        drifts: Stream → how it departed from its calibration, as the rig said it.
        encrypted: How many chunks could not be read, by the encryption that their headers name.
    """

    def __init__(self, problems: list[str]) -> None:
        self.opening: dict[str, Any] | None = None
        self.closing: dict[str, Any] | None = None
        self.kinds: dict[str, str] = {}
        self.carried: dict[str, str] = {}
        self.gaps: list[Gap] = []
        self.marks: list[Mark] = []
        self.drifts: dict[str, str] = {}
        self.encrypted: Counter[str] = Counter()
        self._problems = problems
        self._last_seq = self._closed_at_seq = -1

    @property
    def outcome(self) -> str:
        """As the close record says; `open` without one, `unknown` where it may be among what is encrypted."""
        if self.closing is None:
            return "unknown" if self.encrypted else "open"
        return text_of(self.closing, "outcome") or "unknown"

    @property
    def totals(self) -> dict[str, dict[str, Any]]:
        """What the close record states, by stream."""
        streams = self.closing.get("streams") if self.closing else None
        if not isinstance(streams, dict):
            return {}
        return {n: t for n, t in streams.items() if isinstance(n, str) and isinstance(t, dict)}

    @property
    def ends_with_close(self) -> bool:
        """Whether nothing came after the close record."""
        return self._closed_at_seq == self._last_seq

    def take(self, chunk: Chunk) -> None:
        """Read the next chunk."""
        seq = self._last_seq = chunk.header.seq
        if chunk.header.enc is not None:
            self.encrypted[chunk.header.enc] += 1
            return
        try:
            records = decode_records(chunk.payload)
        except ChunkError as error:
            self._problems.append(f"{SESSION_STREAM}: chunk {seq} holds no records: {error}")
            return
        if seq == 0:
            if len(records) == 1 and records[0]["type"] == "open":
                self.opening = records[0]
                self._note_streams(records[0].get("streams"))
            else:
                self._problems.append(f"{SESSION_STREAM}: chunk 0 is not a manifest")
        for record in records:
            try:
                self._take_record(record, seq)
            except msgspec.ValidationError as error:
                what = f"an invalid {record['type']}"
                self._problems.append(f"{SESSION_STREAM}: chunk {seq} holds {what}: {error}")

    def _take_record(self, record: dict[str, Any], seq: int) -> None:
        match record["type"]:
            case "stream":
                self._note_streams([record.get("stream", record)])
            case "gap":
                self.gaps.append(msgspec.convert(record, Gap))
            case "mark":
                self.marks.append(msgspec.convert(record, Mark))
            case "verdict":
                self._note_drift(record)
            case "close":
                self.closing, self._closed_at_seq = record, seq

    def _note_streams(self, descriptors: object) -> None:
        for info in _maps_in(descriptors):
            name = text_of(info, "name")
            self.kinds[name], self.carried[name] = text_of(info, "kind"), stream_in_words(info)

    def _note_drift(self, record: dict[str, Any]) -> None:
        """Keep the last figure of each stream that was said to drift."""
        for verdict in _maps_in(record.get("streams")):
            value = verdict.get("drift")
            if verdict.get("state") == "drift" and isinstance(value, int | float):
                self.drifts[text_of(verdict, "stream")] = f"{text_of(verdict, 'drift_of')}: {value:+.4g}"


def _maps_in(value: object) -> list[dict[str, Any]]:
    """The maps in a list; none where it is no list."""
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def text_of(record: dict[str, Any], name: str) -> str:
    """A text in a record; empty where it is none."""
    value = record.get(name)
    return value if isinstance(value, str) else ""


def as_int(value: object) -> int | None:
    """A whole number; None where it is none, as True is."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None
