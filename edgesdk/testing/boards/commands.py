"""Run a program of the system while a board is made, and say well how it failed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence

from edgesdk.errors import BootstrapError

__all__ = ["run_program"]

_SHOWN_CHARS = 300


def run_program(
    command: Sequence[str],
    *,
    doing: str,
    timeout_s: float,
    hint: str = "",
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run it to its end and give what it printed.

    Args:
        command: The program and its arguments; no shell sees them.
        doing: What it is for, to go after "cannot".
        timeout_s: When to give up.
        hint: What to try when it fails.
        environment: Variables to set beside those of this process.

    Raises:
        BootstrapError: It cannot be run, fails, or takes too long; its last words are said.
    """
    try:
        done = subprocess.run(
            list(command),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C.UTF-8", **(environment or {})},
        )
    except subprocess.TimeoutExpired as exc:
        raise BootstrapError(
            f"cannot {doing}: {command[0]} did not end within {timeout_s:g} s", hint=hint
        ) from exc
    except OSError as exc:
        raise BootstrapError(
            f"cannot {doing}: cannot run {command[0]}: {exc.strerror}", hint=hint
        ) from exc
    if done.returncode != 0:
        raise BootstrapError(
            f"cannot {doing}: {_last_words(done.stderr or done.stdout, done.returncode)}",
            hint=hint,
            status=done.returncode,
            stderr=done.stderr[-4000:],
        )
    return done.stdout


def _last_words(text: str, status: int) -> str:
    """Pick the line that says what went wrong: the first called an error, else the last."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = [line for line in lines if line.startswith(("E:", "Err:", "ERROR:", "error:"))]
    if not lines:
        return f"it ended with status {status}"
    return (named or lines[-1:])[0][:_SHOWN_CHARS]
