"""Read GoPro's GPMF telemetry out of an mp4: the oracle for the GoPro recordings and their scales."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np

_NUMPY = {"s": ">i2", "S": ">u2", "l": ">i4", "L": ">u4", "f": ">f4", "b": "i1", "B": "u1", "J": ">u8"}


@dataclass
class GpmfStream:
    """All payloads of one sensor of the track, in order."""

    key: str
    name: str = ""
    units: str = ""
    scales: list[float] = field(default_factory=list)
    samples: list[np.ndarray] = field(default_factory=list)
    payload_s: list[tuple[float, float]] = field(default_factory=list)
    """Start and duration of the packet that each payload came in."""
    total: int = 0
    """TSMP: samples so far, as the camera counts."""

    @property
    def values(self) -> np.ndarray:
        return np.concatenate(self.samples)


def _items(data: bytes) -> list[tuple[str, str, int, int, bytes]]:
    """Split KLV data into (key, type, struct bytes, repeats, value); lengths are padded to 4 bytes."""
    out = []
    at = 0
    while at + 8 <= len(data):
        key, kind, size, repeat = struct.unpack_from(">4scBH", data, at)
        n = size * repeat
        if key == b"\0\0\0\0":
            break
        out.append((key.decode("latin-1"), kind.decode("latin-1"), size, repeat, data[at + 8 : at + 8 + n]))
        at += 8 + (n + 3) // 4 * 4
    return out


def _numbers(kind: str, size: int, repeat: int, value: bytes) -> np.ndarray:
    dtype = np.dtype(_NUMPY[kind])
    return np.frombuffer(value, dtype).reshape(repeat, size // dtype.itemsize)


def _take_stream(data: bytes, start_s: float, duration_s: float, into: dict[str, GpmfStream]) -> None:
    items = _items(data)
    key, kind, size, repeat, value = items[-1]  # the data always closes its STRM
    stream = into.setdefault(key, GpmfStream(key))
    if kind not in _NUMPY:
        return
    for other, other_kind, other_size, other_repeat, other_value in items[:-1]:
        if other == "STNM":
            stream.name = other_value.decode("latin-1").rstrip("\0")
        elif other == "SIUN":
            stream.units = other_value.decode("latin-1").rstrip("\0")
        elif other == "SCAL":
            scales = _numbers(other_kind, other_size, other_repeat, other_value).ravel()
            stream.scales = [float(s) for s in scales]
        elif other == "TSMP":
            stream.total = int(_numbers(other_kind, other_size, other_repeat, other_value)[0, 0])
    stream.samples.append(_numbers(kind, size, repeat, value))
    stream.payload_s.append((start_s, duration_s))


def read_gpmf(path: Path) -> dict[str, GpmfStream]:
    """Every sensor stream of the file's GPMF track, by its key (`ACCL`, `GYRO`, …).

    Source: github.com/gopro/gpmf-parser, README, "GPMF Key-Length-Value" (format facts only).
    """
    streams: dict[str, GpmfStream] = {}
    with av.open(str(path)) as container:
        track = next(s for s in container.streams if "GoPro MET" in s.metadata.get("handler_name", ""))
        for packet in container.demux(track):
            if packet.size == 0:
                continue
            assert packet.pts is not None
            assert packet.time_base is not None
            start_s = float(packet.pts * packet.time_base)
            duration_s = float((packet.duration or 0) * packet.time_base)
            for key, _, _, _, device in _items(bytes(packet)):
                if key != "DEVC":
                    continue
                for inner, _, _, _, data in _items(device):
                    if inner == "STRM":
                        _take_stream(data, start_s, duration_s, streams)
    return streams
