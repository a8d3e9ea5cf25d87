"""What a store is: it keeps chunks by session, says what it has, and says when that is durable."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, runtime_checkable

from edgecap.codec.chunk import Chunk
from edgecap.errors import StoreError

if TYPE_CHECKING:
    from edgecap.ingest.contents import SessionContents

Stored = Literal["stored", "duplicate", "conflict", "erased"]
"""What became of a chunk: new; known already; another chunk has its place in the stream (both are kept); or
its session was erased, and it is not kept.

The first three are durable after the next `commit`, and nobody wants the fourth: all may be receipted.
"""
NOTES = ".consent"
"""Folder of the notes beside the sessions: who withdrew, what was erased (`consent.py`)."""
MOST_NOTE_BYTES = 64 << 10


class SessionKey(NamedTuple):
    """Where a session lies in a store."""

    site: str
    rig: str
    session: str


class CommitGroup(NamedTuple):
    """How much a store would like to have gathered when `commit` is called."""

    seconds: float
    """Nothing should wait for longer."""
    n_bytes: int
    n_chunks: int
    """Either is the most to gather; twice as much may be on its way from the broker."""
    quiet_s: float
    """When nothing has come for so long, there is nothing to wait for."""


@runtime_checkable
class Store(Protocol):
    """Where ingest keeps chunks. Methods block; every failure is a `StoreError`."""

    @property
    def url(self) -> str:
        """As `open_store` takes it."""

    @property
    def worker(self) -> str:
        """The name under which this process writes; claimed with the first use."""

    @property
    def commit_group(self) -> CommitGroup:
        """What makes a commit worth its cost."""

    def append(self, chunks: Sequence[Chunk]) -> list[Stored]:
        """Keep chunks of any sessions in any order; says of each what became of it."""

    def commit(self) -> None:
        """Return once everything appended is durable; only then may it be receipted."""

    def sessions(self) -> list[SessionKey]:
        """Every session, sorted."""

    def contents(self, key: SessionKey) -> SessionContents:
        """What is stored of a session as of now; raises `SessionError` when there is nothing."""

    def chunks(self, key: SessionKey, stream: str | None = None) -> Iterator[Chunk]:
        """The chunks of a session, verified, each once, by stream and then by seq."""

    def note_names(self) -> list[str]:
        """Names of the notes beside the sessions."""

    def note(self, name: str) -> bytes:
        """What a note says."""

    def add_note(self, name: str, data: bytes) -> None:
        """Keep a note; durable on return. Notes never change: adding the same again does no harm."""

    def erase(self, key: SessionKey) -> None:
        """Remove all chunks of a session, and what is left of damaged ones; durable on return."""

    def close(self) -> None:
        """Commit and let go."""


def open_store(url: str, *, create: bool = False, worker: str = "") -> Store:
    """Open a store.

    Args:
        url: A local directory, as a path or a `file://` URL, or `s3://bucket/prefix`.
        create: Make it when it does not exist; buckets are not made.
        worker: Name of this writer; by default one that no running process uses. Reading takes none.

    Raises:
        StoreError: not a store that this version can open.
        UsageError: the environment lacks what a bucket needs.
    """
    scheme, separator, rest = url.partition("://")
    if separator and scheme == "s3":
        from edgecap.ingest.bucket import Bucket
        from edgecap.ingest.object_store import ObjectStore

        return ObjectStore(Bucket(url), worker=worker)
    from edgecap.ingest.local_store import LocalStore

    if separator and scheme != "file":
        raise StoreError(
            f"store {url} cannot be opened: there is no kind of store called {scheme}",
            fix="give a directory, as in --store /srv/edgecap, or --store s3://bucket/prefix",
        )
    path = Path(rest if separator else url).expanduser()
    return LocalStore.open(path, create=create, worker=worker)
