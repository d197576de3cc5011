"""Public fakes for tests of code that uses edgesdk: programs and objects, never patches."""

from __future__ import annotations

from edgesdk.testing.boards import (
    STATE_ON_DISK,
    VirtualBoard,
    VirtualMachine,
    board_serial_agent,
    set_up_board,
    why_no_board,
    write_login_program,
)
from edgesdk.testing.bundles import make_echo_bundle
from edgesdk.testing.channels import FakeAgent, ScriptedChannel
from edgesdk.testing.disk_writes import (
    DiskWrite,
    PowerCut,
    crash_image,
    read_folder,
    read_writes,
)
from edgesdk.testing.faulty_link import FaultyLink, LineFaults, LinkCounts
from edgesdk.testing.litert import FakeCompiledDelegate, FakeDelegate
from edgesdk.testing.openvino import FakeOpenvinoNpu
from edgesdk.testing.serial_lines import PtyPair, serial_agent
from edgesdk.testing.slow_network import SlowNetwork
from edgesdk.testing.sshd import LocalSshd
from edgesdk.testing.tensorrt import FakeTensorrt

__all__ = [
    "STATE_ON_DISK",
    "DiskWrite",
    "FakeAgent",
    "FakeCompiledDelegate",
    "FakeDelegate",
    "FakeOpenvinoNpu",
    "FakeTensorrt",
    "FaultyLink",
    "LineFaults",
    "LinkCounts",
    "LocalSshd",
    "PowerCut",
    "PtyPair",
    "ScriptedChannel",
    "SlowNetwork",
    "VirtualBoard",
    "VirtualMachine",
    "board_serial_agent",
    "crash_image",
    "make_echo_bundle",
    "read_folder",
    "read_writes",
    "serial_agent",
    "set_up_board",
    "why_no_board",
    "write_login_program",
]
