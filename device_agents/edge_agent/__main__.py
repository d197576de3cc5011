"""The agent's command line.

``run`` and ``stdio`` serve hosts, ``facts``, ``status`` and ``version`` print JSON for people
and scripts on the device, ``worker`` is internal. Before anything else, stdout's descriptor is
put aside and pointed at stderr: only frames, or the one JSON document, ever reach the real
stdout.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Dict, List, Optional

if TYPE_CHECKING:
    import argparse

__all__ = ["main"]

_FAILED = 3


def _default_state() -> str:
    """The folder that a host uses too, when it starts the agent over SSH or as its child."""
    given = os.environ.get("EDGE_AGENT_STATE")
    home = os.path.expanduser("~")
    base = os.environ.get("XDG_STATE_HOME") or os.path.join(home, ".local", "state")
    return given or os.path.join(base, "edgesdk", "agent")


def _parser() -> argparse.ArgumentParser:
    import argparse  # a worker starts without it

    parser = argparse.ArgumentParser(
        prog="edge-agent", description="The edgesdk agent: what runs on a device."
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--state",
        default=_default_state(),
        help="state folder (default: $EDGE_AGENT_STATE, or edgesdk/agent in "
        "$XDG_STATE_HOME, which is ~/.local/state by default)",
    )
    shared.add_argument(
        "--python", default=sys.executable, help="interpreter for workers (default: this one)"
    )
    run = commands.add_parser("run", parents=[shared], help="serve as daemon until SIGTERM")
    run.add_argument("--tty", help="serial line to own as well, such as /dev/ttyS0")
    run.add_argument("--baud", type=int, default=115200, help="its rate (default: 115200)")
    run.add_argument("--rtscts", action="store_true", help="hardware flow control")
    stdio = commands.add_parser(
        "stdio", parents=[shared], help="serve one host on stdin and stdout"
    )
    stdio.add_argument(
        "--idle-exit",
        type=float,
        nargs="?",
        const=600.0,
        metavar="SECONDS",
        help="end after this long without a request (600 if no number is given)",
    )
    for name, text in (
        ("facts", "say what this machine is"),
        ("status", "say what is deployed here"),
    ):
        commands.add_parser(name, parents=[shared], help=text)
    commands.add_parser("version", help="say which agent this is")
    commands.add_parser("worker")
    return parser


def _emit(stdout: int, document: Dict[str, Any]) -> int:
    import json

    os.write(stdout, (json.dumps(document, indent=2, sort_keys=True) + "\n").encode("utf-8"))
    return 0


def _version() -> Dict[str, Any]:
    import platform

    import edge_agent
    from edgesdk.wire.ops import PROTOCOL_NEWEST, PROTOCOL_OLDEST

    return {
        "version": edge_agent.__version__,
        "protocol": [PROTOCOL_OLDEST, PROTOCOL_NEWEST],
        "python": platform.python_version(),
    }


def _ask_ourselves(op: str, state: str, python: str) -> Dict[str, Any]:
    """Put one question to an agent of our own, or through it to the daemon."""
    import socket
    import threading

    from edge_agent.daemon import run_stdio
    from edgesdk.wire.frames import Frame, FrameReader, encode_frame

    ours, theirs = socket.socketpair()
    failed = []  # type: List[BaseException]

    def serve() -> None:
        try:
            fd = theirs.fileno()
            run_stdio(state, python, reading=fd, writing=fd, idle_exit_s=None)
        except BaseException as exc:  # noqa: BLE001 - raised again by the one who asked
            failed.append(exc)
        finally:
            theirs.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    ours.sendall(encode_frame(Frame({"op": op, "id": 1})))
    ours.shutdown(socket.SHUT_WR)
    reader = FrameReader()
    while True:
        data = ours.recv(1 << 16)
        if not data:
            thread.join()
            raise failed[0] if failed else RuntimeError("the agent gave no answer")
        for frame in reader.feed(data):
            if "event" not in frame.meta:
                return {k: v for k, v in frame.meta.items() if k not in ("id",)}


def _main(arguments: argparse.Namespace, stdin: int, stdout: int) -> int:
    from edge_agent import daemon

    if arguments.command == "run":
        return daemon.run_daemon(
            arguments.state,
            arguments.python,
            tty=arguments.tty,
            baud=arguments.baud,
            rtscts=arguments.rtscts,
        )
    if arguments.command == "stdio":
        return daemon.run_stdio(
            arguments.state,
            arguments.python,
            reading=stdin,
            writing=stdout,
            idle_exit_s=arguments.idle_exit,
        )
    answer = _ask_ourselves(arguments.command, arguments.state, arguments.python)
    _emit(stdout, answer)
    return 0 if answer.get("ok") else _FAILED


def main(argv: Optional[List[str]] = None) -> int:
    """Run the agent and give its exit status."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["worker"]:
        from edge_agent.worker import work

        work()
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.command is None:
        parser.print_help()
        return 2
    stdin, stdout = os.dup(0), os.dup(1)
    os.dup2(2, 1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    if arguments.command == "version":
        return _emit(stdout, _version())
    from edge_agent.daemon import StartFailed

    try:
        return _main(arguments, stdin, stdout)
    except StartFailed as exc:
        print("edge-agent: failed at stage {}: {}".format(exc.stage, exc), file=sys.stderr)
        return _FAILED


if __name__ == "__main__":
    sys.exit(main())
