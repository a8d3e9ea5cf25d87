"""`edgecap ingest`: receive, verify, store, acknowledge."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from edgecap.errors import UsageError

if TYPE_CHECKING:
    from edgecap.ingest.worker import IngestWorker

log = logging.getLogger("edgecap.ingest")

MOST_GATHER_S = 30.0
"""Rigs send again what has no receipt after a minute."""

EXAMPLE = """\
examples:
  edgecap ingest --store ./store --broker mqtt://127.0.0.1:1883
  EDGECAP_BROKER=mqtts://ingest@broker.example edgecap ingest --store /srv/edgecap \\
      --password-file /etc/edgecap/password --worker a --share
  edgecap ingest --config /etc/edgecap/site.toml
  AWS_ENDPOINT_URL=https://s3.example edgecap ingest --store s3://recordings/site-a \\
      --broker mqtts://broker.example

A bucket's server and keys come from the environment, as for other S3 tools: AWS_ENDPOINT_URL (none for
Amazon), AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION, AWS_CA_BUNDLE; plain http
is for loopback only, unless AWS_ALLOW_HTTP=true.
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "ingest",
        help="receive, verify, store, acknowledge",
        description="Store what rigs send, and give receipts for what is durable. SIGTERM stops it after "
        "everything received has been committed and acknowledged.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--store", metavar="URL", help="a directory, made if missing, or s3://bucket/prefix")
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML with [broker] and [ingest]")
    parser.add_argument("--broker", metavar="URL", help="mqtt[s]://[user@]host:port; default: EDGECAP_BROKER")
    parser.add_argument("--password-file", type=Path, metavar="FILE", help="holds the broker's password")
    parser.add_argument("--ca-file", type=Path, metavar="FILE", help="CA of the broker's certificate")
    parser.add_argument("--cert-file", type=Path, metavar="FILE", help="client certificate")
    parser.add_argument("--key-file", type=Path, metavar="FILE", help="its key")
    parser.add_argument("--worker", metavar="NAME", help="name of this worker; default: host and process id")
    parser.add_argument(
        "--share", action="store_true", help="divide the chunks among all workers that are started with this"
    )
    parser.add_argument(
        "--gather",
        metavar="SECONDS",
        type=_gather_seconds,
        help="store what has come at the latest after so long; default: 0.2 in a directory, 2 in a bucket, "
        "where every session that has something new costs a request",
    )
    parser.set_defaults(run=run)


def _gather_seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= MOST_GATHER_S:
        raise argparse.ArgumentTypeError(f"{text!r} is not more than 0 and at most {MOST_GATHER_S:g} seconds")
    return value


def run(args: argparse.Namespace) -> int:
    from edgecap.cli.broker import broker_from
    from edgecap.ingest.store import open_store
    from edgecap.ingest.worker import IngestWorker
    from edgecap.memory import share_one_heap
    from edgecap.topics import suggest_name

    share_one_heap()
    broker = broker_from(args)
    if args.config is not None:
        from edgecap.config import load_site_config

        wanted = load_site_config(args.config).ingest
        args.store, args.worker = args.store or wanted.store, args.worker or wanted.worker
        args.share, args.gather = args.share or wanted.share, args.gather or wanted.gather_seconds
    if args.store is None:
        raise UsageError("no store is named", fix="give --store, or --config FILE with `ingest.store`")
    name = args.worker or suggest_name(f"{socket.gethostname()[:40]}-{os.getpid()}")
    store = open_store(args.store, create=True, worker=args.worker or "")
    try:
        writer = store.worker  # a store that cannot be written is told before any rig sends to it
        refused_dir = None if "://" in store.url else Path(store.url) / ".refused"

        async def serve() -> None:
            group = store.commit_group
            if args.gather:
                group = group._replace(seconds=args.gather)
            worker = IngestWorker(
                broker, store, name=name, share=args.share, refused_dir=refused_dir, commit_group=group
            )
            await _until_signal(worker)

        log.info("storing into %s as worker %s (segments of %s)", args.store, name, writer)
        asyncio.run(serve())
    finally:
        store.close()
    return 0


async def _until_signal(worker: IngestWorker) -> None:
    from edgecap.memory import stay_tidy

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, worker.stop)
    tidy = asyncio.create_task(stay_tidy(), name="memory")
    try:
        await worker.run()
    finally:
        tidy.cancel()
    m = worker.metrics
    log.info(
        "stopped: %s stored, %s duplicate, %s conflicting, %s erased, %s invalid, %s receipted",
        m.stored, m.duplicates, m.conflicts, m.erased, m.invalid, m.receipted,
    )  # fmt: skip
