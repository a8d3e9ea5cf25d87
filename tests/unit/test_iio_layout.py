"""IIO scans: every packing that the ABI allows against a slow oracle, and hostile descriptions refused."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecap.errors import SourceError
from edgecap.source.iio_layout import Element, ScanLayout, parse_element


def read_slowly(element: Element, stored: bytes) -> float:
    """One value, bit by bit as the ABI's text has it: shift, mask, two's complement."""
    word = int.from_bytes(stored, "little" if element.order == "<" else "big")
    if element.form == "f":
        return struct.unpack(element.order + "f", stored)[0]
    word = (word >> element.shift) & ((1 << element.bits) - 1)
    if element.form == "i" and word >> (element.bits - 1):
        word -= 1 << element.bits
    return word


def decode_slowly(elements: list[Element], data: bytes, n: int) -> list[dict[str, float]]:
    """Walk the bytes: pad before each element to its own size, and after the last to the largest."""
    rows, at = [], 0
    largest = max(e.storage_bytes for e in elements)
    for _ in range(n):
        row = {}
        for element in sorted(elements, key=lambda e: e.index):
            while at % element.storage_bytes:
                at += 1
            row[element.name] = read_slowly(element, data[at : at + element.storage_bytes])
            at += element.storage_bytes
        while at % largest:
            at += 1
        rows.append(row)
    return rows


@st.composite
def packings(draw: st.DrawFn) -> str:
    storage = draw(st.sampled_from([8, 16, 32, 64]))
    form = draw(st.sampled_from("su"))
    bits = draw(st.integers(1, min(storage, 32 if form == "s" else 31)))
    shift = draw(st.integers(0, storage - bits))
    return f"{draw(st.sampled_from(['le', 'be']))}:{form}{bits}/{storage}>>{shift}"


@given(st.lists(packings(), min_size=1, max_size=7), st.integers(0, 7), st.integers(1, 5), st.data())
def test_decoding_equals_the_slow_oracle(types, stamp_at, n, data):
    order = st.sampled_from(["le:s64/64>>0", "be:s64/64>>0"])
    named = [(f"c{k}", packing) for k, packing in enumerate(types)]
    named.insert(min(stamp_at, len(named)), ("timestamp", data.draw(order)))
    elements = [parse_element(name, str(k), packing, "imu") for k, (name, packing) in enumerate(named)]
    layout = ScanLayout(data.draw(st.permutations(elements)), "imu")
    raw = data.draw(st.binary(min_size=n * layout.scan_bytes, max_size=n * layout.scan_bytes))
    ticks, values = layout.decode(raw)
    expected = decode_slowly(elements, raw, n)
    assert ticks.tolist() == [row["timestamp"] for row in expected]
    channels = [e.name for e in elements if e.name != "timestamp"]
    assert values.tolist() == [[row[c] for c in channels] for row in expected]
    assert ticks.dtype == np.int64


def test_float_channels_stay_float():
    elements = [
        parse_element("accel_x", "0", "be:f32/32>>0", "imu"),
        parse_element("timestamp", "1", "le:s64/64", "imu"),
    ]
    layout = ScanLayout(elements, "imu")
    assert (layout.dtype, layout.scan_bytes) == ("float32", 16)
    _, values = layout.decode(struct.pack(">fxxxx", 1.5) + struct.pack("<q", 9))
    assert values.dtype == np.float32
    assert values.tolist() == [[1.5]]


@given(
    st.text(max_size=40) | st.from_regex(r"(le|be):[suf]\d{1,4}/\d{1,4}(X\d)?(>>\d{1,4})?", fullmatch=True),
    st.text(max_size=8) | st.integers(-5, 9).map(str),
)
def test_any_text_is_an_element_that_can_be_read_or_refused(packing, index):
    try:
        element = parse_element("accel_x", index, packing, "imu")
    except SourceError as error:
        assert "\n" not in str(error).replace(repr(packing), "")
        return
    assert 1 <= element.bits + element.shift <= element.storage_bits
    assert 0 <= element.index < 10**6


@pytest.mark.parametrize(
    ("elements", "says"),
    [
        ([("accel_x", "0", "le:s16/16>>0")], "no 64-bit time stamps"),
        ([("timestamp", "0", "le:s64/64>>0")], "no channel to capture"),
        ([("accel_x", "0", "le:s16/16>>0"), ("timestamp", "0", "le:s64/64>>0")], "same index"),
        ([("accel_x", "0", "le:u32/32>>0"), ("timestamp", "1", "le:s64/64>>0")], "wider than 32 bits"),
        ([("a", "0", "le:s16/16"), ("b", "1", "le:f32/32"), ("timestamp", "2", "le:s64/64")], "mixes int"),
        ([("rot_quaternion", "0", "le:s16/16X4>>0")], "not supported"),
        ([("accel_x", "0", "le:s24/24>>0")], "not supported"),
        ([("accel_x", "0", "le:s16/16>>4")], "not supported"),
    ],
)  # fmt: skip
def test_layouts_that_cannot_be_are_refused_with_the_reason(elements, says):
    with pytest.raises(SourceError, match=says):
        ScanLayout([parse_element(*e, "imu") for e in elements], "imu")
