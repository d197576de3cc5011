"""A runtime that needs nothing: its one input is its output. It makes every path testable.

Options make it misbehave on purpose, so that a deployment's answer to a bad runtime can be
tried on any device: ``delay_ms`` (each run), ``load_delay_ms``, ``fail`` and ``load_fail`` (an
error with that text), ``die`` and ``load_die`` (a signal name), ``print`` (text on stdout),
``allocate_mib`` (memory held after loading).
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

from edge_agent import __version__
from edge_agent.runtimes.base import Part, RuntimeFailed, whole_number

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


class EchoPart(Part):
    """Gives its input back."""

    def __init__(self, part: Dict[str, Any], options: Dict[str, Any]) -> None:
        super().__init__(part)
        if len(self.input_names) != 1 or len(self.output_names) != 1:
            raise RuntimeFailed("echo takes one input and gives one output")
        self._options = options
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
        return value

    def named(self, result: Any) -> Dict[str, Any]:
        """The same value under the output's name."""
        return {self.output_names[0]: result}

    def describe(self) -> Dict[str, Any]:
        """Nothing runs anywhere else."""
        return {"device": "CPU"}


def load(files: List[str], part: Dict[str, Any], options: Dict[str, Any]) -> Part:
    """Load a part; its file is opened, so that a missing one is noticed, and not used."""
    with open(files[0], "rb"):
        return EchoPart(part, options)
