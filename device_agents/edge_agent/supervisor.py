"""Starting, watching and ending the worker process.

A worker that dies is an answer, not an accident: the reply names the signal and what the worker
was doing, and carries the end of its stderr. At most one request runs in it at a time; whoever
waits for it is told who has it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from typing import Any, Callable, Dict, Iterator, List, Optional

import edge_agent
from edge_agent.refusals import Cancelled, Refused
from edge_agent.telemetry import read_text
from edgesdk import wire
from edgesdk.wire import codes
from edgesdk.wire.frames import Frame, FrameReader, encode_frame

__all__ = ["Loaded", "Supervisor", "Worker", "worker_command"]

OnEvent = Callable[[Dict[str, Any]], None]

_STDERR_KEPT_BYTES = 8 << 10
_BUSY_WAIT_S = 2.0
_IDLE_S = 60.0
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
    """One worker process."""

    def __init__(self, python: str, scratch: str) -> None:
        self.started = time.monotonic()
        self._doing = "starting"
        self._tail = b""
        self._reader = FrameReader()
        self._frames = []  # type: List[Frame]
        self._wanted_dead = False
        try:
            self._process = subprocess.Popen(
                worker_command(python),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=scratch,
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
        self._drain = threading.Thread(target=self._read_stderr, daemon=True)
        self._drain.start()

    def _read_stderr(self) -> None:
        assert self._process.stderr is not None
        fd = self._process.stderr.fileno()
        while True:
            data = os.read(fd, 1 << 16)
            if not data:
                return
            self._tail = (self._tail + data)[-_STDERR_KEPT_BYTES:]

    def is_alive(self) -> bool:
        """Say whether the process still runs, and was not told to end."""
        return not self._wanted_dead and self._process.poll() is None

    def rss_bytes(self) -> Optional[int]:
        """Memory it holds now, or None."""
        fields = (read_text("/proc/{}/statm".format(self.pid)) or "").split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") if len(fields) > 1 else None

    def kill(self) -> None:
        """End the process and all it started, from any thread."""
        self._wanted_dead = True
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Kill it, collect it, close the pipes."""
        self.kill()
        self._process.wait()
        self._drain.join(timeout=2)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()

    def _died(self) -> Exception:
        if self._wanted_dead:
            return Cancelled()
        status = self._process.wait()
        self._drain.join(timeout=2)
        text = self._tail.decode("utf-8", "replace")
        facts = {"doing": self._doing, "stderr": text[-4000:]}  # type: Dict[str, Any]
        if status < 0:
            try:
                name = signal.Signals(-status).name
            except ValueError:
                name = "signal {}".format(-status)
            facts["signal"] = name
            how = "by {}".format(name)
            if name == "SIGKILL":
                how += ", which nobody here sent: is memory short?"
        else:
            facts["status"] = status
            how = "with status {}".format(status)
        detail = "the worker ended {} while {}".format(how, self._doing)
        return Refused(codes.WORKER_DIED, detail, **facts)

    def _send(self, meta: Dict[str, Any], body: bytes, deadline: float) -> None:
        assert self._process.stdin is not None
        fd = self._process.stdin.fileno()
        os.set_blocking(fd, False)
        view = memoryview(encode_frame(Frame(meta, body)))
        while view:
            _, ready, _ = select.select([], [fd], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError
            try:
                view = view[os.write(fd, view) :]
            except BlockingIOError:
                continue

    def _next_frame(self, deadline: float) -> Frame:
        assert self._process.stdout is not None
        fd = self._process.stdout.fileno()
        while not self._frames:
            ready, _, _ = select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError
            data = os.read(fd, 1 << 18)
            if not data:
                raise EOFError
            self._frames += self._reader.feed(data)
        return self._frames.pop(0)

    def request(
        self,
        meta: Dict[str, Any],
        body: bytes = b"",
        *,
        timeout_s: float,
        doing: str,
        on_event: OnEvent = _nothing,
        each_event_s: Optional[float] = None,
    ) -> Frame:
        """Ask and wait for the answer.

        Args:
            meta: The request.
            body: Its bytes.
            timeout_s: The time it may take; then the worker is killed.
            doing: What it is about to do, for the text of errors.
            on_event: Called with each event on the way.
            each_event_s: If given, every event allows that much more time.

        Raises:
            Refused: The worker said no, died, or was killed for taking too long.
            Cancelled: We killed it because nobody waits for the answer any more.
        """
        self._doing = doing
        deadline = time.monotonic() + timeout_s
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
                on_event(frame.meta)
        except TimeoutError:
            self.close()
            raise Refused(
                codes.WORKER_TIMEOUT,
                "the worker was killed: {} took longer than {:g} s".format(
                    self._doing, timeout_s
                ),
                timeout_s=timeout_s,
                doing=self._doing,
            ) from None
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


class Loaded:
    """What a worker holds: the bundle, with which thread count, and what loading said."""

    def __init__(
        self, bundle: str, threads: Optional[int], worker: Worker, reply: Frame
    ) -> None:
        self.bundle = bundle
        self.threads = threads
        self.worker = worker
        self.load_ms = float(reply.meta["load_ms"])
        self.runtimes = list(reply.meta["runtimes"])
        self.module_files = [str(path) for path in reply.meta["module_files"]]
        self.fresh = True  # nothing has run in it yet


class Supervisor:
    """Holds at most one worker, for one request at a time, and frees it when it is idle."""

    def __init__(self, python: str, scratch: str, log: Callable[[str], None]) -> None:
        self.python = python or sys.executable
        self._scratch = scratch
        self._log = log
        self._turn = threading.Lock()
        self._holder = ""
        self._loaded = None  # type: Optional[Loaded]
        self._running = None  # type: Optional[Worker]
        self._idle_since = time.monotonic()

    @contextlib.contextmanager
    def turn(self, who: str) -> Iterator[None]:
        """Have the worker for oneself.

        Raises:
            Refused: Another request has it and did not end soon.
        """
        if not self._turn.acquire(timeout=_BUSY_WAIT_S):
            raise Refused(
                codes.BUSY,
                "the worker is busy with {} for another connection".format(self._holder),
                op=self._holder,
                pid=os.getpid(),
            )
        self._holder = who
        try:
            yield
        finally:
            if self._loaded is not None and not self._loaded.worker.is_alive():
                self.drop()
            self._idle_since = time.monotonic()
            self._turn.release()

    def load(
        self,
        bundle: str,
        manifest: Dict[str, Any],
        files: List[List[str]],
        *,
        threads: Optional[int],
        fresh: bool,
        timeout_s: float,
        on_event: OnEvent,
        cancelled: Callable[[], bool],
    ) -> Loaded:
        """Give a worker that holds ``bundle``: the one that is there, or a new one."""
        held = self._loaded
        if (
            not fresh
            and held is not None
            and held.bundle == bundle
            and held.threads == threads
            and held.worker.is_alive()
        ):
            return held
        self.drop()
        worker = self._running = Worker(self.python, self._scratch)
        request = {
            "parts": [
                {key: part[key] for key in ("runtime", "options", "inputs", "outputs")}
                for part in manifest["parts"]
            ],
            "files": files,
            "inputs": [value["name"] for value in manifest["inputs"]],
            "outputs": [value["name"] for value in manifest["outputs"]],
            "threads": threads,
        }
        try:
            if cancelled():
                raise Cancelled
            # in the body: the records of many parts do not fit in a frame's meta
            reply = worker.request(
                {"op": "load"},
                json.dumps(request).encode("utf-8"),
                timeout_s=timeout_s,
                doing="starting",
                on_event=on_event,
            )
            self._loaded = Loaded(bundle, threads, worker, reply)
        except BaseException:
            worker.close()
            self._running = None
            raise
        self._log("worker {} holds {}".format(worker.pid, bundle[:12]))
        return self._loaded

    def probe(self, runtime: str, timeout_s: float) -> Dict[str, Any]:
        """Ask, in a process of its own, whether a runtime can be imported."""
        worker = Worker(self.python, self._scratch)
        try:
            reply = worker.request(
                {"op": "probe", "runtime": runtime},
                timeout_s=timeout_s,
                doing="importing " + runtime,
            )
            return {key: reply.meta.get(key) for key in ("version", "why", "detail")}
        except Refused as exc:
            return {"version": None, "why": str(exc), "detail": exc.facts}
        finally:
            worker.close()

    def drop(self) -> None:
        """End the worker, if there is one."""
        held, self._loaded = self._loaded, None
        running, self._running = self._running, None
        for worker in {held.worker if held else None, running} - {None}:
            assert worker is not None
            worker.close()

    def interrupt(self) -> None:
        """Kill the worker under whoever waits for it; its request then ends as cancelled."""
        worker = self._running
        if worker is not None:
            worker.kill()

    def unload(self) -> None:
        """Free the worker, if no request has it."""
        with self.turn("unload"):
            self.drop()

    def drop_if_idle(self) -> None:
        """Free a worker that nobody has used for a minute."""
        if self._loaded is None or time.monotonic() - self._idle_since < _IDLE_S:
            return
        if self._turn.acquire(blocking=False):
            try:
                self.drop()
            finally:
                self._turn.release()

    def state(self) -> Optional[Dict[str, Any]]:
        """What the worker holds, or None."""
        held = self._loaded
        if held is None or not held.worker.is_alive():
            return None
        return {
            "bundle": held.bundle,
            "pid": held.worker.pid,
            "rss_bytes": held.worker.rss_bytes(),
        }
