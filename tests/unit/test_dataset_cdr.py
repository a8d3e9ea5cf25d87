"""CDR encoded by layout equals what two other ROS 2 implementations read."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mcap_ros2._dynamic import generate_dynamic
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from edgecap.dataset.cdr import CdrLayout
from edgecap.dataset.ros2_schemas import TYPES, definition

text = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=20)
UTC_NS = 1_790_000_000_123_456_789


def mcap_ros2_decode(kind: str, data: bytes):
    return generate_dynamic(kind, definition(kind).decode())[kind](data)


def rosbags_types(kind: str):
    store = get_typestore(Stores.EMPTY)
    whole, *dependencies = definition(kind).decode().split("=" * 80 + "\n")
    types = get_types_from_msg(whole, kind)
    for part in dependencies:
        first, body = part.split("\n", 1)
        name = first.removeprefix("MSG: ").replace("/", "/msg/")
        types.update(get_types_from_msg(body, name))
    store.register(types)
    return store


def rosbags_decode(kind: str, data: bytes):
    return rosbags_types(kind).deserialize_cdr(data, kind)


@pytest.mark.parametrize("kind", TYPES)
def test_every_definition_is_understood(kind: str):
    assert kind in generate_dynamic(kind, definition(kind).decode())
    assert kind in rosbags_types(kind).fielddefs


@settings(max_examples=50, deadline=None)
@given(
    frame=text,
    names=st.lists(text, min_size=1, max_size=12),
    n=st.integers(1, 6),
    seed=st.integers(0, 2**32),
)
def test_channel_arrays_come_back(frame: str, names: list[str], n: int, seed: int):
    rng = np.random.default_rng(seed)
    value = rng.normal(size=(n, len(names))).astype(np.float32)
    valid = rng.random((n, len(names))) < 0.5
    stamps = UTC_NS + np.arange(n, dtype=np.int64) * 999_999_937
    layout = CdrLayout().header(frame).strings(names)
    layout.sequence("value", "<f4", len(names)).sequence("valid", "?", len(names))
    rows = layout.encode(n, stamps, value=value, valid=valid)
    kind = "edgecap_msgs/msg/ChannelArray"
    for i in range(n):
        for message in (mcap_ros2_decode(kind, rows[i].tobytes()), rosbags_decode(kind, rows[i].tobytes())):
            stamp = message.header.stamp
            assert stamp.sec * 1_000_000_000 + stamp.nanosec == stamps[i]
            assert message.header.frame_id == frame
            assert list(message.name) == names
            assert list(message.value) == value[i].tolist()
            assert list(message.valid) == valid[i].tolist()


@settings(max_examples=40, deadline=None)
@given(name=text, n=st.integers(1, 5), m=st.integers(1, 4), is_float=st.booleans())
def test_mixed_alignment_comes_back(name: str, n: int, m: int, is_float: bool):
    whole = np.arange(n * 3) - 4
    nothing = whole[:0]
    layout = CdrLayout().header(name).constant("<u4", 7).string("ab" * 32)
    layout.constant("<u8", 2**63).constant("<u4", 3).string("int16").constant("<i4", -2)
    layout.constant("<i8", 12345).filled("<i8", np.arange(n)).filled("<i8", np.arange(n) * -1000)
    layout.filled("<i4", np.full(m, 9)).filled("<i8", np.arange(m) + 2**60)
    layout.filled("<i4", nothing if is_float else whole).filled("<f4", whole if is_float else nothing)
    data = layout.message(UTC_NS)
    kind = "edgecap_msgs/msg/RawBlock"
    for message in (mcap_ros2_decode(kind, data), rosbags_decode(kind, data)):
        assert (message.seq, message.index, message.epoch, message.u_ns) == (7, 2**63, -2, 12345)
        assert list(message.t_rig_ns) == list(range(n))
        assert list(message.tick) == [-1000 * i for i in range(n)]
        assert list(message.arrival_ns) == [2**60 + i for i in range(m)]
        assert list(message.counts_int) == ([] if is_float else whole.tolist())
        assert list(message.counts_float) == (whole.tolist() if is_float else [])
