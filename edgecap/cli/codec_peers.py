"""Other lossless codecs, as well as each can be used on small chunks of sensor samples."""

from __future__ import annotations

import importlib
import importlib.util
import io
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Peer:
    """A codec: `encode` gives what `decode` needs, and the bytes that count for it."""

    name: str
    encode: Callable[[Array], tuple[Any, int]]
    decode: Callable[[Any, tuple[int, ...]], Array]


def installed_peers(dtype: np.dtype[Any]) -> list[Peer]:
    """The peers that are installed and can hold samples of this type, (n, c)."""
    makers = (
        ("pcodec", _pcodec),
        ("soundfile", _flac),
        ("imagecodecs", _aec),
        ("blosc2", _blosc),
        ("zstandard", _zstd),
    )
    found = [make(dtype) for module, make in makers if importlib.util.find_spec(module)]
    return [peer for peer in found if peer is not None]


def _pcodec(dtype: np.dtype[Any]) -> Peer | None:
    pco: Any = importlib.import_module("pcodec")
    wrapped: Any = importlib.import_module("pcodec.wrapped")
    config = pco.ChunkConfig(compression_level=12)

    def encode(chunk: Array) -> tuple[Any, int]:
        parts = []
        for column in np.ascontiguousarray(chunk.T):
            file = wrapped.FileCompressor()
            compressor = file.chunk_compressor(column, config)
            pages = [compressor.write_page(i) for i in range(len(compressor.n_per_page()))]
            parts.append((file.write_header(), compressor.write_meta(), pages, compressor.n_per_page()))
        # The header of pcodec's wrapped format would be written once per file.
        return parts, sum(len(meta) + sum(map(len, pages)) for _, meta, pages, _ in parts)

    def decode(parts: Any, shape: tuple[int, ...]) -> Array:
        out = np.empty((shape[1], shape[0]), dtype)
        for column, (header, meta, pages, counts) in zip(out, parts, strict=True):
            file, _ = wrapped.FileDecompressor.new(header)
            chunk, _ = file.chunk_decompressor(meta, f"{dtype.kind}{8 * dtype.itemsize}")
            at = 0
            for page, count in zip(pages, counts, strict=True):
                chunk.read_page_into(page, count, column[at : at + count])
                at += count
        return out.T

    return Peer("pcodec, level 12", encode, decode)


def _flac(dtype: np.dtype[Any]) -> Peer | None:
    soundfile: Any = importlib.import_module("soundfile")
    if dtype != np.int16:
        return None

    def encode(chunk: Array) -> tuple[Any, int]:
        files, frames = [], 0
        for first in range(0, chunk.shape[1], 8):
            target = io.BytesIO()
            part = np.ascontiguousarray(chunk[:, first : first + 8])
            soundfile.write(target, part, 44100, format="FLAC", subtype="PCM_16", compression_level=1.0)
            data = target.getvalue()
            at, last = 4, False
            while not last:
                last = bool(data[at] & 128)
                at += 4 + int.from_bytes(data[at + 1 : at + 4], "big")
            files.append(data)
            frames += len(data) - at
        return files, frames

    def decode(files: Any, shape: tuple[int, ...]) -> Array:
        parts = [soundfile.read(io.BytesIO(data), dtype="int16", always_2d=True)[0] for data in files]
        return np.ascontiguousarray(np.concatenate(parts, axis=1)).reshape(shape)

    return Peer("FLAC, level 8, frames only", encode, decode)


def _aec(dtype: np.dtype[Any]) -> Peer | None:
    imagecodecs: Any = importlib.import_module("imagecodecs")
    if dtype.kind not in "iu" or dtype.itemsize > 4:
        return None
    options = {"bitspersample": 8 * dtype.itemsize, "flags": 8 | (dtype.kind == "i"), "rsi": 128}

    def encode(chunk: Array) -> tuple[Any, int]:
        parts = []
        for column in np.ascontiguousarray(chunk.T):
            tries = [(size, imagecodecs.aec_encode(column, blocksize=size, **options)) for size in (16, 32)]
            parts.append(min(tries, key=lambda found: len(found[1])))
        return parts, sum(len(data) for _, data in parts)

    def decode(parts: Any, shape: tuple[int, ...]) -> Array:
        out = np.empty((shape[1], shape[0]), dtype)
        for column, (size, data) in zip(out, parts, strict=True):
            room = column.nbytes + 64 * dtype.itemsize  # it writes whole blocks, more than the column has
            raw = imagecodecs.aec_decode(data, blocksize=size, out=room, **options)
            column[:] = np.frombuffer(raw, dtype)[: shape[0]]
        return out.T

    return Peer("AEC (CCSDS 121)", encode, decode)


def _differences(chunk: Array) -> Array:
    bits = np.ascontiguousarray(chunk.T).view(f"u{chunk.dtype.itemsize}")
    return np.diff(bits, axis=1, prepend=bits[:, :1] * 0)


def _sums(steps: Array, dtype: np.dtype[Any]) -> Array:
    return np.cumsum(steps, axis=1, dtype=steps.dtype).view(dtype).T


def _blosc(dtype: np.dtype[Any]) -> Peer | None:
    logging.getLogger("numexpr").setLevel(logging.WARNING)  # imported by blosc2, and talkative
    blosc2: Any = importlib.import_module("blosc2")
    unsigned = f"u{dtype.itemsize}"

    def encode(chunk: Array) -> tuple[Any, int]:
        steps = _differences(chunk)
        data = blosc2.compress(
            steps, dtype.itemsize, clevel=9, filter=blosc2.Filter.BITSHUFFLE, codec=blosc2.Codec.ZSTD
        )
        return data, len(data)

    def decode(data: Any, shape: tuple[int, ...]) -> Array:
        steps = np.frombuffer(blosc2.decompress(data), unsigned).reshape(shape[1], shape[0])
        return _sums(steps, dtype)

    return Peer("blosc2 bitshuffle + zstd", encode, decode)


def _zstd(dtype: np.dtype[Any]) -> Peer | None:
    zstandard: Any = importlib.import_module("zstandard")
    compressor = zstandard.ZstdCompressor(level=19, write_content_size=False)
    decompressor = zstandard.ZstdDecompressor()
    unsigned = f"u{dtype.itemsize}"

    def encode(chunk: Array) -> tuple[Any, int]:
        steps = _differences(chunk)
        data = compressor.compress(steps.view(np.uint8).reshape(-1, dtype.itemsize).T.tobytes())
        return data, len(data)

    def decode(data: Any, shape: tuple[int, ...]) -> Array:
        size = shape[0] * shape[1] * dtype.itemsize
        raw = np.frombuffer(decompressor.decompress(data, max_output_size=size), np.uint8)
        steps = np.ascontiguousarray(raw.reshape(dtype.itemsize, -1).T).view(unsigned)
        return _sums(steps.reshape(shape[1], shape[0]), dtype)

    return Peer("zstd-19, delta + shuffle", encode, decode)
