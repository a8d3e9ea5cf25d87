"""Chunks: sealing, chaining, and refusing everything that breaks a rule, by name."""

from __future__ import annotations

import hashlib

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecap.codec import wire
from edgecap.codec.chunk import MAX_CHUNK_BYTES, NO_HASH, StreamChain, pack_chunk, unpack_chunk
from edgecap.errors import ChunkError, EdgecapError
from edgecap.model import ClockFit, Gap

MAN = bytes(range(32))


def chain(stream="left-imu", **more):
    return StreamChain(site="s", rig="r", boot="b", session="20260601-120000-abcd", stream=stream, **more)


def seal(chain, payload=b"payload", **more):
    fields = {"kind": "event", "codec": "msgpack", "t0_ns": 1, "t1_ns": 2, "n": 1, "raw_bytes": 7} | more
    return chain.seal(payload=payload, **fields)


def resealed(change):
    """A chunk whose header map went through `change`, its payload hash still right."""
    chunk = seal(chain(man=MAN))
    header = msgpack.unpackb(chunk.header_bytes)
    change(header)
    return wire.pack([1, wire.pack(header), chunk.payload, None])


def test_a_chunk_comes_back_with_everything_in_it():
    fit = ClockFit(1, 2, 3.5, 1000, 4, 5.5, 6, locked=True)
    gaps = (Gap("left-imu", 1, 2, 3, "reset"),)
    chunk = seal(chain(man=MAN), fit=fit, gaps=gaps, quality={"rate_hz": 1.5})
    again = unpack_chunk(chunk.packed)
    assert again == chunk
    assert again.header.fit == fit
    assert again.header.gaps == gaps
    assert again.id == chunk.id


def test_chunks_are_numbered_and_chained():
    line = chain(man=MAN)
    first, second = seal(line), seal(line, b"other")
    assert (first.header.seq, second.header.seq) == (0, 1)
    assert first.header.prev == MAN
    assert second.header.prev == first.hash == hashlib.sha256(first.header_bytes).digest()
    assert second.header.man == MAN


def test_the_session_stream_takes_its_first_header_as_manifest():
    line = chain("session")
    first, second = seal(line), seal(line)
    assert (first.header.man, first.header.prev) == (NO_HASH, NO_HASH)
    assert second.header.man == second.header.prev == first.hash


def test_a_chain_goes_on_after_a_crash():
    line = chain(man=MAN)
    first = seal(line)
    later = seal(chain(man=MAN, seq=1, prev=first.hash))
    assert (later.header.seq, later.header.prev) == (1, first.hash)


def test_unknown_header_keys_are_ignored():
    assert unpack_chunk(resealed(lambda h: h.update(future=[1, 2]))).header.seq == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h.pop("seq"), "seq"),
        (lambda h: h.update(seq=-1), "seq must not be negative"),
        (lambda h: h.update(seq="1"), "seq"),
        (lambda h: h.update(kind="No Kind"), "kind"),
        (lambda h: h.update(kind="sound\n"), "kind"),
        (lambda h: h.update(kind=""), "kind"),
        (lambda h: h.update(t1_ns=0), "before t0_ns"),
        (lambda h: h.update(man=b"short"), "man must have 32 bytes"),
        (lambda h: h.update(sha256=bytes(32)), "payload hash"),
        (lambda h: h.update(rig="No Such Name"), "rig"),
        (lambda h: h.update(boot="b" * 65), "64 characters"),
    ],
)
def test_headers_that_break_a_rule_are_refused(change, message):
    with pytest.raises(EdgecapError, match=message):
        unpack_chunk(resealed(change))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "msgpack"),
        (b"\x93", "msgpack"),
        (wire.pack({"a": 1}), "array"),
        (wire.pack([2, b"", b"", None]), "version 2"),
        (wire.pack([1, b""]), "2 parts"),
        (wire.pack([1, "text", b"", None]), "binary"),
        (wire.pack([1, b"", b"", "text"]), "signature"),
        (wire.pack([1, b"", b"", None]) + b"\x00", "msgpack"),
        (bytes(MAX_CHUNK_BYTES + 1), "limit"),
    ],
)
def test_envelopes_that_break_a_rule_are_refused(data, message):
    with pytest.raises(ChunkError, match=message):
        unpack_chunk(data)


def test_duplicate_header_keys_are_refused():
    chunk = seal(chain(man=MAN))
    count = chunk.header_bytes[0:3]
    assert count[0] == 0xDE
    body = b"\xde" + (int.from_bytes(count[1:], "big") + 1).to_bytes(2, "big") + chunk.header_bytes[3:]
    twice = body + wire.pack("seq") + wire.pack(9)
    with pytest.raises(ChunkError, match="duplicate map key"):
        unpack_chunk(wire.pack([1, twice, chunk.payload, None]))


def test_a_chunk_that_is_too_large_is_not_sealed():
    line = chain(man=MAN)
    with pytest.raises(ChunkError, match="limit"):
        seal(line, bytes(MAX_CHUNK_BYTES))
    assert (line.seq, line.prev) == (0, MAN)


def test_the_signature_is_carried():
    chunk = seal(chain(man=MAN))
    signed = pack_chunk(chunk.header, chunk.payload, b"s" * 64)
    assert unpack_chunk(signed.packed).signature == b"s" * 64
    assert signed.hash == chunk.hash


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damage_is_noticed(data):
    packed = bytearray(seal(chain(man=MAN)).packed)
    at = data.draw(st.integers(0, len(packed) - 1))
    packed[at] ^= data.draw(st.integers(1, 255))
    try:
        chunk = unpack_chunk(bytes(packed))
    except EdgecapError:
        return
    # What is left are changes of the header, which its hash, kept in the chain, tells apart.
    assert chunk.payload == b"payload"
