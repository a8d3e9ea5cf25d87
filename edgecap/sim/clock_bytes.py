"""A simulated exchange as the bytes of the serial line, through the deframer into the clock."""

from __future__ import annotations

import struct
import zlib

import numpy as np

from edgecap.kernels import align_state as at
from edgecap.kernels import framing
from edgecap.sim.clock import LinkLog
from edgecap.source.deframer import Deframer
from edgecap.timeline.device_clock import KIND_PONG, KIND_SAMPLES, DeviceClock
from edgecap.timeline.replay import Replay

_STREAM = 0
_CHANNELS = 9
_HAS_PREV = 1


def frame_bytes(log: LinkLog, i: int, ping_id: int) -> bytes:
    """Entry `i` of the log as the device sends it: one sample of nine int16, or a PONG."""
    pong = int(log.kind[i]) == KIND_PONG
    flags = _HAS_PREV if log.has_prev[i] else 0
    kind = framing.TYPE_PONG if pong else framing.TYPE_SAMPLES
    body = struct.pack(
        "<BBBBII", framing.PROTOCOL_VERSION, kind, flags, 0, int(log.seq[i]), int(log.prev_tx_done_us[i])
    )
    t_us = int(log.t_us[i])
    if pong:
        body += struct.pack("<III", ping_id, int(log.t2_us[i]), t_us)
    else:
        values = [(t_us >> k) % 65536 - 32768 for k in range(_CHANNELS)]
        body += struct.pack("<BBBBIIH", _STREAM, 1, 0, 0, i, t_us, 0) + struct.pack("<9h", *values)
    body += struct.pack("<I", zlib.crc32(body))
    out = np.empty(framing.MAX_ENCODED + 1, np.uint8)
    return out[: framing.cobs_encode(np.frombuffer(body, np.uint8), out)].tobytes()


def replay_bytes(log: LinkLog, clock: DeviceClock) -> Replay:
    """What the clock publishes when every read of the log comes in as bytes, pings by their ids.

    A pong whose ping has been answered already, or is too old, is refused by the clock's ping book.
    """
    deframer = Deframer()
    deframer.sample_bytes[_STREAM] = 2 * _CHANNELS
    ids: dict[int, int] = {}
    published = []
    arrivals = []
    reads = 0
    first = 0
    n = len(log.kind)
    for i in range(1, n + 1):
        if i < n and log.arrival_ns[i] == log.arrival_ns[first]:
            continue
        line = bytearray()
        for k in range(first, i):
            ping_id = 0
            if log.kind[k] == KIND_PONG:
                sent_ns = int(log.ping_sent_ns[k])
                if sent_ns not in ids:
                    ids[sent_ns] = clock.new_ping(sent_ns)
                ping_id = ids[sent_ns]
            line += frame_bytes(log, k, ping_id)
        for start in range(0, len(line), 32768):
            part = line[start : start + 32768]
            deframer.space()[: len(part)] = part
            deframer.filled(len(part), int(log.arrival_ns[first]))
            published.append(_take(deframer, clock, int(log.boot[first])))
            arrivals.append(np.full(len(published[-1]), log.arrival_ns[first]))
        reads += 1
        first = i
    out = np.concatenate(published) if published else np.zeros((0, at.OUT_WIDTH), np.int64)
    return Replay(
        t_ns=out[:, at.OUT_T_NS],
        u_ns=out[:, at.OUT_U_NS],
        epoch=out[:, at.OUT_EPOCH].astype(np.int32),
        locked=out[:, at.OUT_LOCKED].astype(np.uint8),
        arrival_ns=np.concatenate(arrivals) if arrivals else np.zeros(0, np.int64),
        reads=reads,
        clock=clock,
    )


def _take(deframer: Deframer, clock: DeviceClock, boot: int) -> at.I64:
    """Feed the frames of one read; what was published for its samples."""
    frames = deframer.take().frames
    if not len(frames):
        return np.zeros((0, at.OUT_WIDTH), np.int64)
    kind = np.where(frames["type"] == framing.TYPE_PONG, KIND_PONG, KIND_SAMPLES)
    clock.feed(
        kind,
        frames["arrival_ns"],
        frames["seq"],
        frames["t_us"],
        frames["prev_tx_done_us"],
        frames["has_prev"],
        frames["index"],
        frames["t2_us"],
        boot,
    )
    samples: at.I64 = clock.published[kind == KIND_SAMPLES]
    return samples
