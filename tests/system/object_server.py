"""A real S3 protocol server on loopback (moto, in its own process), and a wire to it that breaks at will."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Self

import boto3
import pytest
from botocore.exceptions import BotoCoreError, ClientError

from edgecap.sim.broker import HeldPort

BUCKET = "rigs"
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}
READY_S = 30.0


class ObjectServer:
    """What is in it lives as long as its process; a context manager that ends it."""

    def __init__(self, directory: Path) -> None:
        self.log_file = directory / "moto.log"
        self._held = HeldPort()
        self.port = self._held.number
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def environ(self, endpoint: str = "") -> dict[str, str]:
        return {"AWS_ENDPOINT_URL": endpoint or self.url, **KEYS}

    def start(self) -> None:
        """Start it with an empty bucket."""
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + READY_S
        while True:
            try:
                self.client().create_bucket(Bucket=BUCKET)
                return
            except (BotoCoreError, ClientError):
                assert self._process.poll() is None, self.log_file.read_text()
                assert time.monotonic() < deadline, self.log_file.read_text()
                time.sleep(0.02)

    def client(self):
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id="test",
            aws_secret_access_key="secret",
            region_name="us-east-1",
            config=Config(retries={"max_attempts": 0}, connect_timeout=1, read_timeout=5),
        )

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def names(self, prefix: str = "") -> list[str]:
        """Every key, by another client than ours."""
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return [found["Key"] for page in pages for found in page.get("Contents", ())]

    def read(self, name: str) -> bytes:
        return self.client().get_object(Bucket=BUCKET, Key=name)["Body"].read()

    def write(self, name: str, data: bytes) -> None:
        self.client().put_object(Bucket=BUCKET, Key=name, Body=data)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


class Wire:
    """Relays TCP to a server; the next puts can be cut in the middle, or their answers lost.

    Attributes:
        cut: So many of the next puts reach the server only in part.
        lose: So many of the next puts reach the server, and their answers do not come back.
        down: Whoever connects or sends is cut off.
        puts: Puts seen.
    """

    def __init__(self, port: int) -> None:
        self.port, self._target = 0, port
        self.cut = self.lose = self.puts = 0
        self.down = False
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._end = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._end.wait()
        server.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        losing = False

        async def there() -> None:
            nonlocal losing
            while data := await reader.read(1 << 16):
                if self.down:
                    return
                if data.startswith(b"PUT "):
                    self.puts += 1
                    if self.cut:
                        self.cut -= 1
                        far_writer.write(data[: len(data) // 2])
                        await far_writer.drain()
                        return
                    if self.lose:
                        self.lose -= 1
                        losing = True
                far_writer.write(data)
                await far_writer.drain()

        async def back() -> None:
            while data := await far_reader.read(1 << 16):
                if losing and b"100 Continue" not in data[:40]:
                    return
                writer.write(data)
                await writer.drain()

        with contextlib.suppress(OSError):
            tasks = [asyncio.ensure_future(there()), asyncio.ensure_future(back())]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                far_writer.transport.abort()
                writer.transport.abort()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()
        self._loop.close()


def use(monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]) -> None:
    """Make the environment that of an ingest machine, and of nothing else."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
