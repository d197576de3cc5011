"""Public fakes for tests of code that uses edgesdk: programs and objects, never patches."""

from __future__ import annotations

from edgesdk.testing.bundles import make_echo_bundle
from edgesdk.testing.channels import FakeAgent, ScriptedChannel
from edgesdk.testing.serial_lines import PtyPair, serial_agent
from edgesdk.testing.sshd import LocalSshd

__all__ = [
    "FakeAgent",
    "LocalSshd",
    "PtyPair",
    "ScriptedChannel",
    "make_echo_bundle",
    "serial_agent",
]
