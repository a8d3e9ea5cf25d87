"""Spoiled payloads for the decoders of columns, records and video."""

from __future__ import annotations

import random

from edgecap.codec import wire
from edgecap.codec.columns import ColumnDecoder, ColumnEncoder
from edgecap.codec.records import decode_records, encode_records
from edgecap.codec.video import decode_units, encode_units, join_units
from edgecap.sim import mutants
from edgecap.sim.fuzz_target import Target


class ColumnsTarget(Target):
    """Payloads of samples, in order and out of it."""

    name = "columns"

    def __init__(self) -> None:
        self._streams = mutants.column_payloads()
        self._all = [p for stream in self._streams for p in stream]
        self._before: list[bytes] = []

    def make(self, rng: random.Random) -> bytes:
        stream = rng.choice(self._streams)
        number = rng.randrange(len(stream))
        self._before = stream[:number]
        return mutants.spoil(rng, stream[number], self._all)

    def feed(self, data: bytes) -> bool:
        decoder = ColumnDecoder()
        for payload in self._before:
            decoder.decode(payload)
        tables = decoder.decode(data)
        # No checksum is in the payload (the chunk has a hash): what decodes must be sound, and encode again.
        encoder = ColumnEncoder("fast")
        again = ColumnDecoder().decode(encoder.encode(tables))
        assert list(again) == list(tables)
        for name, column in tables.items():
            assert column.dtype == again[name].dtype
            assert column.tobytes() == again[name].tobytes()
        return True


class RecordsTarget(Target):
    """Payloads of the session's own stream."""

    name = "records"

    def __init__(self) -> None:
        self._maps = mutants.record_maps()
        self._valid = encode_records(self._maps)

    def make(self, rng: random.Random) -> bytes:
        if rng.random() < 0.5:
            return wire.pack(mutants.respell(rng, self._maps))
        return mutants.spoil(rng, self._valid, [self._valid])

    def feed(self, data: bytes) -> bool:
        records = decode_records(data)
        assert repr(decode_records(encode_records(records))) == repr(records)
        return True


class VideoTarget(Target):
    """Payloads of cameras."""

    name = "video"

    def __init__(self) -> None:
        self._valid = encode_units(mutants.video_units())
        self._tree = wire.unpack(self._valid, what="", max_bytes=1 << 20)

    def make(self, rng: random.Random) -> bytes:
        if rng.random() < 0.5:
            return wire.pack(mutants.respell(rng, self._tree))
        return mutants.spoil(rng, self._valid, [self._valid])

    def feed(self, data: bytes) -> bool:
        units = decode_units(data)
        assert decode_units(encode_units(units)) == units
        assert sum(len(u.data) for u in join_units(units)) <= len(data)
        return True
