"""The process of a lane: it hands its own link to the agent and waits.

It imports little, because at a long round trip every millisecond until a lane carries counts.
"""

from __future__ import annotations

import array
import os
import socket

from edge_agent.fs import Folder

__all__ = ["SOCKET", "run_lane"]

SOCKET = "lanes.sock"


def run_lane(state: str, *, reading: int, writing: int) -> int:
    """Hand two descriptors to the agent that serves a state folder; wait until it is done.

    Raises:
        OSError: No agent there takes lanes.
        NotOurs: The folder is not this user's.
    """
    root = Folder.open_state(state)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.connect("/proc/self/fd/{}/{}".format(root.fd, SOCKET))
        except OSError:
            raise OSError("no agent takes lanes in {}".format(root.path)) from None
        both = array.array("i", [reading, writing])
        connection.sendmsg([b"+"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, both)])
        os.close(reading)
        os.close(writing)
        connection.recv(1)
    return 0
