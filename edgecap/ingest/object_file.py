"""Reading stored objects in blocks, with a bounded cache, as if they were files."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Sequence

from edgecap.ingest.bucket import Bucket

BLOCK_BYTES = 128 << 10
CACHE_BYTES = 64 << 20


class BlockCache:
    """The blocks of objects read last; may be used by several threads."""

    def __init__(self, most_bytes: int = CACHE_BYTES) -> None:
        self._most_bytes, self._bytes = most_bytes, 0
        self._blocks: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, name: str, number: int) -> bytes | None:
        with self._lock:
            data = self._blocks.get((name, number))
            if data is not None:
                self._blocks.move_to_end((name, number))
            return data

    def put(self, name: str, number: int, data: bytes) -> None:
        with self._lock:
            old = self._blocks.pop((name, number), b"")
            self._blocks[name, number] = data
            self._bytes += len(data) - len(old)
            while self._bytes > self._most_bytes and len(self._blocks) > 1:
                _, dropped = self._blocks.popitem(last=False)
                self._bytes -= len(dropped)


class ObjectFile:
    """An object that does not change, read through a cache; has nothing to close.

    Args:
        bucket: Where it is.
        name: Its key.
        size: Its length.
        cache: Shared with other objects.
    """

    def __init__(self, bucket: Bucket, name: str, size: int, cache: BlockCache) -> None:
        self._bucket, self._name, self._size, self._cache = bucket, name, size, cache

    def size(self) -> int:
        return self._size

    def read_at(self, offset: int, n: int) -> bytes:
        end = min(offset + n, self._size)
        if offset >= end:
            return b""
        first, last = offset // BLOCK_BYTES, (end - 1) // BLOCK_BYTES
        blocks = [self._cache.get(self._name, number) for number in range(first, last + 1)]
        if None in blocks:
            # One request for everything from the first block that is missing to the last.
            missing = [first + k for k, block in enumerate(blocks) if block is None]
            start, stop = missing[0] * BLOCK_BYTES, min((missing[-1] + 1) * BLOCK_BYTES, self._size)
            data = self._bucket.get(self._name, start, stop)
            for number in range(missing[0], missing[-1] + 1):
                at = number * BLOCK_BYTES - start
                blocks[number - first] = data[at : at + BLOCK_BYTES]
                self._cache.put(self._name, number, data[at : at + BLOCK_BYTES])
        start = first * BLOCK_BYTES
        return b"".join(block or b"" for block in blocks)[offset - start : end - start]

    def close(self) -> None:
        """Nothing is held."""

    def write_at(self, offset: int, parts: Sequence[bytes]) -> None:
        raise io.UnsupportedOperation("stored objects are not written to")

    def truncate(self, size: int) -> None:
        raise io.UnsupportedOperation("stored objects are not cut")

    def sync(self) -> None:
        """Always true of an object."""
