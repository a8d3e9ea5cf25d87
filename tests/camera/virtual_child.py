"""A camera's process on libcamera's virtual pipeline: real picamera2, real libcamera, no camera.

    virtual_child.py [FAULT …] [--once FILE] FD PARENT_PID

What a machine without a camera lacks is put in underneath picamera2 (display bindings, raw modes, the DMA
heap), and requests are released to the pipeline at the frame rate, as a sensor would complete them. That is
also where faults come from: missed ticks, a freeze, a cable that comes loose, a camera that somebody holds;
and inside picamera2 an encoder or a callback that raises on its event thread, buffers that do not come back,
a stop that hangs.
"""

from __future__ import annotations

import argparse
import itertools
import json
import mmap
import os
import sys
import threading
import time
import types
from collections import deque
from pathlib import Path

import libcamera


class Pacer:
    """Passes requests on to the virtual pipeline one per frame, instead of at once."""

    def __init__(
        self,
        rate_hz: float,
        miss: set[int],
        freeze_at: int,
        unplug_at: int = 0,
        unplugged: Path | None = None,
    ) -> None:
        self._period_s = 1 / rate_hz
        self._miss, self._freeze_at = miss, freeze_at
        self._unplug_at, self._unplugged = unplug_at, unplugged
        self._waiting = deque()
        self._running = False
        self._thread = None
        self._start, self._stop = libcamera.Camera.start, libcamera.Camera.stop
        self._queue = libcamera.Camera.queue_request

    def install(self) -> None:
        pacer = self

        def start(camera, *args):
            pacer._start(camera, *args)
            pacer._running = True
            pacer._thread = threading.Thread(target=pacer._run, args=(camera,), daemon=True)
            pacer._thread.start()

        def stop(camera):
            pacer._running = False
            if pacer._thread is not None:
                pacer._thread.join()
            pacer._waiting.clear()
            pacer._stop(camera)

        libcamera.Camera.start, libcamera.Camera.stop = start, stop
        libcamera.Camera.queue_request = lambda _, request: pacer._waiting.append(request)

    def _run(self, camera) -> None:
        due = time.monotonic()
        ticks = 0
        while self._running:
            due += self._period_s
            time.sleep(max(due - time.monotonic(), 0))
            ticks += 1
            if ticks == self._unplug_at:
                self._unplugged.touch()
                self._stop(camera)  # what is queued completes as cancelled, and nothing comes any more
                return
            if ticks in self._miss or 0 < self._freeze_at <= ticks:
                continue
            if self._waiting and self._running:
                self._queue(camera, self._waiting.popleft())


def install_memory() -> None:
    """Buffers from memfd in place of the DMA heap."""
    from picamera2 import picamera2 as module
    from picamera2.allocators.allocator import Allocator

    class Sync:
        def __init__(self, allocator, buffer, write) -> None:
            self._memory = allocator.mapped_buffers[buffer]

        def __enter__(self):
            return self._memory

        def __exit__(self, *_) -> None:
            pass

    class MemfdAllocator(Allocator):
        def __init__(self) -> None:
            super().__init__()
            self.sync = Sync
            self.mapped_buffers = {}
            self._buffers = {}
            self._fds = []

        def allocate(self, libcamera_config, _) -> None:
            self.close()
            for config in libcamera_config:
                self._buffers[config.stream] = [self._make(config) for _ in range(config.buffer_count)]

        def _make(self, config):
            fd = os.memfd_create("frame")
            os.ftruncate(fd, config.frame_size)
            self._fds.append(fd)
            luma = config.stride * config.size.height
            planes = []
            for offset, length in ((0, luma), (luma, config.frame_size - luma)):  # NV12
                plane = libcamera.FrameBuffer.Plane()
                plane.fd, plane.offset, plane.length = fd, offset, length
                planes.append(plane)
            buffer = libcamera.FrameBuffer(planes)
            self.mapped_buffers[buffer] = mmap.mmap(fd, config.frame_size)
            return buffer

        def buffers(self, stream):
            return self._buffers[stream]

        def close(self) -> None:
            for fd in self._fds:
                os.close(fd)
            self._fds, self._buffers, self.mapped_buffers = [], {}, {}

    module.DmaAllocator = MemfdAllocator


def install_shims() -> None:
    sys.modules["pykms"] = types.ModuleType("pykms")
    sys.modules["pykms"].PixelFormat = types.SimpleNamespace(
        RGB888=0,
        BGR888=0,
        XRGB8888=0,
        XBGR8888=0,
        YUV420=0,
        YVU420=0,
        MJPEG=0,
        NV12=0,
        NV21=0,
        YUYV=0,
        YVYU=0,
        UYVY=0,
        VYUY=0,
    )
    from picamera2 import Picamera2

    Picamera2._get_raw_modes = lambda self: [{"format": "NV12", "size": (1280, 720)}]
    install_memory()


def die_at(number: int) -> None:
    """Make the encoder raise at its frame `number`, which ends picamera2's event thread."""
    from picamera2.encoders import LibavH264Encoder

    encode = LibavH264Encoder._encode

    def failing(self, stream, request):
        if self.frames_encoded == number:
            raise RuntimeError("encoder broke")
        encode(self, stream, request)

    LibavH264Encoder._encode = failing


def raise_in_callback_at(number: int) -> None:
    """Make the metadata of request `number` unreadable, which `pre_callback` does on the event thread."""
    from picamera2.request import CompletedRequest

    read, calls = CompletedRequest.get_metadata, itertools.count()

    def failing(self):
        if next(calls) == number:
            raise RuntimeError("metadata broke")
        return read(self)

    CompletedRequest.get_metadata = failing


def tell(told: dict) -> None:
    """What a sensor's driver would say of each frame beside its time stamp."""
    from picamera2.request import CompletedRequest

    read = CompletedRequest.get_metadata
    more = {k: tuple(v) if isinstance(v, list) else v for k, v in told.items()}
    CompletedRequest.get_metadata = lambda self: read(self) | more


def keep_tuning(path: Path) -> None:
    """Copy the tuning file that libcamera would read whenever its manager starts."""
    singleton = libcamera.CameraManager.singleton

    def starting():
        found = os.environ.get("LIBCAMERA_RPI_TUNING_FILE")
        if found:
            path.write_bytes(Path(found).read_bytes())
        return singleton()

    libcamera.CameraManager.singleton = starting


def starve_at(number: int) -> None:
    """From release `number` on no buffer goes back to the camera."""
    from picamera2.request import CompletedRequest

    release, calls = CompletedRequest.release, itertools.count()
    CompletedRequest.release = lambda self: release(self) if next(calls) < number else None


def hang_in_open() -> None:
    from picamera2 import Picamera2

    Picamera2.configure = lambda *_: threading.Event().wait()


def hang_in_stop() -> None:
    from picamera2 import Picamera2

    Picamera2.stop_recording = lambda self: threading.Event().wait()


def hold_camera() -> None:
    """Acquire every camera before picamera2 does: libcamera itself then says that they are busy."""
    held = libcamera.CameraManager.singleton()
    for camera in held.cameras:
        camera.acquire()
    sys.modules["held_cameras"] = held


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=float, default=30.0)
    parser.add_argument("--miss-ticks", default="")
    parser.add_argument("--freeze-at", type=int, default=0)
    parser.add_argument("--die-at", type=int, default=0)
    parser.add_argument("--callback-raises-at", type=int, default=0)
    parser.add_argument("--starve-at", type=int, default=0)
    parser.add_argument("--hang-in-stop", type=int, default=0)
    parser.add_argument("--hang-in-open", type=int, default=0)
    parser.add_argument("--held", type=int, default=0)
    parser.add_argument("--unplug-at", type=int, default=0)
    parser.add_argument("--tell", type=json.loads, default={})
    parser.add_argument("--keep-tuning", type=Path)
    parser.add_argument("--unplugged", type=Path, help="while this file exists there is no camera")
    parser.add_argument("--once", type=Path, help="faults only while this file does not exist; makes it")
    parser.add_argument("link", nargs=2)
    args = parser.parse_args()
    faulty = args.once is None or not args.once.exists()
    if args.once is not None:
        args.once.touch()
    miss = {int(t) for t in args.miss_ticks.split(",") if t} if faulty else set()
    if args.unplugged is not None and args.unplugged.exists():
        os.environ["LIBCAMERA_PIPELINES_MATCH_LIST"] = "none"
    install_shims()
    freeze_at, unplug_at = (args.freeze_at, args.unplug_at) if faulty else (0, 0)
    Pacer(args.rate, miss, freeze_at, unplug_at, args.unplugged).install()
    for number, fault in (
        (args.die_at, die_at),
        (args.callback_raises_at, raise_in_callback_at),
        (args.starve_at, starve_at),
    ):
        if number and faulty:
            fault(number)
    if args.keep_tuning:
        keep_tuning(args.keep_tuning)
    if args.tell:
        tell(args.tell)
    if args.hang_in_open:
        hang_in_open()
    if args.hang_in_stop:
        hang_in_stop()
    if args.held:
        hold_camera()
    from edgecap.source import camera_child

    sys.argv[1:] = args.link
    camera_child.main()


if __name__ == "__main__":
    main()
