"""What the spool holds, in memory: segments, the sessions in them, and what waits for a receipt."""

from __future__ import annotations

import bisect
import threading
import time
from collections.abc import Container, Iterable, Iterator
from dataclasses import replace

import numpy as np

from edgecap import clock
from edgecap.codec.chunk import Chunk, ChunkId
from edgecap.model import SESSION_STREAM
from edgecap.spool.held import CLASSES, Entry, HeldSegment, StreamId, state_of
from edgecap.spool.receipts import SessionState, StreamHead
from edgecap.spool.segment_index import SegmentIndex, StreamKey

LOADED_SEGMENTS = 16
"""Segments whose rows stay in memory; those of a longer backlog are read back as they are delivered."""

Place = tuple[HeldSegment, int]
"""A slot of a segment."""


class Backlog:
    """The spool's table of contents; every method takes `lock`, which is held only for short work.

    Attributes:
        lock: Reentrant; hold it around several calls that must see one state.
        segments: By uid, oldest first.
        sessions: By boot and session id: all that are in a segment, or still open.
    """

    def __init__(self, sessions: dict[tuple[str, str], SessionState]) -> None:
        self.lock = threading.RLock()
        self.segments: dict[int, HeldSegment] = {}
        self.sessions = sessions
        self._where: dict[StreamId, list[HeldSegment]] = {}
        self._loaded: dict[int, HeldSegment] = {}

    def adopt(self, segment: HeldSegment) -> None:
        """Take in a segment found on start; call in order of age."""
        with self.lock:
            self.segments[segment.uid] = segment
            older = {s: self._where[s][-1].ranges[s][1] for s in segment.ranges if s in self._where}
            # A sync that failed before the crash had the chunks written once more.
            segment.find_copies(older)
            for state in segment.states():
                self._join_session(state)
            for stream in segment.ranges:
                self._place(segment, stream)
            self._use(segment)

    def begin(self, segment: HeldSegment) -> None:
        """Take in the segment that is being written from now on."""
        with self.lock:
            self.segments[segment.uid] = segment

    def add(self, segment: HeldSegment, chunk: Chunk, place: tuple[int, int], key: StreamKey) -> None:
        """Note a chunk written at `place` (offset, time) of the segment being written."""
        assert segment.writer is not None
        with self.lock:
            segment.writer.note(chunk, place, key)
            segment.note(key, chunk.header.seq, len(chunk.packed))
            self._place(segment, StreamId(key.boot, key.session, key.stream))

    def count(self, chunk: Chunk, key: StreamKey, flags: int) -> None:
        """Move the head of the chunk's stream."""
        with self.lock:
            self._join_session(state_of(chunk, key, flags))

    def rest(self, segment: HeldSegment) -> None:
        """Nothing more is written to the segment."""
        with self.lock:
            segment.retire()
            self._use(segment)

    def supersede(self, segment: HeldSegment) -> list[tuple[int, int]]:
        """Give up what is not known to be on the medium; returns uid and offset of these records."""
        with self.lock:
            segment.retire()
            slots = range(segment.visible, len(segment.done))
            segment.copies.update(slots)
            self._use(segment)
            return self.finish((segment, slot) for slot in slots)

    def pending(self, limit: int, exclude: Container[ChunkId]) -> list[Entry]:
        """See `Spool.pending`."""
        found: list[Entry] = []
        with self.lock:
            for class_ in range(CLASSES):
                for segment in self.segments.values():
                    if not segment.waiting[class_]:
                        continue
                    index = self._readable(segment)
                    if index is None:
                        continue
                    for slot in segment.waiting_slots(class_).tolist():
                        if len(found) >= limit:
                            return found
                        if not exclude or index.id(slot) not in exclude:
                            found.append(segment.entry(slot))
        return found

    def find(self, id_: ChunkId) -> Iterator[Place]:
        """Every slot that holds the chunk; hold `lock` while iterating."""
        stream = StreamId(id_.boot, id_.session, id_.stream)
        held = self._where.get(stream, [])
        at = bisect.bisect_right(held, id_.seq, key=lambda s: s.ranges[stream][0]) - 1
        while at >= 0 and held[at].ranges[stream][1] >= id_.seq:
            index = self._readable(held[at])
            for slot in index.find(id_) if index is not None else ():
                yield held[at], slot
            at -= 1

    def finish(self, places: Iterable[Place]) -> list[tuple[int, int]]:
        """Mark slots as done; returns uid and offset of those that were not."""
        with self.lock:
            return [
                (segment.uid, int(segment.index().rows[slot]["offset"]))
                for segment, slot in places
                if segment.finish(slot)
            ]

    def finished(self) -> list[HeldSegment]:
        """Segments of which nothing waits, without the one being written.

        One that holds the opening record of a session that is still open stays: should the session be cut
        off, that record alone tells which streams there were, whether or not it has been delivered. (If
        another segment repeats some of its chunks, they go together, so that each is counted once.) One that
        the medium cannot read all of stays, too: it may give more at another start.
        """
        with self.lock:
            openings = {
                self._where[stream][0].uid
                for boot, session in (key for key, state in self.sessions.items() if not state.closed)
                if (stream := StreamId(boot, session, SESSION_STREAM)) in self._where
                and self._where[stream][0].ranges[stream][0] == 0
                and not self._where[stream][0].copies
            }
            return [
                s
                for s in self.segments.values()
                if s.writer is None and not (any(s.waiting) or s.partial or s.uid in openings)
            ]

    def obituary(self, segment: HeldSegment) -> list[SessionState]:
        """What must be kept about sessions before the segment goes; raises `OSError`."""
        with self.lock:
            self._use(segment)
            return [replace(s, closed=self.sessions[s.boot, s.session].closed) for s in segment.states()]

    def remove(self, segment: HeldSegment) -> None:
        """Take a segment out of the table."""
        with self.lock:
            del self.segments[segment.uid]
            self._loaded.pop(segment.uid, None)
            for stream in segment.ranges:
                self._where[stream].remove(segment)
                if not self._where[stream]:
                    del self._where[stream]
            segment.let_go()

    def forget_sessions(self) -> list[tuple[str, str]]:
        """Drop closed sessions of which no segment is left; returns their keys."""
        with self.lock:
            present = {(stream.boot, stream.session) for stream in self._where}
            over = [k for k, s in self.sessions.items() if s.closed and k not in present]
            for key in over:
                del self.sessions[key]
            return over

    def open_sessions(self) -> list[SessionState]:
        """Copies of the sessions without a close record."""
        with self.lock:
            return [
                replace(s, streams={name: replace(head) for name, head in s.streams.items()})
                for s in self.sessions.values()
                if not s.closed
            ]

    def heads(self, session: str) -> dict[str, StreamHead]:
        """Heads of the newest session of that id."""
        with self.lock:
            for (_, name), state in reversed(self.sessions.items()):
                if name == session:
                    return {stream: replace(head) for stream, head in state.streams.items()}
        return {}

    def newest_append_ns(self, boot: str, session: str) -> int:
        """See `Spool.newest_append_ns`."""
        newest = 0
        with self.lock:
            for stream, held in self._where.items():
                if (stream.boot, stream.session) == (boot, session):
                    index = self._readable(held[-1])
                    if index is None:
                        continue
                    mine = [n for n, k in enumerate(index.keys) if (k.boot, k.session) == (boot, session)]
                    times = index.rows["t_append_ns"][np.isin(index.rows["key"], mine)]
                    newest = max(newest, int(times.max(initial=0)))
        return newest

    def own_chunks(self, boot: str, session: str, newest: int) -> list[ChunkId]:
        """See `Spool.own_chunks`."""
        with self.lock:
            stream = StreamId(boot, session, SESSION_STREAM)
            held = self._where.get(stream, [])
            found: dict[int, ChunkId] = {}
            for segment in dict.fromkeys([*held[:1], *held[-2:]]):
                index = self._readable(segment)
                if index is None:
                    continue
                own = [n for n, k in enumerate(index.keys) if StreamId(k.boot, k.session, k.stream) == stream]
                slots = np.flatnonzero(np.isin(index.rows["key"], own)).tolist()
                found |= {int(index.rows[slot]["seq"]): index.id(slot) for slot in slots}
        seqs = sorted(found)
        return [found[seq] for seq in dict.fromkeys([*(s for s in seqs if s == 0), *seqs[-newest:]])]

    def oldest_t_ns(self) -> int:
        """When the oldest waiting chunk was appended, in this boot's rig time; 0 when none waits."""
        with self.lock:
            oldest = next((s for s in self.segments.values() if any(s.waiting)), None)
            if oldest is None:
                return 0
            index, header = self._readable(oldest), oldest.header
            t_ns = header.created_ns
            if index is not None:
                t_ns = int(index.rows[oldest.done.index(0)]["t_append_ns"])
        if header.boot.hex() == clock.boot_id().replace("-", ""):
            return t_ns
        utc_ns = t_ns - header.created_ns + header.created_utc_ns
        return clock.now_ns() - max(0, time.time_ns() - utc_ns)

    def close(self) -> None:
        """Close every file."""
        with self.lock:
            for segment in self.segments.values():
                segment.retire()
                segment.let_go()

    def _place(self, segment: HeldSegment, stream: StreamId) -> None:
        held = self._where.setdefault(stream, [])
        if not held or held[-1] is not segment:
            held.append(segment)

    def _join_session(self, state: SessionState) -> None:
        mine = self.sessions.get((state.boot, state.session))
        if mine is None:
            mine = self.sessions[state.boot, state.session] = replace(state, streams={})
        mine.closed |= state.closed
        for stream, head in state.streams.items():
            if stream in mine.streams:
                mine.streams[stream].join(head)
            else:
                mine.streams[stream] = head

    def _readable(self, segment: HeldSegment) -> SegmentIndex | None:
        """A segment's rows; None while the medium cannot read them: the segment then waits."""
        try:
            return self._use(segment).index()
        except OSError:
            return None

    def _use(self, segment: HeldSegment) -> HeldSegment:
        self._loaded.pop(segment.uid, None)
        self._loaded[segment.uid] = segment
        while len(self._loaded) > LOADED_SEGMENTS:
            self._loaded.pop(next(iter(self._loaded))).let_go()
        return segment
