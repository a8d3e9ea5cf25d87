"""Reading from a medium that cannot read all of its blocks."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence

from edgecap.spool.files import File

BLOCK_BYTES = 4096
"""What is given up around a place that the medium cannot read."""
_MEDIUM = (errno.EIO, errno.EILSEQ, errno.ENODATA, errno.EUCLEAN, errno.EREMOTEIO)


class PatchedFile:
    """A file, only read, whose unreadable blocks read as zeros, which no record's checksum accepts.

    Attributes:
        lost: Start and length of every block that the medium could not read.
    """

    def __init__(self, file: File) -> None:
        self._file = file
        self.lost: dict[int, int] = {}

    def read_at(self, offset: int, n: int) -> bytes:
        try:
            return self._file.read_at(offset, n)
        except OSError as error:
            if error.errno not in _MEDIUM:
                raise
        end = min(offset + n, self._file.size())
        return b"".join(self._read_block(start, end) for start in _blocks(offset, end))

    def _read_block(self, start: int, end: int) -> bytes:
        n = min(BLOCK_BYTES - start % BLOCK_BYTES, end - start)
        try:
            return self._file.read_at(start, n)
        except OSError as error:
            if error.errno not in _MEDIUM:
                raise
            self.lost[start - start % BLOCK_BYTES] = BLOCK_BYTES
            return bytes(n)

    def write_at(self, offset: int, parts: Sequence[bytes]) -> None:
        raise OSError(errno.EROFS, "it is only read")

    def size(self) -> int:
        return self._file.size()

    def truncate(self, size: int) -> None:
        raise OSError(errno.EROFS, "it is only read")

    def sync(self) -> None:
        self._file.sync()

    def close(self) -> None:
        self._file.close()


def _blocks(offset: int, end: int) -> Iterator[int]:
    while offset < end:
        yield offset
        offset += BLOCK_BYTES - offset % BLOCK_BYTES
