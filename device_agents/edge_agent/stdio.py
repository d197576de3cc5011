"""The agent of one host, on stdin and stdout.

It holds the lock of the state folder, as a daemon does; flock, so it dies with its holder.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from typing import Optional

from edge_agent import links
from edge_agent.agent import Agent
from edge_agent.fs import Folder
from edge_agent.holding import holder_text, read_holder
from edge_agent.lock import Lock
from edge_agent.starting import free_idle_workers, stage
from edgesdk.wire import codes
from edgesdk.wire.frames import Frame, FrameError, FrameReader, encode_frame

__all__ = ["run_stdio"]

_LOCK_WAIT_S = 3.0
_POLL_S = 0.05


def run_stdio(
    state: str, python: str, *, reading: int, writing: int, idle_exit_s: Optional[float]
) -> int:
    """Serve the host on two descriptors: through a living daemon, else alone under the lock."""
    with stage("state-folder"):
        root = Folder.open_state(state)
    with stage("lock"):
        lock = Lock(root)
        deadline = time.monotonic() + _LOCK_WAIT_S
        while True:
            daemon = links.connect(root.path, root.fd)
            if daemon is not None:
                lock.give_up()
                links.relay(reading, writing, daemon)
                return 0
            if lock.take():
                break
            if time.monotonic() > deadline:
                lock.give_up()
                _refuse_all(reading, writing, root, lock.holder())
                return 0
            time.sleep(_POLL_S)
    with stage("store"):
        agent = Agent(root, python=python, daemon=False)
    agent.log.write("serving one host on stdin")

    def stop() -> None:
        agent.close()
        os._exit(0)

    agent.stop = stop
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: stop())
    free_idle_workers(agent)
    try:
        links.serve_pair(
            agent, reading, writing, idle_exit_s=idle_exit_s, is_wanted=lock.is_wanted
        )
    except KeyboardInterrupt:
        pass
    finally:
        agent.close()
        lock.release()
    return 0


def _refuse_all(reading: int, writing: int, root: Folder, holder: int) -> None:
    """Answer every request with ``busy`` until the host goes away."""
    reader = FrameReader()
    told = read_holder(root, holder)
    whom = "another host" if told is None else holder_text(told)
    while True:
        data = os.read(reading, 1 << 16)
        if not data:
            return
        for frame in reader.feed(data):
            reply = {
                "id": frame.meta.get("id"),
                "ok": False,
                "code": codes.BUSY,
                "detail": "another agent (process {}) serves {} for {}".format(
                    holder, root.path, whom
                ),
                "facts": dict(told or {}, pid=holder, state_dir=root.path),
            }  # type: Dict[str, Any]
            with contextlib.suppress(FrameError):
                links.write_all(writing, encode_frame(Frame(reply)))
