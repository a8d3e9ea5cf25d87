"""Serial framing: COBS and CRC-32 over whole read buffers, and SAMPLES payloads into arrays.

Source: hw/PROTOCOL.md for every layout here; COBS: Cheshire and Baker, "Consistent Overhead Byte
Stuffing", IEEE/ACM Transactions on Networking 7(2), 1999; CRC-32: IEEE 802.3, computed eight bytes at
a time ("slicing by 8": Kounavis and Berry, ISCC 2005).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecap.kernels.compile import kernel, part

PROTOCOL_VERSION = 1
HEADER_BYTES = 12
CRC_BYTES = 4
MIN_BODY = HEADER_BYTES + CRC_BYTES
MAX_BODY = 1024
MAX_ENCODED = MAX_BODY + MAX_BODY // 254 + 1
"""Longest COBS code of a body, without its delimiter."""
MIN_WIRE = MIN_BODY + 2
"""Shortest valid frame on the wire, with its delimiter: bounds how many fit in a buffer."""

TYPE_HELLO, TYPE_SAMPLES, TYPE_PONG, TYPE_EVENT, TYPE_ACK, TYPE_LOG = 1, 2, 3, 4, 5, 6
TYPE_PING, TYPE_COMMAND = 0x81, 0x82

N_OK, N_BAD_CRC, N_BAD_COBS, N_TOO_LONG, N_TOO_SHORT, N_BAD_VERSION, N_BAD_FIELDS, LAST_BAD_VERSION = range(8)
"""Rows of the `counts` array; the last is no count but the version that was refused most recently."""
COUNTS = 8
Counts = NDArray[np.int64]

FRAME = np.dtype(
    [
        ("arrival_ns", "i8"),  # filled by the reader, not by the kernel
        ("end", "i4"),  # offset in the read buffer just past the delimiter
        ("start", "i4"),  # offset of the payload in the bodies buffer
        ("length", "i4"),  # bytes of payload
        ("seq", "u4"),
        ("prev_tx_done_us", "u4"),
        ("t_us", "u4"),  # SAMPLES t0, PONG t3, EVENT and LOG t; else prev_tx_done_us
        ("index", "u4"),  # SAMPLES first sample, PONG ping id; else 0
        ("t2_us", "u4"),  # PONG only
        ("type", "u1"),
        ("has_prev", "u1"),
        ("stream", "u1"),  # SAMPLES and EVENT
        ("n", "u1"),  # SAMPLES
        ("mode", "u1"),  # SAMPLES
        ("bad", "u1"),  # 1: the fields contradict the length or the descriptor; payload unusable
    ],
    align=True,
)
"""One row per valid body: its header and the fixed fields of the frequent types."""

SAMPLES_FIXED = 12
PONG_FIXED = 12


def _crc_tables() -> NDArray[np.uint32]:
    """Tables for eight bytes at a time: row k advances a byte's remainder by k further zero bytes."""
    table = np.zeros((8, 256), np.uint32)
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (0xEDB88320 if value & 1 else 0)
        table[0, byte] = value
    for k in range(1, 8):
        previous = table[k - 1]
        table[k] = (previous >> np.uint32(8)) ^ table[0][previous & np.uint32(255)]
    return table


_T = _crc_tables()
_T0, _T1, _T2, _T3, _T4, _T5, _T6, _T7 = (row.copy() for row in _T.astype(np.int64))
_NONE: Any = np.int64(0)
"""numpy's: a function is compiled anew for each Python constant that it is given."""


@part
def _wide(value: Any) -> int:
    """As a signed 64-bit integer, so that shifting and subtracting stay exact."""
    return np.int64(value)  # type: ignore[return-value]  # what a Python int is inside a kernel


@part
def _u32(data: NDArray[np.uint8], at: int) -> int:
    return _wide(data[at]) | _wide(data[at + 1]) << 8 | _wide(data[at + 2]) << 16 | _wide(data[at + 3]) << 24


@kernel
def crc32(data: NDArray[np.uint8], start: int, stop: int) -> int:
    """CRC-32 (IEEE 802.3, as zlib.crc32) of `data[start:stop]`, a (n,) uint8 array."""
    crc = 0xFFFFFFFF
    i = start
    while stop - i >= 8:
        low = crc ^ _u32(data, i)
        crc = (
            _T7[low & 255]
            ^ _T6[(low >> 8) & 255]
            ^ _T5[(low >> 16) & 255]
            ^ _T4[low >> 24]
            ^ _T3[data[i + 4]]
            ^ _T2[data[i + 5]]
            ^ _T1[data[i + 6]]
            ^ _T0[data[i + 7]]
        )
        i += 8
    while i < stop:
        crc = _T0[(crc ^ data[i]) & 255] ^ (crc >> 8)
        i += 1
    return crc ^ 0xFFFFFFFF


@kernel
def cobs_encode(body: NDArray[np.uint8], out: NDArray[np.uint8]) -> int:
    """Encode one body and end it with the delimiter.

    Args:
        body: (n,) uint8.
        out: (≥ n + n // 254 + 2,) uint8, overwritten.

    Returns:
        Bytes written, delimiter included.
    """
    code_at = 0
    code = 1
    w = 1
    n = body.size
    for i in range(n):
        byte = body[i]
        if byte != 0:
            out[w] = byte
            w += 1
            code += 1
        if byte == 0 or (code == 255 and i + 1 < n):
            out[code_at] = code
            code_at = w
            code = 1
            w += 1
    out[code_at] = code
    out[w] = 0
    return w + 1


@part
def _cobs_decode(
    data: NDArray[np.uint8], start: int, out: NDArray[np.uint8], at: int
) -> tuple[int, int, bool]:
    """Decode from `data[start]` to the next zero, to `out[at:]`.

    Returns:
        Length, index of the zero (or `data.size`), and whether the last code ended just there.
    """
    w = at
    i = start
    n = data.size
    joined = True
    while i < n:
        code = _wide(data[i])
        if code == 0:
            return w - at, i, True
        if not joined:
            out[w] = 0
            w += 1
        joined = code == 255
        end = min(i + code, n)
        i += 1
        while i < end:
            byte = data[i]
            if byte == 0:
                return w - at, i, False
            out[w] = byte
            w += 1
            i += 1
    return w - at, n, False


@kernel
def deframe(
    data: NDArray[np.uint8],
    skipping: bool,
    sample_bytes: NDArray[np.int64],
    bodies: NDArray[np.uint8],
    frames: NDArray[np.void],
    counts: NDArray[np.int64],
) -> tuple[int, int, bool]:
    """Find, check and index every complete frame of a read buffer; resynchronises at each delimiter.

    How the bytes were split into reads never changes what is found or counted.

    Args:
        data: (n,) uint8, what is unconsumed from before followed by what was just read.
        skipping: Whether `data` begins inside a frame already counted as too long.
        sample_bytes: (256,) int64, bytes of one sample of each stream number; 0 for a stream unknown.
        bodies: (≥ n,) uint8, overwritten with the decoded bodies.
        frames: (≥ n // MIN_WIRE + 1,) FRAME rows, overwritten; `arrival_ns` is left alone.
        counts: (COUNTS,) int64, incremented by cause.

    Returns:
        Rows written, bytes consumed (the rest is a partial frame), and `skipping` for the next call.
    """
    found = used = start = _NONE
    n = data.size
    while True:
        if skipping:
            stop = start
            while stop < n and data[stop] != 0:
                stop += 1
            length, agrees = _NONE, False
        else:
            length, stop, agrees = _cobs_decode(data, start, bodies, used)
        if stop == n:
            if skipping:
                return found, n, True
            if n - start > MAX_ENCODED:
                counts[N_TOO_LONG] += 1
                return found, n, True
            return found, start, False
        first = start
        start = stop + 1
        if skipping:
            skipping = False
            continue
        if stop == first:
            continue  # an empty frame only separates
        if stop - first > MAX_ENCODED:
            counts[N_TOO_LONG] += 1
            continue
        if not agrees:
            counts[N_BAD_COBS] += 1
            continue
        if length > MAX_BODY:
            counts[N_TOO_LONG] += 1
            continue
        if length < MIN_BODY:
            counts[N_TOO_SHORT] += 1
            continue
        end = used + length - CRC_BYTES
        if crc32(bodies, used, end) != _u32(bodies, end):
            counts[N_BAD_CRC] += 1
            continue
        if bodies[used] != PROTOCOL_VERSION:
            counts[N_BAD_VERSION] += 1
            counts[LAST_BAD_VERSION] = bodies[used]
            continue
        counts[N_OK] += 1
        _describe(bodies, used, end, sample_bytes, frames, found)
        counts[N_BAD_FIELDS] += frames[found]["bad"]
        frames[found]["end"] = start
        used += length
        found += 1


@part
def _describe(
    bodies: NDArray[np.uint8],
    start: int,
    end: int,
    sample_bytes: NDArray[np.int64],
    frames: NDArray[np.void],
    row: int,
) -> None:
    """Fill one FRAME row from the body at `bodies[start:end]` (CRC excluded)."""
    kind = bodies[start + 1]
    payload = start + HEADER_BYTES
    length = end - payload
    previous_us = _u32(bodies, start + 8)
    t_us = previous_us
    index = 0
    t2_us = 0
    stream = 0
    n = 0
    mode = 0
    bad = False
    if kind == TYPE_SAMPLES:
        bad = length < SAMPLES_FIXED
        if not bad:
            stream = bodies[payload]
            n = bodies[payload + 1]
            mode = bodies[payload + 2]
            index = _u32(bodies, payload + 4)
            t_us = _u32(bodies, payload + 8)
            times = 2 if mode == 0 else 2 * (n - 1)
            wanted = SAMPLES_FIXED + times + n * sample_bytes[stream]
            bad = n < 1 or mode > 1 or sample_bytes[stream] == 0 or length != wanted
    elif kind == TYPE_PONG:
        bad = length < PONG_FIXED
        if not bad:
            index = _u32(bodies, payload)
            t2_us = _u32(bodies, payload + 4)
            t_us = _u32(bodies, payload + 8)
    elif kind == TYPE_EVENT:
        bad = length < 11
        if not bad:
            stream = bodies[payload + 1]
            t_us = _u32(bodies, payload + 2)
    elif kind == TYPE_LOG:
        bad = length < 6
        if not bad:
            t_us = _u32(bodies, payload + 1)
    frame = frames[row]
    frame["start"] = payload
    frame["length"] = length
    frame["seq"] = _u32(bodies, start + 4)
    frame["prev_tx_done_us"] = previous_us
    frame["t_us"] = t_us
    frame["index"] = index
    frame["t2_us"] = t2_us
    frame["type"] = kind
    frame["has_prev"] = bodies[start + 2] & 1
    frame["stream"] = stream
    frame["n"] = n
    frame["mode"] = mode
    frame["bad"] = bad


@kernel
def unpack_samples(
    bodies: NDArray[np.uint8],
    frames: NDArray[np.void],
    rows: NDArray[np.int64],
    ticks0: NDArray[np.int64],
    width: int,
    ticks: NDArray[np.int64],
    halves: NDArray[np.int16],
) -> None:
    """Unpack SAMPLES frames of one stream, one after the other, into arrays.

    Args:
        bodies: As written by `deframe`.
        frames: FRAME rows as written by `deframe`; those named must not be `bad`.
        rows: (m,) int64, which of `frames`, in order.
        ticks0: (m,) int64, unwrapped tick of each frame's first sample.
        width: Bytes of one value on the wire: 2, 3 (sign-extended) or 4.
        ticks: (total samples,) int64, overwritten.
        halves: (total samples, c) int16 if `width` is 2, overwritten; else the halves of (total samples, c)
            int32 or float32, (total samples, 2 c), low ones first. One type serves all.
    """
    columns = halves.shape[1]
    at = 0
    for k in range(rows.size):
        frame = frames[rows[k]]
        n = _wide(frame["n"])
        cursor = _wide(frame["start"]) + SAMPLES_FIXED
        tick = ticks0[k]
        ticks[at] = tick
        uniform = frame["mode"] == 0
        for i in range(1, n):
            tick += _wide(bodies[cursor]) | _wide(bodies[cursor + 1]) << 8
            ticks[at + i] = tick
            if not uniform:
                cursor += 2
        if uniform:
            cursor += 2
        for i in range(at, at + n):
            if width == 2:
                for c in range(columns):
                    raw = _wide(bodies[cursor]) | _wide(bodies[cursor + 1]) << 8
                    halves[i, c] = raw - ((raw & 0x8000) << 1)
                    cursor += 2
                continue
            for c in range(0, columns, 2):
                low = _wide(bodies[cursor]) | _wide(bodies[cursor + 1]) << 8
                if width == 3:
                    high = _wide(bodies[cursor + 2])
                    high -= (high & 0x80) << 1
                else:
                    high = _wide(bodies[cursor + 2]) | _wide(bodies[cursor + 3]) << 8
                    high -= (high & 0x8000) << 1
                halves[i, c] = low - ((low & 0x8000) << 1)
                halves[i, c + 1] = high
                cursor += width
        at += n


def warm_up() -> None:
    """Compile each kernel for the dtypes the daemon uses."""
    out = np.zeros(64, np.uint8)
    body = np.frombuffer(bytes(MIN_BODY), np.uint8)  # read-only, as a frame to be sent is: a type of its own
    size = cobs_encode(body, out)
    frames = np.zeros(4, FRAME)
    counts = np.zeros(COUNTS, np.int64)
    deframe(out[:size], False, np.zeros(256, np.int64), np.zeros(64, np.uint8), frames, counts)
    rows = np.zeros(0, np.int64)
    unpack_samples(out, frames, rows, rows, 2, np.zeros(0, np.int64), np.zeros((0, 1), np.int16))
