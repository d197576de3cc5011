"""Devices: which there are, how to reach the agent on one, and the conversation with it."""

from __future__ import annotations

from edgesdk.devices.agentpack import AgentPackage, pack_agent, save_agent
from edgesdk.devices.connect import connect
from edgesdk.devices.facts import read_facts, read_logs, read_status
from edgesdk.devices.hints import runtime_hint
from edgesdk.devices.inventory import Device, load_inventory, resolve_device
from edgesdk.devices.session import Hello, Session

__all__ = [
    "AgentPackage",
    "Device",
    "Hello",
    "Session",
    "connect",
    "load_inventory",
    "pack_agent",
    "read_facts",
    "read_logs",
    "read_status",
    "resolve_device",
    "runtime_hint",
    "save_agent",
]
