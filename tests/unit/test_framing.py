import itertools
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecap.kernels import framing
from tests.reference import framing as reference

patient = settings(deadline=None, max_examples=200)  # the first example may have to compile a kernel

CAUSES = {
    "ok": framing.N_OK,
    "crc": framing.N_BAD_CRC,
    "cobs": framing.N_BAD_COBS,
    "long": framing.N_TOO_LONG,
    "short": framing.N_TOO_SHORT,
    "version": framing.N_BAD_VERSION,
}
bodies = st.binary(max_size=1024) | st.binary(max_size=600).map(lambda b: bytes(x & 1 for x in b))


def array(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.uint8)


def encode(body: bytes) -> bytes:
    out = np.empty(len(body) + len(body) // 254 + 2, np.uint8)
    return out[: framing.cobs_encode(array(body), out)].tobytes()


class Reader:
    """Feeds the kernel read by read, as the source does."""

    def __init__(self, sample_bytes: dict[int, int] | None = None) -> None:
        self.sample_bytes = np.zeros(256, np.int64)
        for stream, size in (sample_bytes or {}).items():
            self.sample_bytes[stream] = size
        self.counts = np.zeros(framing.COUNTS, np.int64)
        self.tail, self.skipping = b"", False

    def read(self, data: bytes) -> tuple[np.ndarray, np.ndarray]:
        data = self.tail + data
        out = np.empty(len(data), np.uint8)
        frames = np.zeros(len(data) // framing.MIN_WIRE + 1, framing.FRAME)
        found, consumed, self.skipping = framing.deframe(
            array(data), self.skipping, self.sample_bytes, out, frames, self.counts
        )
        self.tail = data[consumed:]
        assert len(self.tail) <= framing.MAX_ENCODED
        return frames[:found], out

    def read_bodies(self, data: bytes) -> list[bytes]:
        frames, out = self.read(data)
        return [out[f["start"] - 12 : f["start"] + f["length"] + 4].tobytes() for f in frames]

    def causes(self) -> dict[str, int]:
        return {cause: int(self.counts[row]) for cause, row in CAUSES.items()}


@patient
@given(st.binary(max_size=300), st.integers(0, 20))
def test_crc_is_that_of_zlib(data: bytes, start: int) -> None:
    assert framing.crc32(array(data), min(start, len(data)), len(data)) == zlib.crc32(data[start:])


@patient
@given(bodies)
def test_cobs_equals_the_reference_and_comes_back(body: bytes) -> None:
    code = encode(body)
    assert code == reference.cobs_encode(body) + b"\0"
    assert 0 not in code[:-1]
    assert len(code) <= framing.MAX_ENCODED + 1
    assert reference.cobs_decode(code[:-1]) == body


@pytest.mark.parametrize("length", [0, 1, 253, 254, 255, 507, 508, 509, 1024])
@pytest.mark.parametrize("end", [b"", b"\0", b"\0\0", b"\1"])
def test_cobs_at_the_block_limit(length: int, end: bytes) -> None:
    body = b"\7" * length + end
    assert encode(body) == reference.cobs_encode(body) + b"\0"


segments = st.one_of(
    st.binary(max_size=40),
    st.builds(reference.wire, st.integers(0, 255), st.binary(max_size=300), version=st.integers(0, 2)),
    st.binary(max_size=1012).map(lambda p: reference.wire(6, p)),
    st.integers(1000, 3000).map(lambda n: b"\x09" * n),
    st.integers(1020, 1035).map(lambda n: b"\x01" * n + b"\0"),
    st.just(b"\0"),
)


@patient
@given(st.lists(segments, max_size=12), st.lists(st.integers(0, 5000), max_size=6))
def test_any_bytes_in_any_split_are_read_as_the_reference_reads_them(
    parts: list[bytes], cuts: list[int]
) -> None:
    data = b"".join(parts)
    wanted, counts, tail = reference.deframe(data)
    reader = Reader()
    edges = [0, *sorted(min(c, len(data)) for c in cuts), len(data)]
    got = [body for a, b in itertools.pairwise(edges) for body in reader.read_bodies(data[a:b])]
    assert got == wanted
    assert reader.causes() == counts
    assert reader.tail == (b"" if len(tail) > framing.MAX_ENCODED else tail)


@patient
@given(st.binary(max_size=200), st.data())
def test_one_flipped_bit_never_passes(payload: bytes, data: st.DataObject) -> None:
    good = reference.wire(4, payload, seq=7)
    bit = data.draw(st.integers(0, 8 * (len(good) - 1) - 1))
    broken = bytearray(good)
    broken[bit // 8] ^= 1 << bit % 8
    reader = Reader()
    assert reader.read_bodies(bytes(broken) + good) == [reference.body(4, payload, seq=7)]


def test_header_fields_of_the_frequent_types() -> None:
    reader = Reader({3: 4})
    data = reference.wire(2, reference.samples_payload(3, 70000, 2**32 - 5, 1000, [[1, 2]] * 5, 2), seq=9)
    data += reference.wire(3, np.array([77, 88, 99], "<u4").tobytes(), seq=10, prev_tx_done_us=1234)
    data += reference.wire(5, b"", seq=11, prev_tx_done_us=4321)
    frames, _ = reader.read(data)
    first, second, third = frames
    assert (first["type"], first["stream"], first["n"], first["mode"], first["bad"]) == (2, 3, 5, 0, 0)
    assert (first["index"], first["t_us"], first["seq"], first["has_prev"]) == (70000, 2**32 - 5, 9, 0)
    assert (second["index"], second["t2_us"], second["t_us"]) == (77, 88, 99)
    assert (second["has_prev"], second["prev_tx_done_us"], second["end"]) == (1, 1234, third["end"] - 18)
    assert (third["t_us"], third["end"]) == (4321, len(data))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        reference.samples_payload(4, 0, 0, 1000, [[1, 2]], 2),  # unknown stream
        reference.samples_payload(3, 0, 0, 1000, [], 2),  # no samples
        reference.samples_payload(3, 0, 0, 1000, [[1, 2, 3]], 2),  # one channel too many
        reference.samples_payload(3, 0, 0, [1, 2], [[1, 2], [3, 4]], 2),  # one delta too many
        b"\x03\x01\x02\x00" + bytes(8 + 4),  # mode 2
    ],
)
def test_samples_that_contradict_themselves_are_marked(payload: bytes) -> None:
    reader = Reader({3: 4})
    frames, _ = reader.read(reference.wire(2, payload))
    assert frames["bad"].tolist() == [1]
    assert reader.counts[framing.N_BAD_FIELDS] == 1


@patient
@given(
    st.sampled_from([(2, np.int16), (3, np.int32), (4, np.int32), (4, np.float32)]),
    st.integers(1, 12),
    st.lists(st.tuples(st.integers(1, 12), st.booleans()), min_size=1, max_size=5),
    st.integers(0, 2**32 - 1),
)
def test_unpack_equals_what_was_packed(
    kind: tuple[int, type], channels: int, batches: list[tuple[int, bool]], seed: int
) -> None:
    width, dtype = kind
    rng = np.random.default_rng(seed)
    low, high = -(2 ** (8 * width - 1)), 2 ** (8 * width - 1)
    wire, rows, ticks = b"", [], []
    for n, uniform in batches:
        batch = rng.integers(low, high, (n, channels)).tolist()
        deltas = rng.integers(0, 65536, n - 1).tolist()
        step = int(rng.integers(0, 65536))
        payload = reference.samples_payload(1, 0, 0, step if uniform else deltas, batch, width)
        wire += reference.wire(2, payload)
        rows += batch
        ticks += np.cumsum([0, *([step] * (n - 1) if uniform else deltas)]).tolist()
    reader = Reader({1: width * channels})
    frames, bodies = reader.read(wire)
    assert not frames["bad"].any()
    base = rng.integers(0, 2**50, len(frames))
    values = np.empty((len(rows), channels), dtype)
    out = np.empty(len(rows), np.int64)
    bits = values.view(np.int32) if dtype is np.float32 else values
    framing.unpack_samples(bodies, frames, np.arange(len(frames)), base, width, out, values.view(np.int16))
    assert np.array_equal(bits, np.array(rows, np.int64).astype(bits.dtype))
    assert np.array_equal(out, np.array(ticks) + np.repeat(base, [n for n, _ in batches]))
