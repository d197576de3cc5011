"""Questions from the shell: put to an agent of our own, or through it to the living daemon."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any, Dict

from edge_agent.stdio import run_stdio
from edgesdk.wire.frames import Frame, FrameReader, encode_frame

__all__ = ["Local"]


class Local:
    """A conversation with the agent of a state folder, whoever that is; a context manager."""

    def __init__(self, state: str, python: str) -> None:
        self._state = state
        self._python = python
        self._ours, self._theirs = socket.socketpair()
        self._failed = []  # type: List[BaseException]
        self._reader = FrameReader()
        self._last_id = 0
        self._thread = None  # type: Optional[threading.Thread]

    def __enter__(self) -> Local:
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ours.close()
        if self._thread is not None:
            self._thread.join()

    def _serve(self) -> None:
        try:
            fd = self._theirs.fileno()
            run_stdio(self._state, self._python, reading=fd, writing=fd, idle_exit_s=None)
        except BaseException as exc:  # noqa: BLE001 - raised again by the one who asked
            self._failed.append(exc)
        finally:
            self._theirs.close()

    def ask(self, meta: Dict[str, Any], body: bytes = b"") -> Frame:
        """Ask and wait for the reply.

        Raises:
            StartFailed: The agent cannot start.
        """
        self._last_id += 1
        with contextlib.suppress(OSError):  # it went away; why is seen below
            self._ours.sendall(encode_frame(Frame(dict(meta, id=self._last_id), body)))
        while True:
            data = self._ours.recv(1 << 18)
            if not data:
                assert self._thread is not None
                self._thread.join()
                failed = self._failed
                raise failed[0] if failed else RuntimeError("the agent gave no answer")
            for frame in self._reader.feed(data):
                if "event" not in frame.meta:
                    kept = {k: v for k, v in frame.meta.items() if k != "id"}
                    return Frame(kept, frame.body)
