"""The systemd service that a program may be: what its manager is told, and how often."""

from __future__ import annotations

import os
import socket


def watchdog_period_s() -> float:
    """How often systemd's watchdog should be fed: four times in each of its periods."""
    return int(os.environ.get("WATCHDOG_USEC", "4000000")) / 4e6


def notify_systemd(message: str) -> None:
    """Send `READY=1`, `WATCHDOG=1`, … to the service manager (sd_notify(3)); nothing outside a service."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.connect(address)
        sock.sendall(message.encode())
