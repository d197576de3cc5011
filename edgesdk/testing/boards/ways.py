"""Reach a virtual board as real ones are reached: by an SSH server and by a serial line."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

from edgesdk.devices.agentpack import save_agent
from edgesdk.testing.boards.board import VirtualBoard
from edgesdk.testing.serial_lines import serve_line
from edgesdk.transport.virtual import HOME_THERE, PYTHON_THERE, STATE_THERE, make_home

__all__ = ["board_serial_agent", "write_login_program"]

_READY_S = 60.0


def write_login_program(path: Path, board: VirtualBoard, home: Path) -> Path:
    """Write a program that runs an SSH session's command in a board; give its path.

    A server that has it as its ``ForceCommand`` lets whoever logs in see the board alone.

    Args:
        path: Where to write it.
        board: Where commands run.
        home: The folder of this computer that is the board's home.
    """
    make_home(home)
    enter = shlex.join(board.folder.enter_command(home, ["/bin/sh", "-c"]))
    path.write_text(f'#!/bin/sh\nexec {enter} "$SSH_ORIGINAL_COMMAND"\n')
    path.chmod(0o755)
    return path


@contextlib.contextmanager
def board_serial_agent(
    tty_path: str, board: VirtualBoard, home: Path, *, baud: int = 921_600
) -> Iterator[subprocess.Popen[bytes]]:
    """Run the agent in a board as a daemon that owns a tty.

    Args:
        tty_path: The device's end of the line, under ``/dev/pts``.
        board: Where it runs.
        home: The board's home; the daemon's log goes to ``daemon.log`` in it.
        baud: The line's speed.
    """
    state = make_home(home)
    name = "edge-agent.pyz"
    save_agent(home / name)
    command = [
        *(PYTHON_THERE, "-I", "-S", f"{HOME_THERE}/{name}", "run", "--state", STATE_THERE),
        *("--python", PYTHON_THERE, "--tty", tty_path, "--baud", str(baud)),
    ]
    entered = board.folder.enter_command(home, command)
    with serve_line(entered, state, log=home / "daemon.log", ready_s=_READY_S) as daemon:
        yield daemon
