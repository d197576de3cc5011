"""Run a vendor's compiler, which may hang, crash or talk without end; bring back its words."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Outcome", "run_program", "time_limit_s"]

_MOST_OUTPUT = 1 << 20
_GRACE_S = 5.0
_TIMEOUT_S = 300.0
_MOST_TIMEOUT_S = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a run ended.

    Attributes:
        problem: What went wrong, in words; empty if it ended with 0.
        output: The first mebibyte of what it said on both its streams.
    """

    problem: str
    output: str


def run_program(command: Sequence[str], *, folder: Path, timeout_s: float) -> Outcome:
    """Run a program in a process group of its own, and end the whole group when it is over.

    Args:
        command: The program's path and its arguments; no shell sees them.
        folder: Where it runs.
        timeout_s: How long it may take.
    """
    try:
        # its own session, so that what it starts can be ended with it
        process = subprocess.Popen(
            list(command),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as exc:
        return Outcome(problem=f"cannot be started: {exc.strerror or exc}", output="")
    pieces: list[bytes] = []
    reader = threading.Thread(target=_read, args=(process, pieces), daemon=True)
    reader.start()
    try:
        code = process.wait(timeout_s)
        problem = "" if code == 0 else _fate(code)
    except subprocess.TimeoutExpired:
        problem = f"takes longer than {timeout_s:g} s"
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_S)
        reader.join(_GRACE_S)
    return Outcome(problem=problem, output=b"".join(pieces).decode("utf-8", "replace"))


def time_limit_s(options: Mapping[str, str | int | bool]) -> float:
    """Give the option ``compile-timeout-s`` of a profile, at most a day.

    What is no positive number gives the default, 300 s.
    """
    wanted = options.get("compile-timeout-s")
    if isinstance(wanted, str | bool) or wanted is None or wanted < 1:
        return _TIMEOUT_S
    return float(min(wanted, _MOST_TIMEOUT_S))


def _read(process: subprocess.Popen[bytes], pieces: list[bytes]) -> None:
    """Keep what fits, and read on, so that a talkative program is not held up."""
    assert process.stdout is not None
    kept = 0
    with process.stdout as stream:
        while data := os.read(stream.fileno(), 1 << 16):
            if kept < _MOST_OUTPUT:
                pieces.append(data[: _MOST_OUTPUT - kept])
                kept += len(pieces[-1])


def _fate(code: int) -> str:
    if code > 0:
        return f"ended with code {code}"
    with contextlib.suppress(ValueError):
        return f"died of {signal.Signals(-code).name}"
    return f"died of signal {-code}"
