"""`edgecap export`: sessions of a store as datasets."""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecap.cli.output import require_writable
from edgecap.errors import EdgecapError, SessionError, UsageError

if TYPE_CHECKING:
    from edgecap.dataset.session import RecordedSession
    from edgecap.ingest.store import SessionKey, Store

EXAMPLE = """\
examples:
  edgecap export ./store 20261121-101500-k3fz --to mcap --out ./datasets --overview
  edgecap export ./store rig-07/20261121-101500-k3fz --to mcap --out ./datasets --json

A session is exported only when it is proven to be whole and was not discarded; --allow-incomplete exports
what there is. An .mcap file holds ROS 2 messages and opens in Foxglove, Rerun and rosbags.
"""
NEAREST = 3

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class _Options:
    out: Path
    allow_incomplete: bool
    overview: bool


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `export`."""
    parser = commands.add_parser(
        "export",
        help="write sessions as datasets",
        description="Write sessions of a store as datasets that other tools open.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("store", metavar="STORE", help="directory or URL that ingest writes to")
    parser.add_argument(
        "sessions", metavar="SESSION", nargs="+", help="session id, or RIG/SESSION, or SITE/RIG/SESSION"
    )
    parser.add_argument("--to", metavar="FORMAT", required=True, help=f"one of: {', '.join(FORMATS)}")
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="created when missing")
    parser.add_argument("--overview", action="store_true", help="also draw SESSION.png")
    parser.add_argument(
        "--allow-incomplete", action="store_true", help="export incomplete and discarded sessions too"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per session")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Export every session that can be; those that cannot are told at the end."""
    write = FORMATS.get(args.to)
    if write is None:
        raise UsageError(f"there is no export format {args.to!r}", fix=f"available are: {', '.join(FORMATS)}")
    _require_export_extra()
    from edgecap.dataset.session import load_session
    from edgecap.ingest.store import open_store

    options = _Options(args.out, args.allow_incomplete, args.overview)
    store = open_store(args.store)
    keys = [find_session(store, wanted) for wanted in args.sessions]
    require_writable(args.out)
    failed: list[EdgecapError] = []
    for key in keys:
        try:
            with _progress(key.session) as progress:
                result = write(load_session(store, key), options, progress)
        except EdgecapError as error:
            failed.append(error)
            continue
        print(json.dumps(result, ensure_ascii=False) if args.json else _in_words(result), flush=True)
    if len(failed) == 1:
        raise failed[0]
    if failed:
        raise ExceptionGroup("sessions that could not be exported", failed)
    return 0


def find_session(store: Store, wanted: str) -> SessionKey:
    """The one session called `wanted`; raises `SessionError` naming the nearest ones."""
    keys = {f"{k.site}/{k.rig}/{k.session}": k for k in store.sessions()}
    found = [key for name, key in keys.items() if name == wanted or name.endswith(f"/{wanted}")]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(f"{k.site}/{k.rig}/{k.session}" for k in found)
        raise SessionError(f"{wanted!r} names {len(found)} sessions", fix=f"say which one: {names}")
    if not keys:
        raise SessionError(f"the store holds no session {wanted!r}", fix="it holds none at all")
    last = wanted.rpartition("/")[2]
    ids = sorted({key.session for key in keys.values()}, reverse=True)
    nearest = difflib.get_close_matches(last, ids, NEAREST, 0.3) or ids[:NEAREST]
    raise SessionError(f"the store holds no session {wanted!r}", fix=f"the nearest are: {', '.join(nearest)}")


def _to_mcap(session: RecordedSession, options: _Options, progress: Progress) -> dict[str, Any]:
    import msgspec

    from edgecap.dataset.mcap_export import export_mcap

    export = export_mcap(session, options.out, allow_incomplete=options.allow_incomplete, progress=progress)
    result: dict[str, Any] = msgspec.to_builtins(export)
    if options.overview:
        from edgecap.dataset.overview import draw_overview

        result["overview"] = str(draw_overview(session, options.out / f"{session.key.session}.png"))
    return result


FORMATS: dict[str, Callable[[RecordedSession, _Options, Progress], dict[str, Any]]] = {"mcap": _to_mcap}


def _in_words(result: dict[str, Any]) -> str:
    count = sum(result["messages"].values())
    seconds = (result["end_utc_ns"] - result["start_utc_ns"]) / 1e9
    size = result["bytes"] / 1e6
    line = f"{result['path']}: {count} messages of {seconds:.1f} s in {size:.2f} MB"
    if not result["complete"]:
        line += ", INCOMPLETE"
    if not result["utc_trusted"]:
        line += ", wall clock not trusted"
    return f"{line}\n{result['overview']}" if "overview" in result else line


def _require_export_extra() -> None:
    try:
        import av
        import matplotlib
        import mcap.writer
    except ImportError as error:
        raise UsageError(
            f"export needs the package {error.name!r}", fix="pip install 'edgecap[export]'"
        ) from error
    del av, matplotlib, mcap


@contextmanager
def _progress(name: str) -> Iterator[Progress]:
    """A progress bar on stderr where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f} %"))
    quiet = not sys.stderr.isatty()
    with RichProgress(
        *columns, TimeRemainingColumn(), console=Console(stderr=True), disable=quiet, transient=True
    ) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
