"""Receipts: round trip, limits, and everything that is not one."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecap.codec import wire
from edgecap.codec.chunk import ChunkId
from edgecap.codec.receipt import MAX_CHUNKS, MAX_RECEIPT_BYTES, decode_receipt, encode_receipts
from edgecap.errors import ChunkError, NameRefused
from edgecap.ingest.receipt import ReceiptBook

names = st.from_regex(r"[a-z0-9-]{1,64}", fullmatch=True)
ids = st.builds(
    ChunkId,
    boot=st.text(max_size=64),
    session=names,
    stream=st.sampled_from(["session", "left-imu", "x" * 64]),
    seq=st.integers(0, 50) | st.integers(0, 2**62 - 1),
    hash=st.binary(min_size=32, max_size=32),
)


@given(st.lists(ids, max_size=60), names, st.integers(0, 2**63 - 1))
def test_round_trip(chunks: list[ChunkId], worker: str, t_utc_ns: int) -> None:
    receipts = [decode_receipt(data) for data in encode_receipts(chunks, worker=worker, t_utc_ns=t_utc_ns)]
    assert {i for r in receipts for i in r.ids()} == set(chunks)
    assert all((r.worker, r.t_utc_ns, r.sig) == (worker, t_utc_ns, None) for r in receipts)


def test_consecutive_chunks_share_an_item() -> None:
    chunks = [ChunkId("b", "s", stream, seq, bytes([seq]) * 32) for stream in "xy" for seq in (4, 5, 6, 9)]
    (data,) = encode_receipts(chunks, worker="w", t_utc_ns=1)
    assert [(i.stream, i.first_seq, len(i.hashes)) for i in decode_receipt(data).items] == [
        ("x", 4, 96),
        ("x", 9, 32),
        ("y", 4, 96),
        ("y", 9, 32),
    ]


def test_many_chunks_of_long_names_fit_into_several_receipts() -> None:
    chunks = [ChunkId("b" * 64, "s" * 64, f"{k:064}", k, bytes(32)) for k in range(MAX_CHUNKS + 1)]
    receipts = encode_receipts(chunks, worker="w" * 64, t_utc_ns=0)
    assert max(map(len, receipts)) <= MAX_RECEIPT_BYTES
    assert {i for data in receipts for i in decode_receipt(data).ids()} == set(chunks)


def _receipt(**changes: object) -> bytes:
    fields: dict[str, object] = {
        "v": 1, "worker": "w", "t_utc_ns": 0, "items": [["b", "s", "x", 0, bytes(32)]], "sig": None,
    }  # fmt: skip
    fields.update(changes)
    return wire.pack(fields)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not one whole msgpack value"),
        (b"\xc0", "receipt: Expected"),
        (_receipt() + b"\x00", "not one whole msgpack value"),
        (bytes(MAX_RECEIPT_BYTES + 1), "the limit is"),
        (_receipt(v=2), "format version 2"),
        (_receipt(items=[["b", "s", "x", 0, b""]]), "0 bytes of hashes"),
        (_receipt(items=[["b", "s", "x", 0, bytes(33)]]), "33 bytes of hashes"),
        (_receipt(items=[["b", "s", "x", -1, bytes(32)]]), "out of range"),
        (_receipt(items=[["b", "s", "x", 2**63, bytes(32)]]), "out of range"),
        (_receipt(items=[["b" * 65, "s", "x", 0, bytes(32)]]), "boot has at most"),
        (_receipt(items=[["b", "s", "x", 0]]), "receipt: Expected"),
        (_receipt(items=[["b", "s", 7, 0, bytes(32)]]), "receipt: Expected"),
        (_receipt(worker=None), "receipt: Expected"),
        (b"\x82\xa1v\x01\xa1v\x01", "duplicate map key"),
    ],
)
def test_what_is_no_receipt(data: bytes, words: str) -> None:
    with pytest.raises(ChunkError, match=words):
        decode_receipt(data)


def test_names_are_checked() -> None:
    with pytest.raises(NameRefused, match="stream"):
        decode_receipt(_receipt(items=[["b", "s", "UP", 0, bytes(32)]]))


@given(st.binary(max_size=300))
def test_no_bytes_crash_it(data: bytes) -> None:
    with contextlib.suppress(ChunkError, NameRefused):
        decode_receipt(data)


def test_unknown_keys_are_ignored() -> None:
    assert decode_receipt(_receipt(later="yes")).worker == "w"


def test_the_book_tells_each_rig_in_time() -> None:
    book = ReceiptBook(after_s=0.5, enough=3, most=5)
    a, b = ("lab", "a"), ("lab", "b")
    chunk = [ChunkId("b", "s", "x", k, bytes(32)) for k in range(6)]
    assert book.due_ns() is None
    book.add(a, [], 0)
    assert book.due_ns() is None
    book.add(a, chunk[:1], 1_000)
    book.add(a, chunk[1:2], 2_000)
    assert book.due_ns() == 500_001_000
    assert book.take(500_000_999) == []
    book.add(b, chunk[:3], 3_000)
    assert book.due_ns() == 0
    assert book.take(4_000) == [(b, chunk[:3])]
    assert book.take(500_001_000) == [(a, chunk[:2])]
    assert (len(book), book.due_ns()) == (0, None)
    book.add(a, chunk[:4], 0)
    book.add(b, chunk[:2], 0)
    assert (len(book), book.forgotten) == (2, 4)
    assert book.take(1, everything=True) == [(b, chunk[:2])]
