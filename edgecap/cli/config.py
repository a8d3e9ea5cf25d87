"""`edgecap config check|schema|show` and `edgecap warmup`."""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from edgecap.cli.broker import add_config_option

if TYPE_CHECKING:
    from edgecap.config import Config

EXAMPLE = """\
examples:
  edgecap config check --config rig.toml
  edgecap config show --config rig.toml     every key with its default filled in
  edgecap config schema > edgecap.schema.json
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `config` and `warmup`."""
    parser = commands.add_parser(
        "config",
        help="check or explain the configuration",
        description="Check a configuration, show it with its defaults, or print its JSON Schema.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=["check", "schema", "show"])
    add_config_option(parser)
    parser.set_defaults(run=run_config)

    warm = commands.add_parser(
        "warmup",
        help="compile the kernels into the cache",
        description="Compile every kernel once, so that a later start takes none of that time.",
        epilog="example:\n  edgecap warmup     at install; the daemon does it where that is needed",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    warm.set_defaults(run=run_warmup)


def run_config(args: argparse.Namespace) -> int:
    import msgspec

    from edgecap.config import config_schema, load_config

    if args.what == "schema":
        print(json.dumps(config_schema(), indent=2))
        return 0
    config = load_config(args.config)
    if args.what == "show":
        print(json.dumps(msgspec.to_builtins(config), indent=2))
        return 0
    devices = refuse_unrunnable(config)
    to = config.broker.url or "nowhere (no broker.url)"
    print(f"ok: {config.site}/{config.rig} with {', '.join(devices)}, delivering to {to}")
    return 0


def refuse_unrunnable(config: Config) -> list[str]:
    """Names of the devices; raises `ConfigError` for what the daemon would refuse at its start.

    Files of certificates and passwords may be those of another machine: `edgecap doctor` looks at them.
    """
    from edgecap.config import load_calibration
    from edgecap.errors import ConfigError
    from edgecap.mqtt import parse_broker

    devices = [d.name for d in (*config.serial, *config.iio, *config.camera)]
    if not devices:
        raise ConfigError("no device is configured", fix="add a [[serial]], [[iio]] or [[camera]] table")
    if config.broker.url:
        ca, cert, key = (
            Path(name) if name else None
            for name in (config.broker.ca_file, config.broker.cert_file, config.broker.key_file)
        )
        parse_broker(config.broker.url, ca_file=ca, cert_file=cert, key_file=key, environ={})
    load_calibration(config.calibration.file)
    return devices


def run_warmup(args: argparse.Namespace) -> int:
    """Carry out `warmup`, telling what it is at."""
    del args
    started = time.perf_counter()
    from edgecap.cli.kernel_cache import compile_beside, is_complete, mark_complete

    if not is_complete():
        with compile_beside("edgecap.kernels.columns") as beside:
            from edgecap.kernels.compile import cache_state, warm_up

            gc.freeze()  # of what a compiler keeps little is ever garbage, and searching it takes long
            for name, done, total in warm_up():
                took_s = time.perf_counter() - started
                print(f"[{done}/{total}] {name} {took_s:.1f} s", file=sys.stderr, flush=True)
                gc.freeze()
                if beside is not None and done == total - 1:
                    beside.wait()
        state = cache_state()
        if state.writable:
            mark_complete(Path(state.path))
    print(f"kernels are ready after {time.perf_counter() - started:.1f} s")
    return 0
