"""`edgecap calibrate force`: newtons from counts, from a stored session or live from a board."""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import stat
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgecap.cli.export import find_session
from edgecap.errors import CalibrationError, SourceError, UsageError

if TYPE_CHECKING:
    from edgecap.calibration import ForceRecord
    from edgecap.dataset.calibrate_force import Load
    from edgecap.dataset.force_session import ForceOptions
    from edgecap.dataset.still import Plateau
    from edgecap.model import StreamInfo
    from edgecap.source.serial_feed import SerialFeed

EXAMPLE = """\
examples:
  edgecap calibrate force ./store SESSION --stream left-force --reference 'scale' --out calibration.json
  edgecap calibrate force ./store SESSION --stream left-force --at 2:0 --at 8:0.5kg:thumb --at 14:1kg:thumb
  edgecap calibrate force --port /dev/edgecap/left-hand --stream left-hand-force \\
      --channel thumb --load 0.2kg --load 0.5kg --load 1kg --model fsr --full-counts 4095

In a session, loads are told by marks in words, set while the load lies still: `tare` while nothing touches
any finger, then `thumb 0.5 kg`, `index 4.9 N`, … (edgecap ctl RIG mark 'thumb 0.5 kg'). Exit code 1 if the
data do not allow an answer; the reason is printed. See docs/CALIBRATION.md.
"""
Ask = Callable[[str], Awaitable[None]]


def add_parser(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser(
        "force",
        help="tare and gain of each finger, by known weights or a scale",
        description="Newtons from counts, per channel, with uncertainty and residual, or a refusal.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("store", metavar="STORE", nargs="?", help="directory or URL that ingest writes to")
    parser.add_argument(
        "session", metavar="SESSION", nargs="?", help="session id, or RIG/SESSION, or SITE/RIG/SESSION"
    )
    parser.add_argument("--stream", metavar="NAME", required=True, help="as the daemon names it")
    parser.add_argument(
        "--at",
        metavar="T:LOAD[:CHANNEL]",
        action="append",
        default=[],
        help="a load from T s after the session's start on, in N or as 0.5kg; instead of marks",
    )
    parser.add_argument("--port", metavar="PATH", help="live from a board, guided on the terminal")
    parser.add_argument(
        "--channel", metavar="NAME", action="append", default=[], help="live: only these (default: all)"
    )
    parser.add_argument(
        "--load",
        metavar="LOAD",
        action="append",
        default=[],
        help="live: 0.5kg, 200g or 4.9N; give two or more",
    )
    parser.add_argument("--model", choices=("linear", "fsr"), default="linear", help="default %(default)s")
    parser.add_argument(
        "--full-counts", metavar="COUNTS", type=float, default=0.0, help="fsr: reading at the converter's end"
    )
    parser.add_argument("--reference", metavar="WORDS", default="", help="what the loads were")
    parser.add_argument(
        "--reference-percent",
        metavar="P",
        type=float,
        default=0.5,
        help="how far the loads are to be trusted (default %(default)s %%)",
    )
    parser.add_argument(
        "--gravity", metavar="M_S2", type=float, default=9.80665, help="for kg and g (default %(default)s)"
    )
    parser.add_argument(
        "--window-s", metavar="S", type=float, default=1.0, help="length of a reading (default %(default)s)"
    )
    parser.add_argument(
        "--hold-s", metavar="S", type=float, default=4.0, help="how long a load lies (default %(default)s)"
    )
    parser.add_argument("--temperature", metavar="C", type=float, help="of the sensors, to be noted")
    parser.add_argument("--by", metavar="NAME", default="", help="who measures")
    parser.add_argument("--json", action="store_true", help="print the record as one JSON object")
    parser.add_argument("--out", metavar="FILE.json", type=Path, help="put the record into a calibration map")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure, print, keep."""
    from edgecap.cli.calibrate_out import keep
    from edgecap.dataset.force_session import ForceOptions

    for name in ("window_s", "hold_s", "gravity", "reference_percent", "full_counts"):
        value = getattr(args, name)
        if (
            not math.isfinite(value)
            or value < 0
            or (value == 0 and name not in ("reference_percent", "full_counts"))
        ):
            raise UsageError(f"--{name.replace('_', '-')} {value} is not a positive number")
    options = ForceOptions(
        model=args.model,
        window_s=args.window_s,
        hold_s=max(args.hold_s, args.window_s),
        full_counts=args.full_counts,
        reference=args.reference,
        reference_percent=args.reference_percent,
        gravity_m_s2=args.gravity,
        temperature_c=args.temperature,
        by=args.by,
    )
    record, notes = _live(args, options) if args.port else _stored(args, options)
    return keep(args, record, in_words(record), notes)


def _stored(args: argparse.Namespace, options: ForceOptions) -> tuple[ForceRecord, list[str]]:
    from edgecap.dataset.force_session import (
        Origin,
        force_record,
        loads_of_marks,
        loads_of_times,
        plateaus_of,
        temperature_of,
    )
    from edgecap.dataset.session import load_session
    from edgecap.ingest.store import open_store

    if not args.store or not args.session:
        raise UsageError("which session?", fix="give STORE SESSION, or --port for a live board")
    store = open_store(args.store)
    session = load_session(store, find_session(store, args.session))
    info = session.info(args.stream)
    notes: list[str] = []
    if args.at:
        loads = loads_of_times(session, args.at, options.gravity_m_s2)
    else:
        loads, others = loads_of_marks(session, options.gravity_m_s2)
        notes += [f"mark {text!r} tells no load" for text in others]
    plateaus = plateaus_of(session, info.name, loads, options)
    if options.temperature_c is None:
        options = replace(options, temperature_c=temperature_of(session, info.device))
    origin = Origin(session.key.session, info.serial_number)
    record, refused = force_record(info, plateaus, options, origin)
    return record, notes + refused


def _live(args: argparse.Namespace, options: ForceOptions) -> tuple[ForceRecord, list[str]]:
    from edgecap.dataset.calibrate_force import parse_load

    if args.store:
        raise UsageError("--port and a store do not go together", fix="leave one out")
    loads = []
    for text in args.load:
        found = parse_load(text, options.gravity_m_s2)
        if found is None or found[0] or found[1] <= 0:
            raise UsageError(f"--load {text!r} is no load", fix="for example 0.5kg, 200g or 4.9N")
        loads.append((text, found[1]))
    if len(loads) < 2:
        raise UsageError(
            "which loads?", fix="give --load twice or more, for example --load 0.2kg --load 0.5kg"
        )
    return asyncio.run(_at_terminal(args.port, args.stream, args.channel, loads, options))


async def _at_terminal(
    port: str, stream: str, channels: list[str], loads: list[tuple[str, float]], options: ForceOptions
) -> tuple[ForceRecord, list[str]]:
    """Ask on the terminal; standard input is read without a thread, so that Ctrl-C ends it at once."""
    if not sys.stdin.isatty() and not stat.S_ISFIFO(os.fstat(sys.stdin.fileno()).st_mode):
        raise UsageError("standard input is no terminal", fix="run it where somebody can press Enter")
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)

    async def ask(prompt: str) -> None:
        print(f"{prompt}, press Enter ", end="", file=sys.stderr, flush=True)
        if not await lines.readline():
            raise CalibrationError("nobody answers: standard input has ended", fix="run it on a terminal")

    try:
        return await measure_live(port, stream, channels, loads, options, ask)
    finally:
        transport.close()


async def measure_live(
    port: str,
    stream: str,
    channels: list[str],
    loads: list[tuple[str, float]],
    options: ForceOptions,
    ask: Ask,
) -> tuple[ForceRecord, list[str]]:
    """Lead a person through tare and loads, finger by finger.

    Args:
        port: Of the board.
        stream: Name that the daemon gives it, `{device}-{stream}`.
        channels: Which; empty for all.
        loads: In words and newtons.
        options: How readings are taken.
        ask: Shows a request and returns when it was carried out.

    Raises:
        SourceError: the board cannot be opened or has no such stream.
        CalibrationError: the readings do not allow an answer.
    """
    import msgspec

    from edgecap.dataset.calibrate_force import Load, match_channel
    from edgecap.dataset.force_session import Origin, force_record
    from edgecap.source.serial_mcu import SerialSource

    async with SerialSource("board", port).open() as feed:
        own = [i for i in feed.info if stream == i.name.removeprefix("board-") or stream.endswith(i.name[5:])]
        if len(own) != 1:
            raise SourceError(
                f"the board on {port} has no stream {stream!r}",
                fix=f"it has {', '.join(i.name.removeprefix('board-') for i in feed.info)}",
            )
        info = own[0]
        names = [c.name for c in info.channels]
        columns = [match_channel(c, names)[0] for c in channels] or list(range(len(names)))
        plateaus: list[tuple[Load, Plateau]] = []
        await feed.start()
        await ask("take everything off the sensors")
        plateaus.append((Load(0, "", 0.0), await _reading(feed, info, options)))
        for k in columns:
            for words, newton in loads:
                await ask(f"finger {names[k]}: put {words} on")
                plateaus.append((Load(0, names[k], newton), await _reading(feed, info, options)))
        await feed.stop()
    origin = Origin("", info.serial_number or port)
    return force_record(msgspec.structs.replace(info, name=stream), plateaus, options, origin)


async def _reading(feed: SerialFeed, info: StreamInfo, options: ForceOptions) -> Plateau:
    """The stillest window of the samples that come from now on."""
    import numpy as np

    from edgecap.clock import now_ns
    from edgecap.dataset.force_session import SETTLE_NS
    from edgecap.dataset.still import stillest
    from edgecap.model import SampleBlock
    from edgecap.timeline.fit import to_rig_ns

    window = round(options.window_s * info.rate_hz_nominal)
    from_ns = now_ns() + SETTLE_NS
    times, values, n = [], [], 0
    try:
        async with asyncio.timeout(10 + 5 * options.window_s):
            async for item in feed:
                if not isinstance(item, SampleBlock) or item.stream != info.name:
                    continue
                t_ns = to_rig_ns(item.fit, item.ticks)
                late = t_ns >= from_ns
                times.append(t_ns[late])
                values.append(item.values[late].astype(np.float64))
                n += int(late.sum())
                if n >= 2 * window:
                    break
    except TimeoutError:
        raise CalibrationError(f"{info.name} sends no samples", fix="check the board and its cable") from None
    found = stillest(np.concatenate(times), np.concatenate(values), window, list(range(len(info.channels))))
    if found is None:
        raise CalibrationError(
            f"{options.window_s:g} s hold too few samples", fix="give a greater --window-s"
        )
    return found


def in_words(record: ForceRecord) -> str:
    """What a person wants to know, in a few lines."""
    at = "" if record.temperature_c is None else f", {record.temperature_c:.1f} °C"
    lines = [f"{record.stream}: {len(record.channels)} channels{at}"]
    for c in record.channels:
        percent = 100 * c.u_n / c.max_n
        form = (
            f"F = {c.gain:.6g} N × (counts − {c.tare:.1f})"
            if c.model == "linear"
            else f"F = {c.gain:.4g} N × (y − y₀)^{c.exponent:.3f}, y = x / ({c.full_counts:g} − x)"
        )
        lines.append(f"  {c.name}: {form}")
        lines.append(
            f"    ± {c.u_n:.3f} N ({percent:.1f} %, 95 %) at {c.max_n:.2f} N; residual {c.residual_n:.4f} N, "
            f"tare ± {c.u_tare:.1f} counts, {c.n} readings"
        )
        if c.nonlinearity:
            lines.append(f"    nonlinearity {c.nonlinearity:.2%} of the range")
    return "\n".join(lines)
