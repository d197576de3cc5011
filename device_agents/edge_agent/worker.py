"""The worker: the one process that lets a vendor's library load a model.

It speaks messages (`edge_agent.pipes`) over its stdin and stdout, one request at a time. Its
stdout *descriptor* is put aside before anything else happens and pointed at stderr, so a
library that prints, even from C, cannot break a message. It ends when the agent does, whatever
it is doing: a thread waits for the other end of its stdin to close.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import platform
import resource
import select
import signal
import sys
import threading
import time
from typing import Any, Callable, Dict, List, NoReturn, Optional

from edge_agent import runtimes
from edge_agent.chain import Chain, RuntimeGone, find_runtime, options_of
from edge_agent.confine import close_network
from edge_agent.limits import MEMORY_ENV, NICENESS_ENV
from edge_agent.pipes import PipeReader, message, write_some
from edge_agent.runtimes.base import RawTensor, RuntimeFailed
from edge_agent.telemetry import read_text
from edgesdk.wire import codes
from edgesdk.wire.frames import Frame, load_json
from edgesdk.wire.tensors import check_specs

__all__ = ["work"]

_PR_SET_NO_NEW_PRIVS = 38
_OOM_FILE = "/proc/self/oom_score_adj"
_OOM_FIRST = "800"
_OOM_BUILDER = "950"
_MAX_TEXT = 2000
_GONE = 3


def _limit_ourselves() -> bool:
    """Give up what loading a model does not need, and go first when memory is short.

    Says whether the network is given up too.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    memory = os.environ.get(MEMORY_ENV, "")
    if memory.isdigit():
        resource.setrlimit(resource.RLIMIT_AS, (int(memory), int(memory)))
    niceness = os.environ.get(NICENESS_ENV, "")
    if niceness.isdigit():
        with contextlib.suppress(OSError):
            os.setpriority(
                os.PRIO_PROCESS, 0, max(int(niceness), os.getpriority(os.PRIO_PROCESS, 0))
            )
    with contextlib.suppress(OSError), open(_OOM_FILE, "w", encoding="ascii") as stream:
        stream.write(_OOM_FIRST)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return close_network()


def _leave() -> NoReturn:
    """End, and with us whatever a library has started."""
    if os.getpgid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(_GONE)


def _end_with_agent(fd: int) -> None:
    """Wait until nobody can write to ``fd`` any more, then end at once."""
    poll = select.poll()
    poll.register(fd, 0)  # nothing asked for: only a hang-up is reported
    poll.poll()
    _leave()


def peak_rss_bytes() -> int:
    """The most memory this process ever held.

    VmHWM, because ``ru_maxrss`` begins with what the parent held when it forked.
    """
    for line in (read_text("/proc/self/status") or "").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _named_tensors(specs: List[Dict[str, Any]], data: Any) -> Dict[str, RawTensor]:
    view = memoryview(data)
    return {
        spec["name"]: RawTensor(
            spec["dtype"], spec["shape"], view[spec["offset"] : spec["offset"] + spec["nbytes"]]
        )
        for spec in check_specs(specs, len(view))
    }


def _no_wait() -> None:
    """A worker has nothing else to do than to read."""


class _Worker:
    """The requests of an agent, answered with one loaded chain."""

    def __init__(self, reading: int, writing: int, *, is_offline: bool) -> None:
        self._is_offline = is_offline
        self._writing = writing
        self._reader = PipeReader(reading)
        self._chain = None  # type: Optional[Chain]

    def send(self, meta: Dict[str, Any], *pieces: Any) -> None:
        """Write one message to the agent."""
        left = message(meta, pieces)
        while left:
            try:
                write_some(self._writing, left)
            except BrokenPipeError:
                _leave()

    def serve(self) -> NoReturn:
        """Answer until the agent closes the pipe."""
        answers = {
            "load": self._load,
            "run": self._run,
            "bench": self._bench,
            "evaluate": self._evaluate,
            "profile": self._profile,
            "finish": self._finish,
        }
        while True:
            try:
                frame = self._reader.receive(_no_wait)
            except (EOFError, OSError):
                _leave()
            op = frame.meta.get("op")
            try:
                if op == "ping":
                    self.send({"ok": True})
                elif op == "probe":
                    self.send(self._probe(frame))
                else:
                    answers[str(op)](frame)
            except RuntimeGone as exc:
                self._send_gone(exc)
            except Exception as exc:  # noqa: BLE001 - any library error is an answer
                text = str(exc) or type(exc).__name__
                if not isinstance(exc, RuntimeFailed):
                    text = "{}: {}".format(type(exc).__name__, exc)
                self.send(
                    {"ok": False, "code": codes.WORKER_FAILED, "detail": text[:_MAX_TEXT]}
                )

    def _send_gone(self, exc: RuntimeGone) -> None:
        from edge_agent.facts import libc

        self.send(
            {
                "ok": False,
                "code": codes.NO_RUNTIME,
                "detail": "{} is not installed for Python {}: {}".format(
                    exc.runtime, platform.python_version(), exc
                )[:_MAX_TEXT],
                "facts": {
                    "runtime": exc.runtime,
                    "why": str(exc)[:_MAX_TEXT],
                    "python": platform.python_version(),
                    "python_executable": sys.executable,
                    "machine": platform.machine(),
                    "libc": libc(),
                },
            }
        )

    def _probe(self, frame: Frame) -> Dict[str, Any]:
        name = str(frame.meta.get("runtime"))
        module = runtimes.find(name)
        if module is None:
            why = "this agent knows no runtime {!r}".format(name)
        else:
            why = module.why_missing()
        found = {"python": platform.python_version()}
        version = module.version() if module is not None and why is None else None
        return {"ok": True, "version": version, "why": why, "detail": found}

    def _load(self, frame: Frame) -> None:
        meta = load_json(frame.body)
        start = time.perf_counter_ns()
        self._chain = None
        total = len(meta["parts"])
        chain = Chain(meta["inputs"], meta["outputs"], total)
        for index, (record, files) in enumerate(zip(meta["parts"], meta["files"])):
            names = []  # type: List[str]

            def trying(
                way: int, name: str, index: int = index, names: List[str] = names
            ) -> None:
                names.append(name)
                doing = "loading part {} with {}".format(index, name)
                event = {"event": "progress", "step": doing, "done": index, "total": total}
                self.send(dict(event, way=way))

            failed = meta.get("failed", {}).get(str(index), [])
            try:
                chain.load(
                    record,
                    files,
                    meta["threads"],
                    meta.get("cache_dir"),
                    failed=failed,
                    trying=trying,
                )
            except RuntimeGone:
                raise
            except Exception as exc:
                text = str(exc)
                if not isinstance(exc, RuntimeFailed):
                    text = "{}: {}".format(type(exc).__name__, exc)
                raise RuntimeFailed(
                    "{} cannot load part {}: {}".format(
                        " and ".join(dict.fromkeys(names)) or record["runtime"], index, text
                    )
                ) from exc
        self._chain = chain
        # what is loaded stays: a collection before each block need not look at it again
        gc.collect()
        gc.freeze()
        self.send(
            {
                "ok": True,
                "load_ms": (time.perf_counter_ns() - start) / 1e6,
                "runtimes": chain.records,
                "module_files": chain.module_files,
                "network": "closed" if self._is_offline else "open",
            }
        )

    def _loaded(self) -> Chain:
        if self._chain is None:
            raise RuntimeFailed("nothing is loaded")
        return self._chain

    def _run(self, frame: Frame) -> None:
        chain = self._loaded()
        values, spent = chain.run(_named_tensors(frame.meta["tensors"], frame.body))
        specs, pieces, offset = [], [], 0
        for name, value in values.items():
            raw = value
            if not isinstance(value, RawTensor):
                from edge_agent.runtimes.arrays import to_raw

                raw = to_raw(value)
            specs.append(
                {
                    "name": name,
                    "dtype": raw.dtype,
                    "shape": [int(n) for n in raw.shape],
                    "offset": offset,
                    "nbytes": len(raw.data),
                }
            )
            pieces.append(raw.data)
            offset += len(raw.data)
        reply = {
            "ok": True,
            "tensors": specs,
            "run_ms": sum(spent) / 1e6,
        }  # type: Dict[str, Any]
        if not frame.meta.get("brief"):
            reply["parts"] = [{"index": i, "run_ms": ns / 1e6} for i, ns in enumerate(spent)]
            reply["peak_rss_bytes"] = peak_rss_bytes()
        self.send(reply, *pieces)

    def _bench(self, frame: Frame) -> None:
        from edge_agent.timing import make_benchmark

        chain, meta = self._loaded(), load_json(frame.body)
        makers = [_reader(vector) for vector in meta["vectors"]]
        found, reply = make_benchmark(chain, meta, makers, self._report)
        reply = dict(reply, ok=True, peak_rss_bytes=peak_rss_bytes())
        self.send(reply, _little_endian(found.samples))

    def _evaluate(self, frame: Frame) -> None:
        from edge_agent.evaluator import evaluate_pack

        reply, body = evaluate_pack(self._loaded(), frame.meta, frame.body, self._report)
        self.send(reply, body)

    def _profile(self, frame: Frame) -> None:
        from edge_agent.offload import profile_parts, time_chain

        chain, meta = self._loaded(), load_json(frame.body)
        inputs, runs = _read_vector(meta["vector"]), meta["runs"]
        deadline = time.monotonic() + meta["budget_s"]
        found = time_chain(chain, inputs, runs=runs, deadline=deadline, report=self._report)
        parts = profile_parts(chain, inputs, runs=runs, deadline=deadline, report=self._report)
        for part, share in zip(parts, found["shares"]):
            part["share"] = share
        # in the body: the records of many ops do not fit in a frame's meta
        document = {"chain_us": found["chain_us"], "parts": parts}
        self.send({"ok": True}, json.dumps(document).encode("utf-8"))

    def _finish(self, frame: Frame) -> None:
        """Finish one part for this device; its files go where the runtime keeps them."""
        meta = load_json(frame.body)
        record, deadline = meta["part"], time.monotonic() + meta["timeout_s"]
        with contextlib.suppress(OSError), open(_OOM_FILE, "w", encoding="ascii") as stream:
            stream.write(_OOM_BUILDER)  # before a worker that serves
        module = find_runtime(record["runtime"])
        found = module.finish(
            meta["files"],
            record,
            options_of(record, None, meta["cache_dir"]),
            lambda step: self._report(step, 0, None),
            deadline,
        )
        self.send(dict(found, ok=True))

    def _report(
        self, step: str, done: int, total: Optional[int], live: Optional[Dict[str, Any]] = None
    ) -> None:
        event = {"event": "progress", "step": step, "done": done, "total": total}
        self.send(dict(event, **live) if live else event)


def _reader(vector: Dict[str, Any]) -> Callable[[], Dict[str, RawTensor]]:
    """Read the bytes of a vector; give what makes tensors of them."""
    with open(vector["path"], "rb") as stream:
        data = stream.read()
    return lambda: _named_tensors(vector["tensors"], data)


def _read_vector(vector: Dict[str, Any]) -> Dict[str, RawTensor]:
    return _reader(vector)()


def _little_endian(samples: Any) -> bytes:
    if sys.byteorder == "big":
        samples.byteswap()
    return bytes(samples.tobytes())


def work() -> NoReturn:
    """Be a worker until the agent goes away."""
    writing = os.dup(1)
    os.dup2(2, 1)
    reading = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    is_offline = _limit_ourselves()
    watch = threading.Thread(target=_end_with_agent, args=(reading,), daemon=True)
    watch.start()
    _Worker(reading, writing, is_offline=is_offline).serve()
