"""The operations that say what a device is and has: ``facts`` and ``status``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Dict

import edge_agent
from edge_agent import asking, runtimes
from edge_agent.activation import slot_states
from edge_agent.facts import machine_facts
from edge_agent.refusals import Cancelled
from edgesdk.wire.frames import Frame
from edgesdk.wire.ops import PROTOCOL_NEWEST

if TYPE_CHECKING:
    from edge_agent.agent import Agent

__all__ = ["facts", "status"]

_PROBE_TIMEOUT_S = 60.0


def facts(agent: Agent, ctx: Any, meta: Dict[str, Any], body: bytes) -> Frame:
    """Say what the machine is, and which runtimes a worker can import there."""
    found = machine_facts()
    found["worker_python"] = agent.supervisor.python
    found["disk_free_bytes"] = agent.root.free_bytes()
    found["state_dir"] = agent.root.path
    wanted = asking.names(meta, "runtimes", runtimes.NAMES)
    if wanted:
        states = {}
        with agent.worker_turn(ctx):
            for name in wanted:
                if ctx.is_cancelled():
                    raise Cancelled
                states[name] = agent.supervisor.probe(name, _PROBE_TIMEOUT_S)
        found["runtimes"] = states
    return Frame({"facts": found})


def status(agent: Agent, ctx: Any, meta: Dict[str, Any], body: bytes) -> Frame:
    """Say what is deployed, and what the agent is doing."""
    return Frame(
        {
            "agent": {
                "version": edge_agent.__version__,
                "sha256": agent.sha256,
                "python": agent.python_version,
                "pid": os.getpid(),
                "daemon": agent.daemon,
                "is_root": os.geteuid() == 0,
                "protocol": PROTOCOL_NEWEST,
            },
            "slots": slot_states(agent),
            "probation": agent.probation.state(),
            "returned": agent.slots.returned(),
            "holder": agent.hold.state(),
            "store_bytes": agent.store.bytes_held(),
            "worker": agent.supervisor.state(),
            "serving": agent.serving.state() if agent.has("serving") else None,
        }
    )
