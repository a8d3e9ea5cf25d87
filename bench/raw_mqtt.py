"""MQTT 3.1.1 by hand, so that a load generator in Python costs next to nothing."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections import deque
from collections.abc import Iterator

from edgecap import topics


def _packet(first: int, body: bytes) -> bytes:
    length, size = b"", len(body)
    while True:
        size, digit = size >> 7, size & 0x7F
        length += bytes([digit | (0x80 if size else 0)])
        if not size:
            return bytes([first]) + length + body


def _text(text: str) -> bytes:
    return struct.pack(">H", len(text)) + text.encode()


class Wire:
    """One connection; `read` takes what has come, `send` hands over as much as the socket takes."""

    def __init__(self, port: int, client_id: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(_packet(0x10, b"\0\x04MQTT\x04\x02" + struct.pack(">H", 600) + _text(client_id)))
        assert self.socket.recv(4, socket.MSG_WAITALL)[3] == 0
        self._packet_id = 0
        self.out: deque[memoryview] = deque()
        self.acknowledged = 0

    def publish(self, topic: str, payload: bytes) -> None:
        self._packet_id = self._packet_id % 65535 + 1
        packet = _packet(0x32, _text(topic) + struct.pack(">H", self._packet_id) + payload)
        self.out.append(memoryview(packet))

    def send(self) -> None:
        while self.out:
            try:
                n = self.socket.send(self.out[0])
            except BlockingIOError:
                return
            if n < len(self.out[0]):
                self.out[0] = self.out[0][n:]
            else:
                self.out.popleft()


class Ear(Wire):
    """Reads the receipts of every rig."""

    def __init__(self, port: int) -> None:
        super().__init__(port, "ear")
        self.socket.sendall(_packet(0x82, b"\0\x01" + _text(topics.subscription(topics.RECEIPT)) + b"\0"))
        assert self.socket.recv(5, socket.MSG_WAITALL)[4] == 0
        self._data = bytearray()

    def receipts(self) -> Iterator[tuple[str, bytes]]:
        """Rig and payload of each receipt that has come."""
        with contextlib.suppress(BlockingIOError):
            while data := self.socket.recv(1 << 20):
                self._data += data
        at = 0
        while len(self._data) - at >= 2:
            size, shift, head = 0, 0, at + 1
            while True:
                size |= (self._data[head] & 0x7F) << shift
                head, shift = head + 1, shift + 7
                if not self._data[head - 1] & 0x80 or head >= len(self._data):
                    break
            if head + size > len(self._data):
                break
            n = struct.unpack_from(">H", self._data, head)[0]
            topic = self._data[head + 2 : head + 2 + n].decode()
            yield topics.parse(topic).rig, bytes(self._data[head + 2 + n : head + size])
            at = head + size
        del self._data[:at]
