"""Chunks whose bytes are pinned: every version of every program on every machine must read and write them.

Nothing regenerates these files. A change of the format is a new version with files of its own.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgecap.codec import records, video
from edgecap.codec.chunk import unpack_chunk
from edgecap.codec.columns import ColumnDecoder, ColumnEncoder
from tests.reference.columns import ReferenceDecoder

GOLDEN = Path(__file__).parent / "golden"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.bin"))


def golden(name):
    return unpack_chunk((GOLDEN / f"{name}.bin").read_bytes()), json.loads(
        (GOLDEN / f"{name}.json").read_text()
    )


def table_of(expected):
    table = {}
    for name, column in expected["table"].items():
        dtype = np.dtype(column["dtype"])
        raw = np.array(column["values"], "<u4" if dtype.kind == "f" else dtype)
        table[name] = raw.view(dtype).reshape(column["shape"])
    return table


def test_all_kinds_and_levels_are_there():
    kinds = {name.rsplit("-", 1)[0] for name in NAMES}
    assert kinds == {"samples-fast", "samples-max", "samples-stream", "video", "event"}
    assert len(NAMES) == 19


@pytest.mark.parametrize("name", NAMES)
def test_headers(name):
    chunk, expected = golden(name)
    assert chunk.hash.hex() == expected["sha256_of_header"]
    for key, value in expected["header"].items():
        found = getattr(chunk.header, key)
        assert (found.hex() if isinstance(found, bytes) else found) == value, key


@pytest.mark.parametrize("level", ["fast", "max", "stream"])
def test_samples(level):
    encoder, decoder, reference = ColumnEncoder(level), ColumnDecoder(), ReferenceDecoder()
    for name in [n for n in NAMES if n.startswith(f"samples-{level}-")]:
        chunk, expected = golden(name)
        table = table_of(expected)
        assert encoder.encode(table) == chunk.payload, "encoding gives other bytes"
        for found in (decoder.decode(chunk.payload), reference.decode(chunk.payload)):
            assert list(found) == list(table)
            for column, array in table.items():
                assert found[column].dtype == array.dtype
                assert found[column].shape == array.shape
                assert found[column].tobytes() == array.tobytes(), column


def test_video():
    chunk, expected = golden("video-0")
    units = [video.VideoUnit(*row[:6], bytes.fromhex(row[6])) for row in expected["units"]]
    assert video.decode_units(chunk.payload) == units
    assert video.encode_units(units) == chunk.payload


@pytest.mark.parametrize("name", ["event-0", "event-1"])
def test_events(name):
    chunk, expected = golden(name)
    assert records.decode_records(chunk.payload) == expected["records"]
    assert records.encode_records(expected["records"]) == chunk.payload


def test_the_session_stream_is_chained():
    first, second = golden("event-0")[0], golden("event-1")[0]
    assert first.header.man == bytes(32)
    assert second.header.prev == first.hash
    assert second.header.man == first.hash
