"""What one device's frames mean: samples, events, losses, clock. No I/O; the link hands batches in."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgecap.errors import FrameError
from edgecap.kernels import framing
from edgecap.model import I64, ClockFit, DeviceEvent, StreamInfo
from edgecap.source.button_times import ButtonTimes
from edgecap.source.deframer import Batch, Deframer
from edgecap.source.descriptors import TICK_NS, DeviceInfo, stream_infos, value_bytes
from edgecap.source.frames import NO_STREAM, Ack, Event, EventCode, Hello, Kind, Log, parse_frame
from edgecap.source.item_queue import ItemQueue
from edgecap.source.stream_track import StreamTrack
from edgecap.timeline.device_clock import KIND_OTHER, KIND_PONG, KIND_SAMPLES, DeviceClock
from edgecap.timeline.quality import ClockQuality

_CLOCK_KIND = np.full(256, KIND_OTHER, np.uint8)
_CLOCK_KIND[Kind.SAMPLES] = KIND_SAMPLES
_CLOCK_KIND[Kind.PONG] = KIND_PONG
_HEADS = np.zeros(256, np.bool_)
_HEADS[[Kind.HELLO, Kind.ACK]] = True
_KNOWN = np.zeros(256, np.bool_)
_KNOWN[[Kind.HELLO, Kind.SAMPLES, Kind.PONG, Kind.EVENT, Kind.ACK, Kind.LOG]] = True

_REORDERED = 64
"""A frame number that falls back by more than this is a restart of the device, not a late frame; one that
leaps ahead by more may be another device's."""


class SerialStatistics(msgspec.Struct, frozen=True):
    """What a serial source counts about itself, since it was opened."""

    bytes: int
    reads: int
    frames: int
    bad_crc: int
    bad_cobs: int
    too_long: int
    too_short: int
    bad_version: int
    bad_payload: int
    unknown_type: int
    frames_lost: int
    """By the jumps of the device's frame numbers."""
    repeated: int
    """SAMPLES frames dropped because their samples had come already."""
    stray: int
    """SAMPLES frames that belong to no recording."""
    resets: int
    reconnects: int
    not_sent: int
    """Frames to the device refused because the line was stuck."""
    queued: int
    queue_dropped: int
    """Sample blocks lost because the daemon did not take them."""
    queue_dropped_events: int
    """Events lost for the same reason, once no block was left to lose."""
    clock: ClockQuality


class Peer(Protocol):
    """Who is told of frames that concern the conversation rather than the data."""

    def on_hello(self, hello: Hello) -> None: ...

    def on_ack(self, ack: Ack) -> None: ...

    def on_restart_suspected(self) -> None: ...


PING_WIRE_BYTES, PONG_WIRE_BYTES = 22, 30
"""Body, COBS code byte and delimiter (hw/PROTOCOL.md)."""


class Intake:
    """Turns batches of frames into items on the queue, and keeps every count.

    Frames are taken in order: what precedes a HELLO of another boot belongs to the boot before, what follows
    the ACK of START belongs to the recording.
    """

    def __init__(
        self, name: str, queue: ItemQueue, deframer: Deframer, peer: Peer, *, wire_byte_ns: int = 0
    ) -> None:
        """Args:
        name: Of the device.
        queue: Where items go.
        deframer: Told which streams there are.
        peer: Told of HELLO and ACK, in order with the data.
        wire_byte_ns: Least time that a byte takes on the wire; 0 where it is unknown or nothing (USB).
        """
        self.name = name
        self.infos: tuple[StreamInfo, ...] = ()
        self.clock = DeviceClock(
            TICK_NS,
            ping_least_ns=PING_WIRE_BYTES * wire_byte_ns,
            reply_least_ns=PONG_WIRE_BYTES * wire_byte_ns,
        )
        self.sampling = False
        """Whether SAMPLES belong to a recording."""
        self.lost_frames = 0
        self.unknown_type = self.bad_payload = self.stray = self.resets = 0
        self.heard_ns = 0
        """Arrival of the last frame."""
        self.said_ns = 0
        """When the device sent the last frame, or somewhat earlier, as far as it is known."""
        self._queue, self._deframer, self._peer = queue, deframer, peer
        self._tracks: tuple[StreamTrack, ...] = ()
        self._unfit: list[int] = []
        """By stream: SAMPLES frames since the last good one that its descriptor does not fit."""
        self._undescribed: set[int] = set()
        """Numbers in SAMPLES frames of streams that it did not describe."""
        self._repeats: list[int] = []
        """By stream: frames taken for repetitions up to the last good one."""
        self.boot_id: int | None = None
        """Of the device's last HELLO."""
        self._seq: int | None = None
        self._button = ButtonTimes()
        self._fit: ClockFit | None = None

    # ── the recording ───────────────────────────────────────────────────────────────────────────────

    def describe(self, device: DeviceInfo, where: str) -> None:
        """Follow the streams of this device. Raises `SourceError` if it contradicts itself."""
        self.infos = stream_infos(device, self.name, where)
        self._deframer.sample_bytes[:] = 0
        tracks = []
        for info, stream in zip(self.infos, device.streams, strict=True):
            width = value_bytes(stream)
            self._deframer.sample_bytes[stream.stream] = width * len(stream.channels)
            tracks.append(StreamTrack(info, width))
        self._tracks = tuple(tracks)
        self._unfit, self._repeats = [0] * len(tracks), [0] * len(tracks)
        self._undescribed.clear()

    def begin(self, t_ns: int) -> None:
        """START was acknowledged for a new recording."""
        for track in self._tracks:
            track.begin(t_ns, self.lost_frames)
        self.sampling = True

    def restart(self, t_ns: int) -> None:
        """START was acknowledged anew within the recording."""
        for track in self._tracks:
            track.restart(t_ns, self.lost_frames)
        self.sampling = True

    def interrupt(self, cause: str) -> None:
        """Note that the line or the device failed during the recording."""
        for track in self._tracks:
            track.interrupt(cause)

    def end(self, totals: tuple[int, ...] | None, t_ns: int) -> dict[str, int]:
        """STOP was acknowledged with `totals`, or never (None); returns what the device sent per stream."""
        self.sampling = False
        sent: dict[str, int] = {}
        for number, track in enumerate(self._tracks):
            total = totals[number] if totals is not None and number < len(totals) else None
            items, count = track.end(total, t_ns, self.lost_frames)
            for item in items:
                self._queue.put(item)
            if count is not None:
                sent[track.info.name] = count
        return sent

    def check_silent(self, now_ns: int) -> bool:
        """Report each stream that has fallen silent, once; returns whether any is silent now."""
        if not self.sampling:
            return False
        for number, track in enumerate(self._tracks):
            if track.check_silent(now_ns):
                name = track.info.name
                self.tell("fault", now_ns, f"{name} is silent{self._why_silent(number)}", sensor=name)
        return any(track.silent for track in self._tracks)

    def _why_silent(self, number: int) -> str:
        """What the device sends instead of samples that can be taken, and the fix; empty if nothing."""
        info, unfit = self._tracks[number].info, self._unfit[number]
        repeats = self._tracks[number].repeated - self._repeats[number]
        fix = "; correct its firmware (SAMPLES in hw/PROTOCOL.md)"
        if unfit:
            row = f"{len(info.channels)} × {info.dtype}"
            return f": {unfit} SAMPLES frames came, none of which has the length of rows of {row}{fix}"
        if repeats > 1:
            return f": {repeats} SAMPLES frames came, whose index does not go on from one to the next{fix}"
        if self._undescribed:
            numbers = ", ".join(map(str, sorted(self._undescribed)))
            described = f"its HELLO describes 0 to {len(self._tracks) - 1}"
            return f": SAMPLES frames came of stream {numbers}, {described}{fix}"
        return ""

    def tell(self, kind: str, t_ns: int, text: str = "", sensor: str = "") -> None:
        """Queue a device event."""
        self._queue.put(DeviceEvent(self.name, kind, t_ns, text, sensor))

    # ── frames ──────────────────────────────────────────────────────────────────────────────────────

    def process(self, batch: Batch) -> None:
        """Take in all frames of a batch."""
        frames = batch.frames
        if not len(frames):
            return
        self.heard_ns = int(frames["arrival_ns"][-1])
        heads = _HEADS[frames["type"]]
        if not heads.any():
            self._take(batch)
            return
        start = 0
        for at in np.flatnonzero(heads).tolist():
            if at > start:
                self._take(Batch(frames[start:at], batch.bodies))
            start = at
        self._take(Batch(frames[start:], batch.bodies))

    def _take(self, batch: Batch) -> None:
        """Frames of which at most the first is a HELLO or an ACK."""
        frames = batch.frames
        head = self._parse(batch, 0) if frames["type"][0] in (Kind.HELLO, Kind.ACK) else None
        if isinstance(head, Hello):
            self._note_boot(head, int(frames["arrival_ns"][0]))
        if self.boot_id is None:
            return  # before the first HELLO nothing can be understood
        lost = self._count_seq(frames["seq"].astype(np.int64))
        epoch = self.clock.epoch
        kinds = np.where(frames["bad"], KIND_OTHER, _CLOCK_KIND[frames["type"]])
        ticks = self.clock.feed(
            kinds,
            frames["arrival_ns"],
            frames["seq"],
            frames["t_us"],
            frames["prev_tx_done_us"],
            frames["has_prev"],
            frames["index"],
            frames["t2_us"],
            np.uint32(self.boot_id),
        ).copy()
        published = self.clock.published.copy()
        epochs = published[:, 3]
        times_ns = np.minimum(published[:, 1], frames["arrival_ns"])
        self.said_ns = int(times_ns[-1])
        if epoch >= 0 and self.clock.epoch != epoch and not isinstance(head, Hello):
            self._peer.on_restart_suspected()  # its counter has jumped: it may be another's
        fit = self.clock.fit()
        if isinstance(head, Hello):
            self._peer.on_hello(head)
        elif isinstance(head, Ack):
            self._peer.on_ack(head)
        if (kinds == KIND_OTHER).any():
            self._take_others(batch, times_ns)
            unfit = (frames["type"] == Kind.SAMPLES) & (frames["bad"] != 0)
            for number in frames["stream"][unfit].tolist():
                if number < len(self._unfit):
                    self._unfit[number] += 1
                else:
                    self._undescribed.add(number)
        samples = np.flatnonzero(kinds == KIND_SAMPLES)
        if len(samples):
            self._take_samples(batch, samples, ticks, epochs, fit, lost)
        self._fit = fit

    def _take_samples(
        self, batch: Batch, samples: I64, ticks: I64, epochs: I64, fit: ClockFit, lost: I64
    ) -> None:
        if not self.sampling:
            self.stray += len(samples)
            return
        fits = dict.fromkeys(set(epochs.tolist()), fit)
        if self._fit is not None:
            fits[self._fit.epoch] = self._fit  # frames before a restart of the clock keep the fit they had
        fits[fit.epoch] = fit
        streams = batch.frames["stream"][samples]
        for number, track in enumerate(self._tracks):
            rows = samples[streams == number]
            if len(rows):
                items = track.add(batch, rows, ticks[rows], epochs[rows], fits, lost[rows])
                for item in items:
                    self._queue.put(item)
                if items:
                    self._unfit[number], self._repeats[number] = 0, track.repeated

    def _take_others(self, batch: Batch, times_ns: I64) -> None:
        """EVENT, LOG and whatever is not understood, with the rig time of each frame."""
        kinds = batch.frames["type"]
        for row in np.flatnonzero((kinds != Kind.SAMPLES) & (kinds != Kind.PONG)).tolist():
            kind = int(kinds[row])
            if not _KNOWN[kind]:
                self.unknown_type += 1
            elif kind in (Kind.EVENT, Kind.LOG) and not batch.frames["bad"][row]:
                frame = self._parse(batch, row)
                t_ns = int(times_ns[row])
                if isinstance(frame, Event):
                    self._take_event(frame, t_ns, int(batch.frames["arrival_ns"][row]))
                elif isinstance(frame, Log):
                    self.tell("log", t_ns, frame.text)

    def _take_event(self, event: Event, t_ns: int, arrival_ns: int) -> None:
        track = self._tracks[event.stream] if event.stream < len(self._tracks) else None
        # A board that sampled for a host before us may speak of streams that it has not described yet.
        stream = "" if track is None or event.stream == NO_STREAM else track.info.name
        of = f"{stream}: " if stream else ""
        match event.code:
            case EventCode.BUTTON_DOWN | EventCode.BUTTON_UP:
                down = event.code == EventCode.BUTTON_DOWN
                placed_ns = self._button.place(down, event.t_us, t_ns, arrival_ns)
                if placed_ns is not None:
                    self.tell("button-down" if down else "button-up", placed_ns, event.text)
            case EventCode.OVERRUN:
                if track is not None:
                    track.overrun(event.arg)
                self.tell("fault", t_ns, f"{stream or 'it'} overran: {event.arg} samples lost in the device")
            case EventCode.SENSOR_FAULT:
                self.tell("fault", t_ns, f"{of}{event.text or 'sensor fault'}", stream)
            case EventCode.SENSOR_OK:
                self.tell("log", t_ns, f"{of}sensor is back", stream)
            case EventCode.LED_ON:
                self.tell("led-on", t_ns, event.text)
            case EventCode.LED_OFF:
                self.tell("led-off", t_ns, event.text)
            case _:
                self.tell("log", t_ns, f"unknown event {event.code} {event.text}".rstrip())

    def _parse(self, batch: Batch, row: int) -> object:
        """The typed frame of a row; None, and counted, if its payload does not match its type."""
        frame = batch.frames[row]
        payload = batch.bodies[frame["start"] : frame["start"] + frame["length"]].tobytes()
        try:
            return parse_frame(int(frame["type"]), payload)
        except FrameError:
            self.bad_payload += 1
            return None

    def _note_boot(self, hello: Hello, arrival_ns: int) -> None:
        if hello.boot_id == self.boot_id:
            return
        if self.boot_id is not None:
            self.resets += 1
            self.tell("reset", arrival_ns, f"boot id {self.boot_id:08x} → {hello.boot_id:08x}")
            self.interrupt("reset")
            self.sampling = False
            self.clock.begin_boot()
        self.boot_id, self._seq, self._button = hello.boot_id, None, ButtonTimes()

    def _count_seq(self, seq: NDArray[np.int64]) -> I64:
        """Frames lost on the line before each of these, since the source was opened; (m,) int64."""
        if self._seq is not None and seq[0] == self._seq + 1 and (seq[1:] - seq[:-1] == 1).all():
            self._seq = int(seq[-1])  # nearly always
            return np.full(len(seq), self.lost_frames, np.int64)
        before = np.empty_like(seq)
        before[0] = seq[0] - 1 if self._seq is None else self._seq
        before[1:] = seq[:-1]
        steps = ((seq - before + 0x80000000) & 0xFFFFFFFF) - 0x80000000
        if steps.min() < -_REORDERED or steps.max() > _REORDERED:
            self._peer.on_restart_suspected()
        lost: I64 = self.lost_frames + np.cumsum(np.maximum(steps - 1, 0))
        self.lost_frames = int(lost[-1])
        self._seq = int(seq[-1])
        return lost

    def statistics(self, **others: Any) -> SerialStatistics:
        """All counts; `others` are those of the link."""
        counts = self._deframer.counts
        return SerialStatistics(
            bytes=self._deframer.bytes,
            reads=self._deframer.reads,
            frames=int(counts[framing.N_OK]),
            bad_crc=int(counts[framing.N_BAD_CRC]),
            bad_cobs=int(counts[framing.N_BAD_COBS]),
            too_long=int(counts[framing.N_TOO_LONG]),
            too_short=int(counts[framing.N_TOO_SHORT]),
            bad_version=int(counts[framing.N_BAD_VERSION]),
            bad_payload=int(counts[framing.N_BAD_FIELDS]) + self.bad_payload,
            unknown_type=self.unknown_type,
            frames_lost=self.lost_frames,
            repeated=sum(t.repeated for t in self._tracks),
            stray=self.stray,
            resets=self.resets,
            queued=len(self._queue),
            queue_dropped=self._queue.dropped_blocks,
            queue_dropped_events=self._queue.dropped_events,
            clock=self.clock.quality(),
            **others,
        )
