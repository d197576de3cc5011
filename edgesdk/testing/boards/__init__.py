"""Virtual boards: systems of another machine, run under emulation as ``virtual:`` devices."""

from __future__ import annotations

from edgesdk.testing.boards.board import (
    VirtualBoard,
    set_up_board,
    why_no_board,
    why_stale,
)
from edgesdk.testing.boards.power import STATE_ON_DISK, VirtualMachine
from edgesdk.testing.boards.ways import board_serial_agent, write_login_program

__all__ = [
    "STATE_ON_DISK",
    "VirtualBoard",
    "VirtualMachine",
    "board_serial_agent",
    "set_up_board",
    "why_no_board",
    "why_stale",
    "write_login_program",
]
