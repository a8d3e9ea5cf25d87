"""The options that say which broker, and which rig, a command is for."""

from __future__ import annotations

import argparse
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgecap.mqtt import Broker


def add_config_option(parser: argparse.ArgumentParser) -> None:
    """Add `--config`, a rig's."""
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="default: ./edgecap.toml, then /etc/edgecap"
    )


def add_rig_options(parser: argparse.ArgumentParser) -> None:
    """Add `--config`, and the `--broker` that may take the place of the one it names."""
    add_config_option(parser)
    parser.add_argument(
        "--broker", metavar="URL", help="mqtt[s]://[user@]host:port; overrides the configuration"
    )


def add_broker_options(parser: argparse.ArgumentParser) -> None:
    """Add `--broker` and the files it may need."""
    group = parser.add_argument_group("broker")
    group.add_argument(
        "--broker",
        metavar="URL",
        help="mqtt[s]://[user@]host:port; default: the environment's EDGECAP_BROKER",
    )
    group.add_argument("--password-file", type=Path, metavar="FILE", help="first line is the broker password")
    group.add_argument("--ca-file", type=Path, metavar="FILE", help="certificate authority for mqtts")
    group.add_argument("--cert-file", type=Path, metavar="FILE", help="client certificate for mqtts")
    group.add_argument("--key-file", type=Path, metavar="FILE", help="key of the client certificate")


def broker_from(args: argparse.Namespace) -> Broker:
    """The broker that the options, the environment or a site's `--config` name, in this order.

    Raises:
        ConfigError: none does, or the one that does cannot be used.
    """
    from edgecap.config import BrokerConfig, broker_file, load_site_config
    from edgecap.mqtt import find_broker

    path: Path | None = getattr(args, "config", None)
    config = load_site_config(path).broker if path is not None else BrokerConfig()
    return find_broker(
        args.broker,
        config_url=config.url,
        password_file=args.password_file or broker_file(config, "password_file"),
        ca_file=args.ca_file or broker_file(config, "ca_file"),
        cert_file=args.cert_file or broker_file(config, "cert_file"),
        key_file=args.key_file or broker_file(config, "key_file"),
    )


def client_id(role: str) -> str:
    """A client id that no other process uses."""
    return f"edgecap-{role}-{secrets.token_hex(4)}"
