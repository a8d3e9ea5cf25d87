"""`edgecap ctl`: command a rig and wait for its answer."""

from __future__ import annotations

import argparse
import asyncio
import difflib
import json
import math
import secrets
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgecap.cli.broker import add_broker_options, broker_from, client_id
from edgecap.cli.rig_name import split_rig, unknown_rig
from edgecap.errors import BrokerError, SessionError, UsageError
from edgecap.model import MARK_KINDS

if TYPE_CHECKING:
    from edgecap.mqtt import Broker
    from edgecap.status import CommandResult, RigStatus, SpoolStatus

EXAMPLE = """\
examples:
  edgecap ctl rig-01 start --task "fold a towel"      without a task: the one that the rig has
  edgecap ctl lab/rig-01 mark "found the screw" --kind recovered
  edgecap ctl rig-01 task "stack three cups"          for the sessions to come
  edgecap ctl rig-01 stop
  edgecap ctl rig-01 discard               ends the session; it is delivered, and left out of exports
  edgecap ctl rig-01 pause                 delivers nothing until resume; recording goes on
  edgecap ctl rig-01 limit 2000            on a metered link: 2 Mbit/s at most; 0 lifts it
  edgecap ctl rig-01 blink left-hand       its light, irregularly, for `calibrate sync --method led`
  edgecap ctl rig-01 status --json
"""
COMMANDS = ("start", "stop", "mark", "discard", "task", "status", "pause", "resume", "limit", "blink")
WITH_TEXT = ("start", "mark", "task", "limit", "blink")


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "ctl",
        help="command a rig over MQTT",
        description="Send one command to a rig and print its answer; exit 1 when it refuses or is silent.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("rig", help="RIG, or SITE/RIG where two sites have a rig of that name")
    parser.add_argument("cmd", choices=COMMANDS)
    parser.add_argument(
        "text",
        nargs="?",
        default="",
        help="the task (for start, task), a remark (for mark), kbit/s (for limit), or the board (for blink)",
    )
    parser.add_argument("--task", default="", help="with start: the task in words")
    parser.add_argument("--kind", default="note", help=f"with mark: {', '.join(MARK_KINDS)}")
    parser.add_argument(
        "--seconds", type=float, default=20.0, metavar="S", help="with blink: for so long (default 20)"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="with blink: of the pattern (default: random)")
    parser.add_argument(
        "--timeout", type=float, default=15.0, metavar="S", help="wait this long (default 15)"
    )
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")
    add_broker_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    import msgspec

    broker = broker_from(args)
    split_rig(args.rig)
    _check(args)
    if args.cmd == "blink":
        print(f"asking {args.text} to blink for {args.seconds:g} s, seed {args.seed} …", file=sys.stderr)
    result = asyncio.run(_command(broker, args))
    if args.json:
        print(json.dumps(msgspec.to_builtins(result), indent=2))
    else:
        print(result.message, file=sys.stdout if result.ok else sys.stderr)
        if result.status is not None:
            for line in _in_words(result.status):
                print(line)
    return 0 if result.ok else 1


def _check(args: argparse.Namespace) -> None:
    """Refuse what the rig would refuse, or what would be passed over in silence."""
    if not 0 < args.timeout < math.inf:
        raise UsageError(f"--timeout {args.timeout:g} is not possible", fix="give more than 0 seconds")
    if args.text and args.cmd not in WITH_TEXT:
        raise UsageError(f"{args.cmd} takes no text, and {args.text!r} was given", fix="leave it out")
    if args.task and args.cmd != "start":
        raise UsageError(f"--task goes with start, not with {args.cmd}", fix="leave it out")
    if args.cmd == "start":
        if args.task and args.text:
            raise UsageError("the task is given twice", fix="give TEXT or --task")
        args.task = args.task or args.text
    if args.cmd == "mark" and args.kind not in MARK_KINDS:
        near = difflib.get_close_matches(args.kind, MARK_KINDS, 1, 0.5)
        fix = f"did you mean {near[0]}?" if near else f"use one of {', '.join(MARK_KINDS)}"
        raise UsageError(f"there is no kind of mark {args.kind!r}", fix=fix)
    if args.cmd == "task" and not args.text:
        raise UsageError("task needs the task in words", fix='as in: edgecap ctl rig-01 task "fold a towel"')
    if args.cmd == "limit" and not args.text.isdecimal():
        raise UsageError("limit needs kbit/s as a whole number", fix="as in: edgecap ctl rig-01 limit 2000")
    if args.cmd == "blink":
        _prepare_blink(args)


def _in_words(status: RigStatus) -> Iterator[str]:
    """What somebody who asks a rig for its status wants to know, a line each."""
    from edgecap.cli.tables import printable

    spool, uplink = status.spool, status.uplink
    if status.session:
        yield f"session: {status.session}, {status.session_s:.0f} s, {printable(status.task)}"
    yield f"room: {_room(spool)}"
    chunks = "1 chunk" if spool.chunks == 1 else f"{spool.chunks} chunks"
    waiting = f"{chunks}, {spool.bytes / 1e6:.1f} MB, to be delivered" if spool.chunks else "nothing waits"
    yield f"delivery: {waiting}{f', held: {uplink.held}' if uplink.held else ''}"
    if not status.clock.trusted:
        yield "clock: not synchronised; recordings are dated by it all the same"
    for problem in filter(None, [status.fault, *status.problems.values()]):
        yield f"problem: {printable(problem)}"


def _room(spool: SpoolStatus) -> str:
    """How much, and for how long."""
    free = spool.free_bytes - spool.reserve_bytes
    if free <= 0:
        kept = f"{spool.reserve_bytes / 1e6:.0f} MB are kept in reserve"
        return f"none, {spool.free_bytes / 1e6:.0f} MB are free and {kept}: no session can start"
    room = f"{free / 1e9:.1f} GB" if free >= 1e9 else f"{free / 1e6:.0f} MB"
    if (hours := spool.hours_left) is None:
        return room
    lasts = f"{hours:.0f} h" if hours >= 10 else f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.0f} min"
    return f"{room}, {lasts} of recording at the rate last measured"


def _prepare_blink(args: argparse.Namespace) -> None:
    """The answer comes when the light has gone out again."""
    from edgecap.daemon.blinking import MOST_S

    if not args.text:
        raise UsageError("blink needs the board", fix="as in: edgecap ctl rig-01 blink left-hand")
    if not 1.0 <= args.seconds <= MOST_S:
        raise UsageError(f"--seconds {args.seconds:g} is not possible", fix=f"give 1 to {MOST_S:g}")
    if args.seed is None:
        args.seed = secrets.randbelow(1_000_000)
    if not 0 <= args.seed < 10**18:
        raise UsageError(f"--seed {args.seed} is not possible", fix="give 0 to 999999999999999999")
    args.timeout += args.seconds


async def _find(broker: Broker, rig: str) -> tuple[str, str]:
    """Which site the rig belongs to; retained status tells even of one that is offline."""
    from edgecap.fleet.roster import look_once

    site, name = split_rig(rig)
    rows = await look_once(broker, client_id=client_id("ctl"))
    found = [r for r in rows if r.rig == name and site in ("+", r.site)]
    if len(found) == 1:
        if found[0].state == "offline":
            raise SessionError(f"{found[0].site}/{name} is offline", fix="wait until it is connected again")
        return found[0].site, name
    if found:
        known = [f"{r.site}/{r.rig}" for r in found]
        raise UsageError(f"{name} is the name of {len(found)} rigs", fix="say " + " or ".join(known))
    raise unknown_rig(rig, rows)


async def _command(broker: Broker, args: argparse.Namespace) -> CommandResult:
    import msgspec

    from edgecap import topics
    from edgecap.mqtt import connect
    from edgecap.status import NOT_JSON, Command, CommandResult

    site, name = await _find(broker, args.rig)
    details = {
        "start": {"task": args.task},
        "task": {"text": args.text},
        "mark": {"kind": args.kind, "text": args.text},
        "limit": {"kbit_s": args.text},
        "blink": {"board": args.text, "seconds": f"{args.seconds:g}", "seed": str(args.seed)},
    }.get(args.cmd, {})
    wanted = secrets.token_hex(8)
    command = Command(wanted, args.cmd, details, time.time() + args.timeout)
    answers = topics.topic(site, name, topics.CMD_RESULT)
    try:
        async with (
            connect(broker, client_id=client_id("ctl"), subscribe=[answers]) as connection,
            asyncio.timeout(args.timeout),
        ):
            topic = topics.topic(site, name, topics.CMD)
            await connection.publish(topic, msgspec.json.encode(command), qos=topics.CMD.qos)
            async for message in connection.messages():
                try:
                    result = msgspec.json.decode(message.payload, type=CommandResult)
                except NOT_JSON:
                    continue  # not an answer, whoever sent it
                if result.id == wanted:
                    return result
    except TimeoutError:
        pass
    raise BrokerError(
        f"{site}/{name} did not answer within {args.timeout:g} s",
        fix="is its daemon running? see `edgecap fleet`",
    )
