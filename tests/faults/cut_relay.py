"""A TCP relay that hangs up on both sides once so many bytes have gone to the device."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from typing import Self

__all__ = ["CutRelay"]

_READ_BYTES = 1 << 16


class CutRelay:
    """Listens on a loopback ``port`` and carries one connection at a time to another one.

    Attributes:
        port: Where it listens.
        to_device_bytes: What the connections since `start_over` have sent to the device.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.to_device_bytes = 0
        self._cut_at: int | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="cut-relay", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), timeout=1.0).close()
        self._thread.join(5.0)
        self._listener.close()

    def start_over(self, *, cut_at: int | None) -> None:
        """Count from 0 again; hang up at byte ``cut_at`` on the way to the device."""
        self.to_device_bytes = 0
        self._cut_at = cut_at

    def _serve(self) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(OSError):
                host, _ = self._listener.accept()
                with host, socket.create_connection(("127.0.0.1", self._target)) as device:
                    for each in (host, device):
                        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    if not self._ended.is_set():
                        self._carry(host, device)

    def _carry(self, host: socket.socket, device: socket.socket) -> None:
        with selectors.DefaultSelector() as ready:
            ready.register(host, selectors.EVENT_READ, device)
            ready.register(device, selectors.EVENT_READ, host)
            while not self._ended.is_set():
                for key, _ in ready.select(0.5):
                    source = key.fileobj
                    assert isinstance(source, socket.socket)
                    data = source.recv(_READ_BYTES)
                    if source is host and self._cut_at is not None:
                        data = data[: self._cut_at - self.to_device_bytes]
                    if not data:
                        return
                    key.data.sendall(data)
                    if source is host:
                        self.to_device_bytes += len(data)
