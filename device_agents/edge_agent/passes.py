"""What a recorded pass of check vectors rests on: same fingerprint, same numbers."""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING, Any, Dict, List

from edge_agent.facts import machine_key
from edge_agent.finishing import engine_states

if TYPE_CHECKING:
    from edge_agent.agent import Agent

__all__ = ["fingerprint", "holds"]


def _module_state(paths: List[str]) -> List[Any]:
    """What changes when a runtime is installed again, without importing it."""
    state = []  # type: List[Any]
    for path in paths:
        try:
            seen = os.stat(path) if path else None
        except OSError:
            seen = None
        state.append([path, None if seen is None else [seen.st_ino, seen.st_mtime_ns]])
    return state


def fingerprint(agent: Agent, manifest: Any, module_files: List[str]) -> Dict[str, Any]:
    """Everything that a recorded pass rests on: same fingerprint, same numbers."""
    record = {
        "agent": agent.sha256,
        "machine": machine_key(),
        "python": _module_state([agent.supervisor.python]),
        "modules": _module_state(module_files),
        "engines": engine_states(agent, manifest),
    }
    return {
        "module_files": module_files,
        "sha256": hashlib.sha256(
            json.dumps(record, sort_keys=True).encode("utf-8")
        ).hexdigest(),
    }


def holds(record: Dict[str, Any]) -> bool:
    """Say whether a pass was not a fallback's: the runtime of choice may be here by now."""
    used = record.get("reply", {}).get("runtimes", [])
    return not any(entry.get("detail", {}).get("fell_back") for entry in used)
