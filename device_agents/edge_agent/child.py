"""One worker process, seen from the agent: start it, ask it, read how it ended."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import threading
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

import edge_agent
from edge_agent.limits import worker_environment
from edge_agent.pipes import PipeReader, message, widen, write_some
from edge_agent.refusals import Cancelled, Refused
from edge_agent.telemetry import read_text
from edge_agent.vitals import vitals
from edgesdk import wire
from edgesdk.wire import codes
from edgesdk.wire.frames import Frame

__all__ = ["OnEvent", "Worker", "bury", "worker_command"]

OnEvent = Callable[[Dict[str, Any]], None]

_STDERR_KEPT_BYTES = 8 << 10
_PING_S = 5.0
_LEAVE_S = 10.0
#: A killed process that is stuck in a driver stays until the driver lets go of it.
_BURIAL_S = 10.0
#: How much later than its time limit a request may be over, before the agent counts as stuck.
_GRACE_S = 60.0
#: Processes that were killed and had not ended then.
_lingering = []  # type: List[subprocess.Popen]
_WORKER_CODES = (codes.NO_RUNTIME, codes.WORKER_FAILED, codes.BAD_DATA, codes.BAD_REQUEST)


def _nothing(event: Dict[str, Any]) -> None:
    """Take an event and drop it."""


def worker_command(python: str) -> List[str]:
    """The command line of a worker: this very agent, under the interpreter for workers."""
    home = os.path.dirname(os.path.dirname(os.path.abspath(edge_agent.__file__)))
    if os.path.isfile(home):
        return [python, "-B", home, "worker"]
    # from a source tree the agent and the wire package lie apart
    source = os.path.dirname(os.path.dirname(os.path.abspath(wire.__path__[0])))
    code = "import sys; sys.path[:0] = {!r}; from edge_agent.__main__ import main; main({!r})"
    return [python, "-B", "-c", code.format([home, source], ["worker"])]


class Worker:
    """One worker process.

    Args:
        python: Its interpreter.
        scratch: Its working folder.
        limits: What it may take, see `edge_agent.limits`; None leaves it to the environment.
    """

    def __init__(
        self, python: str, scratch: str, limits: Optional[Dict[str, Any]] = None
    ) -> None:
        self.started = time.monotonic()
        self._doing = "starting"
        self._tail = b""
        self._wanted_dead = False
        self._closed = False
        try:
            self._process = subprocess.Popen(
                worker_command(python),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=scratch,
                env=worker_environment(limits),
                bufsize=0,
                start_new_session=True,  # a Ctrl-C at the terminal is for the agent alone
            )
        except OSError as exc:
            raise Refused(
                codes.NO_RUNTIME,
                "cannot start {} for the worker: {}".format(python, exc.strerror),
                runtime="python",
                why=str(exc),
                python_executable=python,
            ) from exc
        self.pid = self._process.pid
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._writing = self._process.stdin.fileno()
        self._out = self._process.stdout.fileno()
        os.set_blocking(self._writing, False)
        for fd in (self._writing, self._out):
            widen(fd)
        self._reader = PipeReader(self._out)
        self._drain = threading.Thread(target=self._read_stderr, daemon=True)
        self._drain.start()

    def _read_stderr(self) -> None:
        assert self._process.stderr is not None
        fd = self._process.stderr.fileno()
        while True:
            data = os.read(fd, 1 << 16)
            if not data:
                break
            self._tail = (self._tail + data)[-_STDERR_KEPT_BYTES:]
        if self._closed:  # which left it to us, because somebody still held the other end
            self._process.stderr.close()

    def is_alive(self) -> bool:
        """Say whether the process still runs, and was not told to end."""
        return not self._wanted_dead and self._process.poll() is None

    def how_it_ended(self) -> str:
        """In words; it has ended."""
        status = self._process.poll()
        if status is None or self._wanted_dead:
            return "the worker was ended by the agent"
        return "the worker ended {}".format(_how(status)[0])

    def answers(self) -> bool:
        """Say whether it is there for a request: one that is being killed may not know yet."""
        if not self.is_alive():
            return False
        try:
            self.request({"op": "ping"}, timeout_s=_PING_S, doing="waiting")
        except (Refused, Cancelled):
            return False
        return True

    def rss_bytes(self) -> Optional[int]:
        """Memory it holds now, or None."""
        fields = (read_text("/proc/{}/statm".format(self.pid)) or "").split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") if len(fields) > 1 else None

    def kill(self) -> None:
        """End the process and all it started, from any thread."""
        self._wanted_dead = True
        if not self._closed:
            self._kill_group()

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Kill it, collect it, close the pipes; may be repeated."""
        if self._closed:
            return  # its process id may be another's by now
        self._closed = self._wanted_dead = True
        self._kill_group()
        try:
            self._process.wait(timeout=_BURIAL_S)
        except subprocess.TimeoutExpired:
            _lingering.append(self._process)
        self._drain.join(timeout=2)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert pipe is not None
            if pipe is self._process.stderr and self._drain.is_alive():
                continue  # held open by a process of its own session: its number stays taken
            with contextlib.suppress(OSError):
                pipe.close()

    def _died(self) -> Exception:
        if self._wanted_dead:
            return Cancelled()
        try:
            status = self._process.wait(timeout=_LEAVE_S)
        except subprocess.TimeoutExpired:  # it closed its end and lives on
            self.close()
            lost = "the worker was killed while {}, and is stuck in the kernel"
            status = self._process.poll()
            if status is None:
                return Refused(codes.WORKER_DIED, lost.format(self._doing), doing=self._doing)
        self._drain.join(timeout=2)
        text = self._tail.decode("utf-8", "replace")
        facts = {"doing": self._doing, "stderr": text[-4000:]}  # type: Dict[str, Any]
        how, name = _how(status)
        facts["status" if name is None else "signal"] = status if name is None else name
        detail = "the worker ended {} while {}".format(how, self._doing)
        return Refused(codes.WORKER_DIED, detail, **facts)

    def _send(self, meta: Dict[str, Any], body: bytes, deadline: float) -> None:
        pieces = message(meta, [body])
        while pieces:
            try:
                write_some(self._writing, pieces)
            except BlockingIOError:
                left_s = max(0.0, deadline - time.monotonic())
                if not select.select([], [self._writing], [], left_s)[1]:
                    raise TimeoutError from None

    def _next_frame(self, deadline: float) -> Frame:
        def wait() -> None:
            left_s = max(0.0, deadline - time.monotonic())
            if not select.select([self._out], [], [], left_s)[0]:
                raise TimeoutError

        return self._reader.receive(wait)

    def request(
        self,
        meta: Dict[str, Any],
        body: bytes = b"",
        *,
        timeout_s: float,
        doing: str,
        on_event: OnEvent = _nothing,
        each_event_s: Optional[float] = None,
        allowed_s: Optional[float] = None,
    ) -> Frame:
        """Ask and wait for the answer.

        Args:
            meta: The request.
            body: Its bytes.
            timeout_s: The time it may take; then the worker is killed.
            doing: What it is about to do, for the text of errors.
            on_event: Called with each event on the way.
            each_event_s: If given, every event allows that much more time.
            allowed_s: What the whole operation may take, where ``timeout_s`` is what is left
                of it; for the text of errors.

        Raises:
            Refused: The worker said no, died, or was killed for taking too long.
            Cancelled: We killed it because nobody waits for the answer any more.
        """
        self._doing = doing
        deadline = time.monotonic() + timeout_s
        # the promise is not that it works, but that this thread comes back in time
        with vitals.promise(timeout_s + _GRACE_S, "waiting for a worker"):
            try:
                self._send(meta, body, deadline)
                while True:
                    frame = self._next_frame(deadline)
                    if "event" not in frame.meta:
                        break
                    if meta.get("op") == "load":
                        self._doing = str(frame.meta.get("step"))[:200]
                    if each_event_s is not None:
                        deadline = time.monotonic() + each_event_s
                        vitals.renew(each_event_s + _GRACE_S)
                    on_event(frame.meta)
            except TimeoutError:
                self.close()
                raise _too_slow(self._doing, timeout_s, allowed_s) from None
            except (EOFError, OSError):
                raise self._died() from None
        if frame.meta.get("ok") is not True:
            code = frame.meta.get("code")
            facts = frame.meta.get("facts")
            raise Refused(
                code if code in _WORKER_CODES else codes.WORKER_FAILED,
                str(frame.meta.get("detail"))[:2000],
                **(facts if isinstance(facts, dict) else {}),
            )
        return frame


def bury() -> None:
    """Collect the processes that had not ended when they were killed."""
    _lingering[:] = [each for each in _lingering if each.poll() is None]


def _how(status: int) -> Tuple[str, Optional[str]]:
    """Say how a process ended, and the name of the signal if it was one."""
    if status >= 0:
        return "with status {}".format(status), None
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = "signal {}".format(-status)
    text = "by {}".format(name)
    if name == "SIGKILL":
        text += ", which nobody here sent: is memory short?"
    return text, name


def _too_slow(doing: str, timeout_s: float, allowed_s: Optional[float]) -> Refused:
    text = "the worker was killed: {} took longer than {:g} s".format(doing, timeout_s)
    if allowed_s is not None:
        text = "the worker was killed while {}: all of it took longer than {:g} s".format(
            doing, allowed_s
        )
        timeout_s = allowed_s
    return Refused(codes.WORKER_TIMEOUT, text, timeout_s=timeout_s, doing=doing)
