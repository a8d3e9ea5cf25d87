"""`edgecap demo`: the whole system on this machine, without hardware."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgecap.cli.demo_wait import Patience, until
from edgecap.cli.output import require_writable
from edgecap.errors import EdgecapError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from edgecap.cli.demo_view import DemoView
    from edgecap.ingest.session_report import SessionReport
    from edgecap.ingest.store import SessionKey
    from edgecap.sim.demo import DemoSite
    from edgecap.sim.proof import StreamProof

PAGE_S = 30.0
"""How long a busy machine may take to show on the fleet's page what is being recorded."""

EXAMPLE = """\
examples:
  edgecap demo                              half a minute, results in ./demo-out
  edgecap demo --seconds 10 --out /tmp/try
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "demo",
        help="the whole system on this machine, no hardware",
        description=(
            "Build the device firmware, replay real recordings through it, press the button, record, "
            "deliver, verify, export. Exits 0 only if the session arrived complete and every check holds."
        ),
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=float, default=20.0, metavar="N", help="length of the session (20)")
    parser.add_argument(
        "--out", type=Path, default=Path("demo-out"), metavar="DIR", help="results (./demo-out)"
    )
    parser.add_argument(
        "--port", type=int, default=0, metavar="PORT", help="of the broker (default: a free one)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if not 2 <= args.seconds <= 3600:
        raise UsageError(f"--seconds {args.seconds:g} is out of range", fix="give 2 to 3600")
    if not 0 <= args.port <= 65535:
        raise UsageError(f"--port {args.port} is out of range", fix="give 0 to 65535")
    _require_sim_extra()
    from rich.console import Console

    from edgecap.cli.demo_view import DemoView
    from edgecap.sim.firmware_build import build_firmware

    started = time.monotonic()
    require_writable(args.out)
    console = Console()
    with DemoView(console, args.seconds) as view:
        view.step("building the device firmware")
        firmware = build_firmware()
        _warm_up(view)
        result = asyncio.run(_demo(args, firmware, view))
    result["wall_s"] = round(time.monotonic() - started, 1)
    (args.out / "demo.json").write_text(json.dumps(result, indent=2) + "\n")
    _tell(console, result, args.out)
    return 0 if result["ok"] else 1


def _require_sim_extra() -> None:
    try:
        import av
        import matplotlib
        import mcap
        import rich
    except ImportError as error:
        raise UsageError(
            f"the demo needs the package {error.name!r}", fix="pip install 'edgecap[sim,export,fleet]'"
        ) from error
    del av, matplotlib, mcap, rich


def _warm_up(view: DemoView) -> None:
    """Compile the kernels once, in a process of its own, telling how far it is."""
    view.step("compiling kernels (once; later starts take them from the cache)")
    command = [sys.executable, "-m", "edgecap", "warmup"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        last = ""
        for line in process.stderr:
            last = line.rstrip()
            view.detail(last)
    if process.returncode:
        raise EdgecapError(
            f"the kernels do not compile: {last}", fix="run `edgecap warmup --debug` to see why"
        )


async def _demo(args: argparse.Namespace, firmware: Path, view: DemoView) -> dict[str, Any]:
    from edgecap import topics
    from edgecap.mqtt import connect
    from edgecap.sim.demo import RIG, SITE, DemoSite

    # SIGTERM is taken like Ctrl-C, so that the parts are ended first: they would live on and hold the spool.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, signal.raise_signal, signal.SIGINT)
    view.step("starting broker, three devices, ingest, daemon and the fleet's page")
    async with DemoSite(args.out, firmware, args.port) as site:
        from edgecap.mqtt import parse_broker

        wanted = [
            topics.topic(SITE, RIG, c)
            for c in (topics.STATUS, topics.TELEMETRY, topics.EVENT, topics.RECEIPT)
        ]
        broker = parse_broker(site.broker_url)
        async with (
            connect(broker, client_id="edgecap-demo", subscribe=wanted) as connection,
            asyncio.TaskGroup() as group,
        ):

            async def watch() -> None:
                async for message in connection.messages():
                    view.see(message)

            watching = group.create_task(watch(), name="watch")
            session, on_page = await _record(site, view, args.seconds)
            key, report = await _arrived(site, session, view)
            sent = await site.totals()
            watching.cancel()
    view.step("comparing every stored sample with what the devices measured, and exporting")
    result = await asyncio.to_thread(_conclude, site, key, report, sent, args.out, view)
    if unseen := sorted(set(result["streams"]) - set(on_page)):
        result["ok"] = False
        result["problems"].append(f"the fleet's page did not show {', '.join(unseen)} while it was recorded")
    return result


async def _record(site: DemoSite, view: DemoView, seconds: float) -> tuple[str, list[str]]:
    """Press the button like a worker would; returns the session's id, and the streams on the fleet's page."""
    glove = site.devices["left-hand"]

    def state(name: str) -> Callable[[], bool]:
        return lambda: view.status is not None and view.status.state == name

    await until(site, view, "ready", state("idle"))
    await until(site, view, "on the fleet's page", lambda: bool(site.fleet_url()))
    view.step(f"the fleet's page, for as long as this runs: {site.fleet_url()}")
    view.step("the worker presses the button: recording starts")
    await glove.press(120)
    await until(site, view, "recording", state("recording"))
    assert view.status is not None
    session = view.status.session
    await _wait(site, seconds * 0.6)
    view.step("a double press marks that something went wrong")
    await glove.press(80)
    await _wait(site, 0.25)
    await glove.press(80)
    await _wait(site, max(1.0, seconds * 0.4 - 0.25))
    on_page: list[str] = []
    late = time.monotonic() + PAGE_S
    while time.monotonic() < late:
        on_page = await asyncio.to_thread(_streams_on_page, site.fleet_url())
        if view.status.streams and {v.stream for v in view.status.streams} <= set(on_page):
            break
        await _wait(site, 0.2)
    view.step("the button again: the session is closed and delivered")
    await glove.press(120)
    await until(site, view, "idle", state("idle"))
    return session, on_page


def _streams_on_page(url: str) -> list[str]:
    """What the fleet's page shows of the rig while it records; nothing if it does not answer."""
    import urllib.request

    from edgecap.sim.demo import RIG

    try:
        with urllib.request.urlopen(f"{url}/rigs.json?all=1", timeout=30) as answer:  # noqa: S310 (our own)
            rows = json.load(answer)["rows"]
    except (OSError, ValueError):
        return []
    mine = [row for row in rows if row["rig"] == RIG and row["state"] == "recording"]
    return [v["stream"] for row in mine for v in row["streams"]]


async def _wait(site: DemoSite, seconds: float) -> None:
    """Let the recording run on, noticing when a part ends."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        site.check()
        await asyncio.sleep(min(0.2, max(0.0, until - time.monotonic())))


async def _arrived(site: DemoSite, session: str, view: DemoView) -> tuple[SessionKey, SessionReport]:
    """Wait until ingest can prove the session whole; returns the last report either way."""
    from edgecap.errors import StoreError
    from edgecap.ingest.completeness import verify_session
    from edgecap.ingest.store import SessionKey, open_store
    from edgecap.sim.demo import RIG, SITE

    key = SessionKey(SITE, RIG, session)

    def look() -> SessionReport:
        return verify_session(open_store(str(site.store)), key)

    patience, report = Patience(), None
    while report is None or not report.complete:
        site.check()
        with contextlib.suppress(StoreError):
            report = await asyncio.to_thread(look)
        if not patience.lasts((view.progress_made(), report and report.problems)):
            break
        if patience.should_say():
            view.wait_for(f"waiting until all is stored ({patience.waited_s:.0f} s): {view.standing()}")
        await asyncio.sleep(0.2)
    if report is None:
        raise EdgecapError(f"session {session} never reached the store", fix=f"see {site.out}/logs")
    # Delivered means that the rig has heard of it too.
    await until(site, view, "rid of its spool", lambda: view.spool_chunks == 0)
    return key, report


def _conclude(
    site: DemoSite, key: SessionKey, report: SessionReport, sent: dict[str, int], out: Path, view: DemoView
) -> dict[str, Any]:
    """Prove, export, draw; returns what `demo.json` says."""
    import msgspec

    from edgecap.dataset.mcap_export import export_mcap
    from edgecap.dataset.overview import draw_overview
    from edgecap.dataset.session import load_session
    from edgecap.ingest.store import open_store
    from edgecap.sim.demo import CAMERA, stream_recordings
    from edgecap.sim.proof import clip_pts_ns, prove_frames, prove_samples
    from edgecap.sim.recordings import RECORDINGS, VIDEO

    session = load_session(open_store(str(site.store)), key)
    proofs: list[StreamProof] = [
        prove_samples(
            session,
            stream,
            sent=sent[stream],
            recording=RECORDINGS[recording],
            truth=site.out / f"truth-{session.info(stream).device}.bin",
        )
        for stream, recording in stream_recordings().items()
    ]
    close = session.close or {"streams": {}}
    frames_sent = close["streams"].get(CAMERA, {}).get("device_sent") or 0
    proofs.append(prove_frames(session, CAMERA, sent=frames_sent, pts_ns=clip_pts_ns(VIDEO)))
    problems = [*report.problems, *(p.problem() for p in proofs if not p.holds)]
    if not any(m.kind == "went-wrong" for m in session.marks):
        problems.append("the double press left no mark")
    export = export_mcap(session, out, allow_incomplete=True, progress=view.progress)
    for proof in proofs:
        counted = {n for t, n in export.messages.items() if t in _per_sample_topics(proof.stream)}
        if counted != {proof.stored}:
            problems.append(f"{proof.stream}: the MCAP holds {sorted(counted)} messages, not {proof.stored}")
    overview = draw_overview(session, out / f"{key.session}.png")
    return {
        "ok": report.complete and not problems,
        "session": key.session,
        "complete": report.complete,
        "problems": problems,
        "streams": {p.stream: msgspec.to_builtins(p) for p in proofs},
        "clock_bound_us_max": max(p.bound_us_max for p in proofs),
        "clock_error_us_max": max(p.error_us_max for p in proofs),
        "marks": [msgspec.to_builtins(m) for m in session.marks],
        "mcap": str(Path(export.path).absolute()),
        "overview": str(overview.absolute()),
        "store": str(site.store),
        "broker": site.broker_program,
    }


def _per_sample_topics(stream: str) -> set[str]:
    from edgecap.dataset.mcap_streams import topic_base

    base = topic_base(stream)
    return {f"{base}/{kind}" for kind in ("imu", "magnetic", "channels", "video")}


def _tell(console: Console, result: dict[str, Any], out: Path) -> None:
    from rich.table import Table

    table = Table(
        title=f"session {result['session']}: stored against true values and times",
        title_justify="left",
        box=None,
    )
    for name in ("stream", "sent", "stored", "values", "p99 µs", "max µs", "bound µs", "inside"):
        justify: Literal["left", "right"] = "left" if name in ("stream", "values") else "right"
        table.add_column(name, justify=justify, no_wrap=True)
    for name, p in result["streams"].items():
        table.add_row(
            name,
            f"{p['sent']:,}",
            f"{p['stored']:,}",
            "same" if p["values_identical"] else "[red]differ[/]",
            f"{p['error_us_p99']:.1f}",
            f"{p['error_us_max']:.1f}",
            f"± {p['bound_us_max']:.0f}",
            f"{100 * p['inside_bound']:.1f} %",
        )
    console.print(table)
    for problem in result["problems"]:
        console.print(f"[red]✗[/] {problem}", highlight=False)
    if result["ok"]:
        console.print("[green]✓[/] complete: every chunk is there, the chain is unbroken, every check holds")
    for what in ("mcap", "overview"):
        console.print(f"  {what:9}{result[what]}", highlight=False, soft_wrap=True)
    console.print(f"  summary  {out / 'demo.json'}", highlight=False, soft_wrap=True)
    again = f"sessions show {shlex.quote(result['store'])} {result['session']}"
    console.print(f"  look at it again: {as_called()} {again}", highlight=False, soft_wrap=True)


def as_called() -> str:
    """How this program is called here: `make demo` puts nothing on the PATH."""
    program = Path(sys.argv[0])
    if program.name != "edgecap":
        return f"{sys.executable} -m edgecap"
    found = shutil.which("edgecap")
    return "edgecap" if found and program.resolve() == Path(found).resolve() else str(program)
