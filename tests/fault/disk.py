"""A file system in memory that loses power: what was not synced may be gone, half-written, or zeros."""

from __future__ import annotations

import errno
import os
import random
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

Write = tuple[str, int, bytes]
"""("write", offset, bytes) or ("truncate", size, b"")."""
Survivors = Callable[[list[Write]], list[Write]]
"""Which of a file's unsynced writes reached the medium, in which order."""
SECTOR_BYTES = 512


def scattered(source: random.Random) -> Survivors:
    """A drive's volatile cache: it writes sectors in any order, and those not yet written are lost."""

    def choose(writes: list[Write]) -> list[Write]:
        sectors: list[Write] = []
        for kind, offset, payload in writes:
            at = 0
            while at < len(payload):
                n = min(SECTOR_BYTES - (offset + at) % SECTOR_BYTES, len(payload) - at)
                sectors.append((kind, offset + at, payload[at : at + n]))
                at += n
            if kind == "truncate":
                sectors.append((kind, offset, payload))
        share = source.random()
        return source.sample(sectors, sum(source.random() < share for _ in sectors))

    return choose


class PowerCut(BaseException):
    """The power went out during this operation. Not an Exception: nothing may catch it and go on."""


class _Inode:
    def __init__(self) -> None:
        self.data = bytearray()
        self.durable = bytearray()
        self.writes: list[Write] = []
        """What happened since the last sync."""
        self.dropped: list[tuple[int, int]] = []
        """Ranges (offset, length) that a failed sync left in the page cache only, for ever."""


class SimDatabase(sqlite3.Connection):
    """An SQLite file that knows what of it is durable: what was committed under synchronous=FULL."""

    path: Path
    durable: dict[str, bytes]
    is_full = False

    def execute(self, sql: str, *parameters: object) -> sqlite3.Cursor:
        done = super().execute(sql, *parameters)  # type: ignore[arg-type]
        if sql.startswith("PRAGMA synchronous="):
            self.is_full = sql.endswith("FULL")
        elif sql == "COMMIT" and self.is_full:
            self.durable = {
                end: self._file(end).read_bytes() for end in ("", "-wal") if self._file(end).exists()
            }
        return done

    def forget(self) -> None:
        """Lose what is not durable."""
        self.close()
        for end in ("", "-wal", "-shm"):
            self._file(end).unlink(missing_ok=True)
            if end in self.durable:
                self._file(end).write_bytes(self.durable[end])

    def _file(self, end: str) -> Path:
        return self.path.with_name(self.path.name + end)


class SimDisk:
    """`Files` in memory. Operations are numbered; `fail` decides what befalls each.

    Args:
        database_dir: Where SQLite files really live.
        fail: Called with number and name of an operation before it happens; returns "" (go on), an
            errno name such as "ENOSPC" (it fails), or "cut" (power goes out during it).
        seed: Decides what survives a power cut.
    """

    def __init__(
        self,
        database_dir: Path,
        fail: Callable[[int, str], str] = lambda n, name: "",
        seed: int = 0,
    ) -> None:
        self.database_dir = database_dir
        self.fail = fail
        self.random = random.Random(seed)
        self.count = 0
        self.log: list[str] = []
        self.free = 1 << 40
        self.reads = 0
        self.unreadable: Callable[[str, int, int], bool] = lambda name, offset, n: False
        """Asked with name, offset and length before each read; if so, it fails with EIO."""
        self.lying_sync = False
        self.inodes: dict[Path, _Inode] = {}
        self.durable_names: dict[Path, _Inode] = {}
        self.dirs: set[Path] = {Path("/"), Path("/disk")}
        self.locked: set[Path] = set()
        self.databases: list[SimDatabase] = []

    def step(self, name: str, partial: Callable[[], None] | None = None) -> None:
        self.count += 1
        self.log.append(name)
        what = self.fail(self.count, name)
        if what == "cut":
            if partial is not None:
                partial()
            raise PowerCut(f"operation {self.count}: {name}")
        if what:
            code = getattr(errno, what)
            raise OSError(code, os.strerror(code))

    def unsynced(self) -> list[Write]:
        """Every write that a power cut may undo."""
        return [write for inode in dict.fromkeys(self.inodes.values()) for write in inode.writes]

    def crash(self, survivors: Survivors | None = None) -> None:
        """Leave what a power cut leaves; everything open is forgotten.

        Without `survivors` of each file's writes a prefix survives, the last one torn, and SQLite keeps what
        the kernel had of its files; with it the receipts, too, may lose what was not synced.
        """
        for inode in dict.fromkeys([*self.inodes.values(), *self.durable_names.values()]):
            if survivors is None:
                self._tear(inode)
            else:
                self._replay(inode, survivors(inode.writes))
        names = dict(self.durable_names)
        for path in set(self.inodes) | set(self.durable_names):
            # A name not synced may have reached the disk or not, in either direction.
            if self.inodes.get(path) is not self.durable_names.get(path) and self.random.random() < 0.5:
                if path in self.inodes:
                    names[path] = self.inodes[path]
                else:
                    names.pop(path)
        self.inodes, self.durable_names = dict(names), dict(names)
        self.locked.clear()
        for connection in self.databases:
            if survivors is not None and self.random.random() < 0.5:
                connection.forget()
            connection.close()
        self.databases.clear()
        self.fail = lambda n, name: ""

    def _tear(self, inode: _Inode) -> None:
        """Of the writes since the last sync a prefix survives, the last in part; the size may run ahead."""
        data = bytearray(inode.durable)
        kept = self.random.randint(0, len(inode.writes))
        for number, (kind, offset, payload) in enumerate(inode.writes[:kept]):
            if kind == "truncate":
                del data[offset:]
                continue
            part = payload
            if number == kept - 1:
                part = payload[: self.random.randint(0, len(payload))]
                if self.random.random() < 0.3:
                    # The length was written, the content not.
                    part += bytes(self.random.randint(0, len(payload) - len(part)))
            if len(data) < offset:
                data.extend(bytes(offset - len(data)))
            data[offset : offset + len(part)] = part
        inode.data, inode.durable, inode.writes = data, bytearray(data), []

    @staticmethod
    def _replay(inode: _Inode, writes: list[Write]) -> None:
        data = bytearray(inode.durable)
        for kind, offset, payload in writes:
            if kind == "truncate":
                del data[offset:]
                continue
            if len(data) < offset:
                data.extend(bytes(offset - len(data)))
            data[offset : offset + len(payload)] = payload
        inode.data, inode.durable, inode.writes = data, bytearray(data), []

    # The Files protocol.

    def create(self, path: Path) -> SimFile:
        self.step(f"create {path.name}")
        if path in self.inodes:
            raise FileExistsError(errno.EEXIST, "exists", str(path))
        if path.parent not in self.dirs:
            raise FileNotFoundError(errno.ENOENT, "no directory", str(path))
        self.inodes[path] = _Inode()
        return SimFile(self, path.name, self.inodes[path])

    def open(self, path: Path, *, write: bool = False) -> SimFile:
        if path not in self.inodes:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
        return SimFile(self, path.name, self.inodes[path])

    def rename(self, old: Path, new: Path) -> None:
        self.step(f"rename {old.name} {new.name}")
        self.inodes[new] = self.inodes.pop(old)

    def unlink(self, path: Path) -> None:
        self.step(f"unlink {path.name}")
        if path not in self.inodes:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
        del self.inodes[path]

    def make_dir(self, path: Path) -> None:
        if path in self.dirs:
            return
        self.step(f"make_dir {path.name}")
        if path.parent not in self.dirs:
            raise FileNotFoundError(errno.ENOENT, "no directory", str(path))
        self.dirs.add(path)

    def sync_dir(self, path: Path) -> None:
        self.step(f"sync_dir {path.name}")
        if self.lying_sync:
            return
        for name in [n for n in self.durable_names if n.parent == path]:
            del self.durable_names[name]
        self.durable_names.update({n: i for n, i in self.inodes.items() if n.parent == path})

    def names(self, path: Path) -> list[str]:
        return sorted(n.name for n in [*self.inodes, *self.dirs] if n.parent == path)

    def free_bytes(self, path: Path) -> int:
        return self.free

    def lock(self, path: Path, owner: str) -> Callable[[], None]:
        if path in self.locked:
            raise BlockingIOError(errno.EAGAIN, "locked")
        self.locked.add(path)
        return lambda: self.locked.discard(path)

    def database(self, path: Path) -> sqlite3.Connection:
        real = self.database_dir / path.name
        connection = sqlite3.connect(real, isolation_level=None, check_same_thread=False, factory=SimDatabase)
        connection.path = real
        connection.durable = {
            end: found.read_bytes()
            for end in ("", "-wal")
            if (found := real.with_name(real.name + end)).exists()
        }
        self.databases.append(connection)
        return connection


class SimFile:
    """A file of a `SimDisk`."""

    def __init__(self, disk: SimDisk, name: str, inode: _Inode) -> None:
        self.disk, self.name, self.inode = disk, name, inode

    def write_at(self, offset: int, parts: Sequence[bytes]) -> None:
        payload = b"".join(parts)
        inode = self.inode

        def write() -> None:
            if len(inode.data) < offset:
                inode.data.extend(bytes(offset - len(inode.data)))
            inode.data[offset : offset + len(payload)] = payload
            inode.writes.append(("write", offset, payload))

        self.disk.step(f"write {self.name}", write)
        write()

    def read_at(self, offset: int, n: int) -> bytes:
        self.disk.reads += 1
        if self.disk.unreadable(self.name, offset, n):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return bytes(self.inode.data[offset : offset + n])

    def size(self) -> int:
        return len(self.inode.data)

    def truncate(self, size: int) -> None:
        self.disk.step(f"truncate {self.name}")
        del self.inode.data[size:]
        self.inode.writes.append(("truncate", size, b""))

    def sync(self) -> None:
        inode = self.inode
        try:
            self.disk.step(f"sync {self.name}")
        except OSError:
            # As Linux does: the pages count as clean from now on, though they never reached the medium.
            inode.dropped += [(offset, len(data)) for kind, offset, data in inode.writes if kind == "write"]
            inode.writes.clear()
            raise
        if not self.disk.lying_sync:
            inode.durable = bytearray(inode.data)
            for offset, length in inode.dropped:
                length = min(length, len(inode.durable) - offset)
                inode.durable[offset : offset + length] = bytes(max(0, length))
            inode.writes.clear()

    def close(self) -> None:
        pass
