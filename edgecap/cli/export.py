"""`edgecap export`: sessions of a store as datasets."""

from __future__ import annotations

import argparse
import difflib
import importlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecap.cli.output import require_writable
from edgecap.cli.progress import progress_bar
from edgecap.cli.tables import print_json
from edgecap.errors import EdgecapError, SessionError, UsageError

if TYPE_CHECKING:
    from edgecap.dataset.session import RecordedSession
    from edgecap.ingest.store import SessionKey, Store

EXAMPLE = """\
examples:
  edgecap export ./store 20261121-101500-k3fz --to mcap --out ./datasets --overview
  edgecap export ./store rig-07/20261121-101500-k3fz --to mcap --out ./datasets --json
  edgecap export ./store 20261121-101500-k3fz 20261121-103000-m2qd --to frames --out ./datasets
  edgecap export ./store 20261121-101500-k3fz 20261121-103000-m2qd --to lerobot --out ./lids

A session is exported only when it is proven to be whole and was not discarded; --allow-incomplete exports
what there is.

  mcap     every sample: ROS 2 messages, open in Foxglove, Rerun and rosbags
  frames   one row per camera frame: a Parquet table of every sensor at mid-exposure and over the exposure,
           beside an MP4 whose picture i is row i (docs/FRAMES.md)
  lerobot  all sessions as one LeRobotDataset v3.0 in DIR, with true times, masks, and every sample at its
           own rate beside (docs/LEROBOT.md)
"""
NEAREST = 3
LONGEST_WINDOW_MS = 10_000

Progress = Callable[[int, int], None]
Result = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Options:
    out: Path
    allow_incomplete: bool
    overview: bool
    apply_lags: bool
    window_ns: int | None
    episode: int = 0
    dataset: Any = None
    """Where a format puts all sessions into one."""


@dataclass(frozen=True, slots=True)
class _Format:
    """A kind of dataset.

    Attributes:
        write: Writes a session.
        in_words: Tells what it wrote.
        needs: Modules that it imports, of the extra `export`.
        begin: Begins what all sessions go into: a context manager with `finish`.
        end_in_words: Tells what that has become.
    """

    write: Callable[[RecordedSession, _Options, Progress], Result]
    in_words: Callable[[Result], str]
    needs: tuple[str, ...]
    begin: Callable[[Path], Any] | None = None
    end_in_words: Callable[[Result], str] | None = None


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
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
    parser.add_argument(
        "--apply-lags",
        action="store_true",
        help="frames, lerobot: take each sensor's stated delay (lag_ns) off its times",
    )
    parser.add_argument(
        "--window-ms",
        metavar="MS",
        type=float,
        help="frames: mean and deviation over this long around mid-exposure, not over the exposure",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object per session (lerobot: and one of all)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Export every session that can be; those that cannot are told at the end."""
    format_ = FORMATS.get(args.to)
    if format_ is None:
        raise UsageError(f"there is no export format {args.to!r}", fix=f"available are: {', '.join(FORMATS)}")
    for option, given, formats in (
        ("--apply-lags", args.apply_lags, ("frames", "lerobot")),
        ("--window-ms", args.window_ms is not None, ("frames",)),
    ):
        if given and args.to not in formats:
            raise UsageError(
                f"{option} means nothing for {args.to}",
                fix=f"leave it out, or export --to {' or '.join(formats)}",
            )
    if args.window_ms is not None and not 0 < args.window_ms <= LONGEST_WINDOW_MS:
        raise UsageError(
            f"--window-ms {args.window_ms:g} is no window",
            fix=f"give more than 0, at most {LONGEST_WINDOW_MS} milliseconds",
        )
    require_modules(*format_.needs, *(["matplotlib"] if args.overview else []), "rich")
    from edgecap.ingest.consent import require_not_withdrawn
    from edgecap.ingest.store import open_store

    window_ns = None if args.window_ms is None else round(args.window_ms * 1e6)
    options = _Options(args.out, args.allow_incomplete, args.overview, args.apply_lags, window_ns)
    store = open_store(args.store)
    keys = list(dict.fromkeys(find_session(store, wanted) for wanted in args.sessions))
    require_not_withdrawn(store, keys)
    require_writable(args.out)
    with ExitStack() as stack:
        if format_.begin is not None:
            options = replace(options, dataset=stack.enter_context(format_.begin(args.out)))
        failed = _write_all(store, keys, format_, options, is_json=args.json)
        if options.dataset is not None and format_.end_in_words is not None:
            whole = options.dataset.finish()
            if whole is not None:
                import msgspec

                result: Result = msgspec.to_builtins(whole)
                _tell(result, [format_.end_in_words(result)], is_json=args.json)
    if len(failed) == 1:
        raise failed[0]
    if failed:
        raise ExceptionGroup("sessions that could not be exported", failed)
    return 0


def _write_all(
    store: Store, keys: Sequence[SessionKey], format_: _Format, options: _Options, *, is_json: bool
) -> list[EdgecapError]:
    """Write one session after another; returns what went wrong with those that could not be."""
    from edgecap.dataset.session import load_session

    failed: list[EdgecapError] = []
    for key in keys:
        try:
            session = load_session(store, key)
            with progress_bar(key.session) as progress:
                result = format_.write(session, options, progress)
            if options.overview:
                from edgecap.dataset.overview import draw_overview

                result["overview"] = str(draw_overview(session, options.out / f"{key.session}.png"))
        except EdgecapError as error:
            failed.append(error)
            continue
        options = replace(options, episode=options.episode + 1)
        words = [format_.in_words(result), *([result["overview"]] if options.overview else [])]
        _tell(result, words, is_json=is_json)
    return failed


def _tell(result: Result, words: Sequence[str], *, is_json: bool) -> None:
    if is_json:
        print_json(result)
    else:
        print("\n".join(words), flush=True)


def find_session(store: Store, wanted: str) -> SessionKey:
    """The one session called `wanted`; raises `SessionError` naming the nearest ones."""
    from edgecap.ingest.consent import Consents

    keys = {f"{k.site}/{k.rig}/{k.session}": k for k in Consents(store).sessions()}
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


def _to_mcap(session: RecordedSession, options: _Options, progress: Progress) -> Result:
    import msgspec

    from edgecap.dataset.mcap_export import export_mcap

    export = export_mcap(session, options.out, allow_incomplete=options.allow_incomplete, progress=progress)
    result: Result = msgspec.to_builtins(export)
    return result


def _mcap_in_words(result: Result) -> str:
    count = sum(result["messages"].values())
    seconds = (result["end_utc_ns"] - result["start_utc_ns"]) / 1e9
    size = result["bytes"] / 1e6
    return f"{result['path']}: {count} messages of {seconds:.1f} s in {size:.2f} MB{_doubts(result)}"


def _to_frames(session: RecordedSession, options: _Options, progress: Progress) -> Result:
    import msgspec

    from edgecap.dataset.frames_export import export_frames

    export = export_frames(
        session,
        options.out,
        allow_incomplete=options.allow_incomplete,
        apply_lags=options.apply_lags,
        window_ns=options.window_ns,
        episode=options.episode,
        progress=progress,
    )
    result: Result = msgspec.to_builtins(export)
    return result


def _frames_in_words(result: Result) -> str:
    lines = []
    for camera in result["cameras"]:
        line = f"{camera['table']}: {camera['rows']} frames, with video {camera['bytes'] / 1e6:.2f} MB"
        if camera["lost"]:
            line += f", {camera['lost']} frames lost"
        for stream, rows in camera["rows_not_valid"].items():
            line += f", {stream} not valid in {rows}" if rows else ""
        if camera["rows_not_valid"] and camera["rows_without_window"]:
            line += f", no exposure time in {camera['rows_without_window']}: no mean and std (--window-ms)"
        lines.append(line + _doubts(result))
    return "\n".join(lines)


def _begin_lerobot(out: Path) -> Any:
    from edgecap.dataset.lerobot_export import LerobotDataset

    return LerobotDataset(out)


def _to_lerobot(session: RecordedSession, options: _Options, progress: Progress) -> Result:
    import msgspec

    added = options.dataset.add(
        session,
        allow_incomplete=options.allow_incomplete,
        apply_lags=options.apply_lags,
        progress=progress,
    )
    result: Result = msgspec.to_builtins(added)
    return result


def _lerobot_in_words(result: Result) -> str:
    first, last = result["episodes"][0], result["episodes"][-1]
    episodes = f"episode {first}" if first == last else f"episodes {first} to {last}"
    line = f"{result['session']}: {episodes}, {result['rows']} rows at {result['fps']} Hz"
    if result["lost"]:
        line += f", {result['lost']} frames lost"
    if result["rows_not_continuous"]:
        line += f", {result['rows_not_continuous']} rows not 1/{result['fps']} s after the one before"
    for stream, rows in result["rows_not_valid"].items():
        line += f", {stream} not valid in {rows}" if rows else ""
    again = [camera for camera, how in result["cameras"].items() if how != "copied"]
    line += f", encoded again: {', '.join(again)}" if again else ""
    return line + _doubts(result)


def _lerobot_end_in_words(result: Result) -> str:
    counts = f"{result['episodes']} episode{'s' if result['episodes'] != 1 else ''}, {result['rows']} rows"
    return f"{result['path']}: {counts}, {result['bytes'] / 1e6:.2f} MB"


def _doubts(result: Result) -> str:
    line = "" if result["complete"] else ", INCOMPLETE"
    line += ", DISCARDED by its worker" if result["outcome"] == "discarded" else ""
    return line if result["utc_trusted"] else f"{line}, wall clock not trusted"


FORMATS = {
    "mcap": _Format(_to_mcap, _mcap_in_words, ("av", "mcap.writer")),
    "frames": _Format(_to_frames, _frames_in_words, ("av", "pyarrow.parquet")),
    "lerobot": _Format(
        _to_lerobot, _lerobot_in_words, ("av", "pyarrow.parquet"), _begin_lerobot, _lerobot_end_in_words
    ),
}


def require_modules(*names: str) -> None:
    """Raise `UsageError` when a package of the extra `export` is missing."""
    try:
        for name in names:
            importlib.import_module(name)
    except ImportError as error:
        raise UsageError(
            f"export needs the package {error.name!r}", fix="pip install 'edgecap[export]'"
        ) from error
