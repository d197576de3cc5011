"""What a worker may take of the device: the stricter of the bundle's wish and the device's own.

A bundle says so in ``limits``: ``memory_bytes`` (address space), ``niceness`` (0 to 19) and
``run_s`` (one inference). The device says so to the agent, in the environment:
``EDGE_AGENT_WORKER_MEMORY_BYTES``, ``EDGE_AGENT_WORKER_NICENESS``, ``EDGE_AGENT_WORKER_RUN_S``.
"""

from __future__ import annotations

import os
from typing import Any, Dict, Optional

__all__ = ["MEMORY_ENV", "NICENESS_ENV", "limits_of", "run_limit_s", "worker_environment"]

MEMORY_ENV = "EDGE_AGENT_WORKER_MEMORY_BYTES"
NICENESS_ENV = "EDGE_AGENT_WORKER_NICENESS"
_RUN_ENV = "EDGE_AGENT_WORKER_RUN_S"
_MOST_NICE = 19


def _number(value: Any) -> Optional[float]:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        return None
    return value


def _device(name: str) -> Optional[float]:
    text = os.environ.get(name, "")
    return int(text) if text.isdigit() and int(text) > 0 else None


def _stricter(one: Optional[float], other: Optional[float]) -> Optional[float]:
    if one is None or other is None:
        return one if other is None else other
    return min(one, other)


def limits_of(manifest: Dict[str, Any]) -> Dict[str, Any]:
    """Give ``memory_bytes``, ``niceness`` and ``run_s`` of a release here; None is no limit."""
    wish = manifest.get("limits")
    wish = wish if isinstance(wish, dict) else {}
    memory = _stricter(_number(wish.get("memory_bytes")), _device(MEMORY_ENV))
    nice = [_number(wish.get("niceness")), _device(NICENESS_ENV)]
    return {
        "memory_bytes": None if memory is None else int(memory),
        "niceness": int(min(_MOST_NICE, max([n for n in nice if n is not None] or [0]))),
        "run_s": _stricter(_number(wish.get("run_s")), _device(_RUN_ENV)),
    }


def run_limit_s(manifest: Dict[str, Any], otherwise_s: float) -> float:
    """How long one inference of a release may take."""
    limit = limits_of(manifest)["run_s"]
    return otherwise_s if limit is None else min(float(limit), otherwise_s)


def worker_environment(limits: Optional[Dict[str, Any]]) -> Dict[str, str]:
    """The environment of a worker: ours, with what limits it."""
    env = dict(os.environ)
    if limits is not None:
        if limits["memory_bytes"] is not None:
            env[MEMORY_ENV] = str(limits["memory_bytes"])
        if limits["niceness"]:
            env[NICENESS_ENV] = str(limits["niceness"])
    return env
