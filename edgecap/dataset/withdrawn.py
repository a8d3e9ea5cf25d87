"""Which exports on disk hold withdrawn sessions: every export tells whose it is and under which consent."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
from mcap.reader import make_reader

from edgecap.dataset.frames_table import KEY
from edgecap.dataset.lerobot_meta import INFO, OURS, ROBOT
from edgecap.errors import ExportError
from edgecap.ingest.consent import Consents, Withdrawal
from edgecap.ingest.store import SessionKey


class _Facts(msgspec.Struct, frozen=True):
    """What an export tells of a session in it."""

    session: str = ""
    site: str = ""
    rig: str = ""
    operator: str = ""
    consent: str = ""
    episodes: list[int] = []

    @property
    def key(self) -> SessionKey:
        return SessionKey(self.site, self.rig, self.session)


class Held(msgspec.Struct, frozen=True):
    """A file, or the directory of a LeRobot dataset, that holds a withdrawn session."""

    path: str
    session: str
    episodes: list[int]
    """In a LeRobot dataset."""
    withdrawal: Withdrawal


class Search(msgspec.Struct):
    """What was found below the directories that were searched."""

    files: int
    held: list[Held]
    unreadable: list[str]
    """What cannot tell whose it is, and why: it may hold a withdrawn session."""


def search_exports(
    folders: Sequence[Path], consents: Consents, stored: Mapping[SessionKey, Withdrawal]
) -> Search:
    """Look into every file below `folders`: MCAP files, tables, LeRobot datasets, and whatever is named after
    a withdrawn session, as videos, pictures and unfinished exports are.

    Args:
        folders: Directories or files.
        consents: What was withdrawn.
        stored: The withdrawn sessions of the store.

    Raises:
        ExportError: there is no such directory.
    """
    return _Search(consents, stored).run(folders)


class _Search:
    def __init__(self, consents: Consents, stored: Mapping[SessionKey, Withdrawal]) -> None:
        self._consents, self._stored = consents, stored
        self._names = {key.session: withdrawal for key, withdrawal in stored.items()}
        for withdrawal in consents.withdrawals():
            if withdrawal.kind == "session" and withdrawal.subject:
                self._names.setdefault(withdrawal.subject.rpartition("/")[2], withdrawal)
        self._held: dict[tuple[str, str], Held] = {}
        self._unreadable: list[str] = []
        self._datasets: dict[Path, bool] = {}

    def run(self, folders: Sequence[Path]) -> Search:
        files = 0
        for folder in folders:
            if not folder.exists():
                raise ExportError(f"{folder} does not exist", fix="name a directory of exports")
            for path in self._walk(folder):
                files += 1
                self._look_at(path, str(path.relative_to(folder.parent)))
        held = sorted(self._held.values(), key=lambda held: (held.path, held.session))
        return Search(files, held, sorted(set(self._unreadable)))

    def _walk(self, folder: Path) -> Iterator[Path]:
        if folder.is_file():
            yield folder
        for parent, folders, names in os.walk(folder, onerror=self._note):
            for name in folders:
                if (Path(parent) / name).is_symlink():
                    self._unreadable.append(_shown(f"{Path(parent) / name} is a link: search where it leads"))
            # A pipe would be waited for; a link that leads nowhere holds nothing.
            yield from (path for name in names if (path := Path(parent) / name).is_file())

    def _note(self, error: OSError) -> None:
        self._unreadable.append(_shown(f"{error.filename}: {error.strerror}"))

    def _look_at(self, path: Path, name: str) -> None:
        try:
            told = [facts for facts in map(_checked, _facts(path)) if facts.session]
        except Exception as error:  # noqa: BLE001 - whatever a library makes of a damaged file: nobody can tell
            why = str(error).partition("\n")[0] or type(error).__name__
            self._unreadable.append(_shown(f"{path}: {why}"))
            told = []
        for facts in told:
            whose = {"consent": facts.consent, "worker": facts.operator}
            withdrawal = self._stored.get(facts.key) or self._consents.covering(facts.key, **whose)
            if withdrawal is not None:
                self._hold(path, facts.session, withdrawal, facts.episodes)
        for session, withdrawal in self._names.items() if not told else ():
            if session in name:
                self._hold(path, session, withdrawal, [])

    def _hold(self, path: Path, session: str, withdrawal: Withdrawal, episodes: list[int]) -> None:
        whole = _shown(str(self._dataset(path) or path))
        before = self._held.get((whole, session))
        if before is None or not before.episodes:
            self._held[whole, session] = Held(whole, session, episodes, withdrawal)

    def _dataset(self, path: Path) -> Path | None:
        """The LeRobot dataset that a file belongs to."""
        for parent in path.parents[:3]:
            if parent not in self._datasets:
                self._datasets[parent] = (parent / OURS).is_file()
            if self._datasets[parent]:
                return parent
        return None


def _checked(told: Any) -> _Facts:
    """The facts that an export tells; raises `ValueError` for what no export would have written."""
    facts = msgspec.convert(told, _Facts)
    "".join((*facts.key, facts.consent, facts.operator)).encode()
    return facts


def _shown(text: str) -> str:
    """A path may hold bytes that are no text."""
    return text.encode("utf-8", "replace").decode()


def _facts(path: Path) -> Iterator[Any]:
    """What a file tells of each session in it; nothing of files that are none of ours."""
    if path.suffix == ".mcap":
        with path.open("rb") as file:
            for record in make_reader(file).iter_metadata():
                if record.name == "edgecap.manifest":
                    yield record.metadata
    elif path.suffix == ".parquet":
        found = (pq.read_metadata(path).metadata or {}).get(KEY.encode())
        if found is not None:
            yield json.loads(found)
    elif path.parts[-2:] == tuple(Path(OURS).parts):
        yield from json.loads(path.read_bytes())["sessions"]
    elif path.parts[-2:] == tuple(Path(INFO).parts):
        ours = path.parents[1] / OURS
        if json.loads(path.read_bytes()).get("robot_type") == ROBOT and not ours.is_file():
            raise ExportError(f"{ours.name} beside it is gone")
