"""A runtime that needs nothing: its one input is its output. It makes every path testable.

Options make it misbehave on purpose, so that a deployment's answer to a bad runtime can be
tried on any device: ``delay_ms`` (each run), ``load_delay_ms``, ``fail`` and ``load_fail`` (an
error with that text), ``die`` and ``load_die`` (a signal name), ``print`` (text on stdout),
``allocate_mib`` (memory held after loading), ``accelerator`` (what it says of itself) and
``ops`` (what it answers when it is asked what it ran where, whatever that is);
``tell_options`` makes it tell its options then. ``die_if``, ``hang_if``, ``slow_if`` and
``wrong_if`` name a file: where it is there, a run ends by SIGKILL, takes ten minutes or 50 ms,
or gives other bytes. So a release can go bad after it has passed its check. ``die_on`` is an
input, in hexadecimal digits, at which a run ends by SIGKILL. ``alone`` names a file that is
locked while the part is loaded, as a device is that lets only one process have it.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

from edge_agent import __version__
from edge_agent.runtimes.base import (
    OpRecord,
    Part,
    Profiling,
    RawTensor,
    RuntimeFailed,
    op_record,
    whole_number,
)

__all__ = ["load", "module_file", "version", "why_missing"]


def why_missing() -> Optional[str]:
    """It is part of the agent."""
    return None


def version() -> str:
    """The agent's own version."""
    return __version__


def module_file() -> str:
    """Nothing lies outside the agent."""
    return ""


def _misbehave(options: Dict[str, Any], prefix: str) -> None:
    delay_ms = options.get(prefix + "delay_ms")
    if isinstance(delay_ms, (int, float)):
        time.sleep(max(0.0, min(float(delay_ms), 600_000.0)) / 1000.0)
    text = options.get(prefix + "fail")
    if text:
        raise RuntimeFailed(str(text))
    name = options.get(prefix + "die")
    if name:
        os.kill(os.getpid(), getattr(signal.Signals, str(name), signal.SIGKILL))
        time.sleep(10)


def _go_bad(options: Dict[str, Any], value: Any) -> Any:
    """Misbehave as soon as the file is there that an option names."""
    bad = {
        name
        for name in ("die_if", "hang_if", "slow_if", "wrong_if")
        if options.get(name) and os.path.exists(str(options[name]))
    }
    if "die_if" in bad or bytes(value.data).hex() == options.get("die_on"):
        os.kill(os.getpid(), signal.SIGKILL)
    if bad & {"hang_if", "slow_if"}:
        time.sleep(600.0 if "hang_if" in bad else 0.05)
    if "wrong_if" in bad:
        return RawTensor(value.dtype, value.shape, bytes(len(value.data)))
    return value


def _lock(path: Any) -> Any:
    """Take the lock on a file, which ends with the process."""
    stream = open(str(path), "w")  # noqa: SIM115 - open for as long as the part is loaded
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        stream.close()
        raise RuntimeFailed("another process has the device") from exc
    return stream


class EchoPart(Part):
    """Gives its input back."""

    def __init__(self, part: Dict[str, Any], options: Dict[str, Any]) -> None:
        super().__init__(part)
        if len(self.input_names) != 1 or len(self.output_names) != 1:
            raise RuntimeFailed("echo takes one input and gives one output")
        self._options = options
        self._lock = _lock(options["alone"]) if options.get("alone") else None
        self._held = bytearray(whole_number(options, "allocate_mib") << 20)
        _misbehave(options, "load_")

    def prepare(self, values: Dict[str, Any]) -> Any:
        """The one value."""
        return values[self.input_names[0]]

    def bind(self, feeds: Any) -> Tuple[Callable[..., Any], Tuple[Any, ...]]:
        """The call that gives it back."""
        return self._call, (feeds,)

    def _call(self, value: Any) -> Any:
        if self._options:
            if self._options.get("print"):
                os.write(1, str(self._options["print"]).encode("utf-8"))
            _misbehave(self._options, "")
            return _go_bad(self._options, value)
        return value

    def named(self, result: Any) -> Dict[str, Any]:
        """The same value under the output's name."""
        return {self.output_names[0]: result}

    def twin(self) -> Optional[Part]:
        """Itself: it keeps nothing from run to run."""
        return self

    def describe(self) -> Dict[str, Any]:
        """Nothing runs anywhere else, unless it was told to say so."""
        found = {"device": "CPU"}  # type: Dict[str, Any]
        if "accelerator" in self._options:
            found["accelerator"] = self._options["accelerator"]
        return found

    def profile(self, asked: Profiling) -> Tuple[List[OpRecord], str]:
        """One op, or what it was told to say."""
        if "ops" in self._options:
            return list(self._options["ops"]), "what the options say"
        start = time.perf_counter_ns()
        self._call(asked.feeds)
        spent_us = (time.perf_counter_ns() - start) / 1e3
        record = op_record("Echo", "echo", "CPU", accelerator=False, us=spent_us)
        told = json.dumps(self._options) if self._options.get("tell_options") else "one run"
        return [record], told


def load(files: List[str], part: Dict[str, Any], options: Dict[str, Any]) -> Part:
    """Load a part; its file is opened, so that a missing one is noticed, and not used."""
    with open(files[0], "rb"):
        return EchoPart(part, options)
