"""`edgecap run`: the daemon, composed of real back-ends."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from edgecap.cli.broker import add_rig_options
from edgecap.errors import SpoolError

if TYPE_CHECKING:
    from edgecap.config import CameraConfig, Config, IioConfig
    from edgecap.daemon.intent import Panel
    from edgecap.daemon.reporting import Reporter
    from edgecap.daemon.rig import Rig
    from edgecap.mqtt import Broker
    from edgecap.session.manifest import Continued, Provenance
    from edgecap.source.protocol import Source
    from edgecap.spool import Spool

log = logging.getLogger("edgecap.run")

DELIVERY_AGAIN_S = 10.0

EXAMPLE = """\
examples:
  edgecap run                              with ./edgecap.toml or /etc/edgecap/edgecap.toml
  edgecap run --config rig.toml --broker mqtt://192.0.2.7:1883
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "run",
        help="the daemon",
        description="Record sessions on this rig and deliver them. Stops cleanly on SIGTERM and SIGINT.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_rig_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from edgecap.cli.config import refuse_unrunnable
    from edgecap.cli.kernel_cache import compile_missing
    from edgecap.config import load_config
    from edgecap.memory import share_one_heap, uncollected

    share_one_heap()
    config = load_config(args.config)
    refuse_unrunnable(config)
    broker = broker_of(config, args.broker)
    compile_missing()
    with uncollected():
        sources = sources_of(config)
    asyncio.run(serve(config, broker, sources))
    return 0


def broker_of(config: Config, option: str | None) -> Broker | None:
    """The broker to deliver to; None when none is named: the spool keeps everything."""
    from edgecap.config import broker_file
    from edgecap.mqtt import BROKER_VARIABLE, find_broker

    if not (option or os.environ.get(BROKER_VARIABLE) or config.broker.url):
        return None

    return find_broker(
        option,
        config_url=config.broker.url,
        password_file=broker_file(config.broker, "password_file"),
        ca_file=broker_file(config.broker, "ca_file"),
        cert_file=broker_file(config.broker, "cert_file"),
        key_file=broker_file(config.broker, "key_file"),
    )


def camera_of(config: CameraConfig) -> Source:
    """The back-end that a `[[camera]]` table asks for."""
    from edgecap.config import FileCameraConfig, SyntheticCameraConfig, UvcCameraConfig
    from edgecap.source.camera_exposure import ExposurePolicy
    from edgecap.source.camera_file import FileCamera
    from edgecap.source.camera_pi import PiCamera
    from edgecap.source.camera_synthetic import SyntheticCamera
    from edgecap.source.camera_uvc import UvcCamera

    if isinstance(config, FileCameraConfig):
        return FileCamera(
            config.name,
            Path(config.path),
            fps=config.fps or None,
            loop=config.loop,
            bitrate_kbps=config.bitrate_kbps,
            preview_s=config.preview_seconds,
        )
    if isinstance(config, SyntheticCameraConfig):
        return SyntheticCamera(
            config.name,
            width=config.width,
            height=config.height,
            fps=config.fps,
            seed=config.seed,
            bitrate_kbps=config.bitrate_kbps,
            preview_s=config.preview_seconds,
        )
    if isinstance(config, UvcCameraConfig):
        return UvcCamera(
            config.name,
            config.device,
            width=config.width,
            height=config.height,
            fps=config.fps,
            wanted=config.input,
            codec=config.codec,
            bitrate_kbps=config.bitrate_kbps,
            preview_s=config.preview_seconds,
        )
    return PiCamera(
        config.name,
        camera_id=config.camera_id,
        width=config.width,
        height=config.height,
        fps=config.fps,
        bitrate_kbps=config.bitrate_kbps,
        encoder=config.encoder,
        codec=config.codec,
        exposure=ExposurePolicy(config.exposure_us, config.gain, config.max_exposure_us),
        preview_s=config.preview_seconds,
    )


def iio_of(config: IioConfig) -> Source:
    """The sensor that an `[[iio]]` table asks for."""
    from edgecap.source.iio import IioSource
    from edgecap.source.iio_device import Wanted

    wanted = Wanted(
        config.device,
        config.rate_hz,
        config.channels,
        config.attributes,
        config.trigger,
        config.clock,
        config.batch_ms * 1e-3,
    )
    return IioSource(
        config.name, wanted, latency_ns=round(config.latency_us * 1e3), lag_ns=round(config.lag_us * 1e3)
    )


def sources_of(config: Config) -> list[Source]:
    """Every configured device as a source."""
    from edgecap.source.serial_mcu import SerialSource

    serial: list[Source] = [SerialSource(s.name, s.port, s.baud, s.rates) for s in config.serial]
    return serial + [iio_of(c) for c in config.iio] + [camera_of(c) for c in config.camera]


async def serve(config: Config, broker: Broker | None, sources: Sequence[Source]) -> None:
    """Run one rig until SIGTERM or SIGINT."""
    from edgecap.memory import uncollected

    with uncollected():
        from edgecap.clock import now_ns
        from edgecap.daemon.pulse import Pulse
        from edgecap.daemon.recovery import close_interrupted
        from edgecap.daemon.reporting import Reporter
        from edgecap.daemon.rig import Rig
        from edgecap.daemon.shift import Shift
        from edgecap.kernels.compile import cache_state, warm_up
        from edgecap.spool.handover import apply_receipts
        from edgecap.spool.writer import SpoolWriter
        from edgecap.threads import full_pool
        from edgecap.uplink import Uplink

    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.set_default_executor(full_pool())
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    found, was_grounded = await open_spool(config, broker, sources, stop)
    if found is None:
        return
    with found as spool:
        pulse = Pulse(Path(config.spool.dir))
        cut_off = Shift(pulse).cut_off()
        async with _feeding(needed=was_grounded):
            for session in await asyncio.to_thread(close_interrupted, spool, pulse):
                log.warning("closed %s, which was interrupted", session)
            if released := await asyncio.to_thread(apply_receipts, spool):
                log.info("released %d chunks that receipts carried by hand name", released)
            await asyncio.to_thread(lambda: list(warm_up()))
        if not cache_state().writable:
            log.warning("no kernel cache can be written: every start compiles; set NUMBA_CACHE_DIR")
        uplink = Uplink(
            spool,
            config.site,
            config.rig,
            window=config.uplink.window,
            resend_s=config.uplink.resend_seconds,
            max_bytes_s=config.uplink.max_kbit_s * 125 or None,
            on_event=lambda kind, text: rig.say(kind, now_ns(), text),
        )
        uplink.paused = config.uplink.paused
        async with SpoolWriter(spool, durable=lambda _: uplink.notify()) as writer:
            rig = Rig(config, sources=sources, writer=writer, pulse=pulse)
            reporter = Reporter(rig, uplink)
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, rig.shut_down)
            if stop.is_set():
                rig.shut_down()
            await _live(rig, reporter, broker, cut_off=cut_off, was_grounded=was_grounded)


async def _live(
    rig: Rig,
    reporter: Reporter,
    broker: Broker | None,
    *,
    cut_off: tuple[Provenance, Continued] | None,
    was_grounded: bool,
) -> None:
    """Run the rig, and beside it whatever serves it, until it has shut down."""
    from edgecap.daemon.neighbour import tell_neighbours
    from edgecap.service import notify_systemd

    async with tell_neighbours(rig.config.spool.dir, reporter.status), asyncio.TaskGroup() as group:
        beside = [
            group.create_task(_announce(rig, was_grounded=was_grounded), name="announce"),
            group.create_task(_stay_tidy(rig), name="memory"),
        ]
        panel = panel_of(rig.config, rig.buttons.edge)
        if panel is not None:
            tell = partial(rig.note_part, "button")
            beside.append(group.create_task(rig.panels.keep(panel, tell), name="panel"))
        if cut_off is not None:
            beside.append(group.create_task(_go_on(rig, *cut_off), name="go on"))
        if broker is not None:
            beside.append(group.create_task(_report(rig, reporter, broker), name="report"))
        await rig.run()
        notify_systemd("STOPPING=1")
        await reporter.leave(2.0)
        for task in beside:
            task.cancel()


async def open_spool(
    config: Config, broker: Broker | None, sources: Sequence[Source], stop: asyncio.Event
) -> tuple[Spool | None, bool]:
    """Open the spool, however long that takes; None when told to stop before that.

    Returns:
        The spool, and whether it could not be opened at once: systemd then takes the daemon for ready.

    Raises:
        SpoolError: another daemon has it: two must not fight for devices and lights.
    """
    from edgecap.daemon.grounded import Grounded
    from edgecap.spool import Spool

    def attempt() -> Spool:
        return Spool.open(
            Path(config.spool.dir),
            segment_bytes=config.spool.segment_mb << 20,
            reserve_bytes=config.spool.reserve_mb << 20,
        )

    try:
        return attempt(), False
    except SpoolError as error:
        if "holder" in error.evidence:
            raise
        log.error("%s", error)
        waiting = Grounded(config, sources, error)
        panel = panel_of(config, lambda **_: None)
        return await waiting.wait(attempt, broker=broker, panel=panel, stop=stop), True


def panel_of(
    config: Config, edge: Callable[..., object]
) -> Callable[[], AbstractContextManager[Panel]] | None:
    """Opens the rig's own button, light and buzzer; None where no pins are configured for them."""
    from edgecap.source.gpio import GpioPanel
    from edgecap.source.kernel_light import KernelLight

    pins = config.button
    if max(pins.gpio, pins.led_gpio, pins.buzzer_gpio) < 0 and not pins.led_name:
        return None

    def number(pin: int) -> int | None:
        return pin if pin >= 0 else None

    return GpioPanel(
        button=number(pins.gpio),
        led=number(pins.led_gpio),
        buzzer=number(pins.buzzer_gpio),
        light=KernelLight(pins.led_name) if pins.led_name else None,
        on_edge=lambda down, t_ns: edge(down=down, t_ns=t_ns),
    ).open


async def _report(rig: Rig, reporter: Reporter, broker: Broker) -> None:
    """Speak to the fleet once the devices are open: a rig that cannot hear its button yet is not idle."""
    await rig.ready()
    task = asyncio.current_task()
    while True:
        try:
            return await reporter.run(broker)
        except Exception as error:
            # The boundary between delivery and recording: what is wrong here must not end what goes well.
            if task is not None and task.cancelling():
                raise asyncio.CancelledError from error  # a task group tells of its child's error alone
            log.exception("delivery failed")
            what = f"delivery failed: {type(error).__name__}: {error}"
            rig.note_part("delivery", f"{what}; it begins again by itself, the log says more")
            await asyncio.sleep(DELIVERY_AGAIN_S)
            rig.note_part("delivery", "")


async def _go_on(rig: Rig, provenance: Provenance, continued: Continued) -> None:
    """Continue the session during which the daemon before this one hung."""
    from edgecap.clock import now_ns
    from edgecap.daemon.intent import Intent

    await rig.ready()
    start = Intent("start", "watchdog", now_ns(), provenance=provenance, continued=continued)
    result = await rig.ask(start)
    went = f"goes on as {rig.session.last}" if result.ok else f"is not gone on with: {result.message}"
    log.warning("the daemon hung while it recorded %s, which %s", continued.session, went)


async def _stay_tidy(rig: Rig) -> None:
    """Once everything is set up, give memory back whenever nothing is recorded."""
    from edgecap.memory import stay_tidy

    await rig.ready()
    await stay_tidy(lambda: rig.recorder is None)


@contextlib.asynccontextmanager
async def _feeding(*, needed: bool) -> AsyncIterator[None]:
    """Feed systemd's watchdog meanwhile, where it has been told READY already."""
    from edgecap.service import notify_systemd, watchdog_period_s

    async def feed() -> None:
        while True:
            notify_systemd("WATCHDOG=1\nSTATUS=starting")
            await asyncio.sleep(watchdog_period_s())

    task = asyncio.create_task(feed(), name="feeding") if needed else None
    try:
        yield
    finally:
        if task is not None:
            task.cancel()
            await asyncio.wait([task])


async def _announce(rig: Rig, *, was_grounded: bool) -> None:
    """Tell systemd that the rig is ready, then feed its watchdog while data flows."""
    from edgecap.clock import now_ns
    from edgecap.service import notify_systemd, watchdog_period_s

    async with _feeding(needed=was_grounded):
        await rig.ready()
    notify_systemd("READY=1")
    streams = ", ".join(i.name for s in rig.devices.open for i in s.feed.info)
    log.info("ready: %s", streams or "no device works yet; each is tried again by itself")
    while True:
        if rig.advancing(now_ns()):
            notify_systemd(f"WATCHDOG=1\nSTATUS={rig.machine.state.value} {rig.session.last}")
        await asyncio.sleep(watchdog_period_s())
