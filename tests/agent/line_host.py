"""A host at the other end of the line of an agent, for tests that speak frames themselves."""

from __future__ import annotations

import contextlib
import os
import random
import select
import socket
import threading
import time

from edgesdk.wire.arq import Arq
from tests.agent.agent_driver import Talk


class LineHost(Talk):
    """Frames over a session on the line; ``descriptor`` is the test's end of it.

    Args:
        descriptor: Where the line's bytes go and come from.
        seed: Makes the session's token.
    """

    def __init__(self, descriptor: int, seed: int = 1) -> None:
        self.arq = Arq(is_host=True, baud=115_200, new_token=random.Random(seed).randbytes)
        self.descriptor = descriptor
        self.ours, theirs = socket.socketpair()
        self.over = False
        self.arq.connect(time.monotonic())
        self.thread = threading.Thread(target=self.pump, args=(theirs,), daemon=True)
        self.thread.start()
        super().__init__(self.ours.fileno(), self.ours.fileno())

    def pump(self, theirs: socket.socket) -> None:
        with theirs:
            while not self.over:
                now = time.monotonic()
                self.arq.tick(now)
                if out := self.arq.take(now):
                    with contextlib.suppress(OSError):
                        os.write(self.descriptor, out)
                if got := self.arq.get():
                    theirs.sendall(got)
                ready, _, _ = select.select([self.descriptor, theirs], [], [], 0.005)
                if self.descriptor in ready:
                    with contextlib.suppress(OSError):
                        self.arq.feed(os.read(self.descriptor, 1 << 16), time.monotonic())
                if theirs in ready and self.arq.sender.room:
                    self.arq.put(theirs.recv(self.arq.sender.room))

    def vanish(self) -> None:
        """Be gone without a word, as a killed host is."""
        self.over = True
        self.thread.join()
        self.ours.close()

    def hang_up(self) -> None:
        self.arq.hang_up(time.monotonic())
        deadline = time.monotonic() + 5
        while not self.arq.is_idle and time.monotonic() < deadline:
            time.sleep(0.01)
        self.vanish()
