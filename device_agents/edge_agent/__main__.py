"""The agent's command line.

``run`` and ``stdio`` serve hosts, ``lane`` adds a link to one that does, ``facts``, ``status``,
``trust`` and ``version`` print JSON for people and scripts on the device, ``infer`` runs the
model on files, ``client`` prints the client for applications, ``worker`` is internal. Before
anything that may load other code, stdout's descriptor is put aside and pointed at stderr: only
frames, or the one JSON document, ever reach the real stdout.
"""

from __future__ import annotations

import os
import sys
import types
from typing import TYPE_CHECKING, Any, Dict, List, Optional

if TYPE_CHECKING:
    import argparse

__all__ = ["main"]

_USAGE = 2
_FAILED = 3


def _default_state() -> str:
    from edge_agent.client import default_state

    return default_state()


def _parser(wanted: str) -> argparse.ArgumentParser:
    """Give the parser; the options of a command are there if it is the ``wanted`` one."""
    import argparse  # a worker starts without it

    parser = argparse.ArgumentParser(
        prog="edge-agent", description="The edgesdk agent: what runs on a device."
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--state",
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
    run.add_argument(
        "--console",
        nargs="?",
        const="/bin/login",
        metavar="COMMAND",
        help="people log in on that line as well, through COMMAND (default: /bin/login)",
    )
    run.add_argument(
        "--user", metavar="NAME", help="started by root: become this user first, for good"
    )
    if wanted == "run":
        from edge_agent.serving_doors import add_serving_options

        add_serving_options(run)
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
        ("lane", "carry more of a push to the agent that serves it"),
        ("facts", "say what this machine is"),
        ("status", "say what is deployed here"),
    ):
        commands.add_parser(name, parents=[shared], help=text)
    trust = commands.add_parser("trust", help="say or set what is demanded")
    if wanted == "trust":
        from edge_agent.policy_command import add_commands

        add_commands(trust, shared)
    infer = commands.add_parser("infer", parents=[shared], help="run a release once on files")
    if wanted == "infer":
        from edge_agent.inferring import add_infer_options

        add_infer_options(infer)
    commands.add_parser("client", help="print the client for applications, as one Python file")
    commands.add_parser("version", help="say which agent this is")
    commands.add_parser("worker")
    return parser


def _as_a_host_starts(argv: List[str]) -> Optional[types.SimpleNamespace]:
    """Read the command line of ``stdio`` or ``lane`` as hosts write it; None for any other.

    It goes without argparse, whose import alone would be a tenth of the start.
    """
    given = dict(zip(argv[1::2], argv[2::2]))
    is_plain = all(value and not value.startswith("-") for value in given.values())
    if (
        argv[:1] not in (["stdio"], ["lane"])
        or len(argv) != 1 + 2 * len(given)
        or not set(given) <= {"--state", "--python"}
        or not is_plain
    ):
        return None
    return types.SimpleNamespace(
        command=argv[0],
        state=given.get("--state"),
        python=given.get("--python", sys.executable),
        idle_exit=None,
    )


def _emit(stdout: int, document: Dict[str, Any]) -> int:
    import json

    _write(stdout, (json.dumps(document, indent=2, sort_keys=True) + "\n").encode("utf-8"))
    return 0


def _write(stdout: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(stdout, view) :]


def _version() -> Dict[str, Any]:
    import platform

    import edge_agent
    from edgesdk.wire.ops import PROTOCOL_NEWEST, PROTOCOL_OLDEST

    return {
        "version": edge_agent.__version__,
        "protocol": [PROTOCOL_OLDEST, PROTOCOL_NEWEST],
        "python": platform.python_version(),
    }


def _infer(arguments: argparse.Namespace, stdin: int, stdout: int) -> int:
    from edge_agent.inferring import infer
    from edge_agent.local import Local
    from edgesdk.wire.tensors import TensorError

    try:
        with Local(arguments.state, arguments.python) as local:
            answer, shown = infer(arguments, local.ask, stdin)
    except (TensorError, OSError) as exc:
        text = str(exc)
        if isinstance(exc, OSError) and exc.strerror:
            text = "cannot use {}: {}".format(exc.filename, exc.strerror)
        print("edge-agent: {}".format(text), file=sys.stderr)
        return _USAGE
    if not answer.get("ok"):
        _emit(stdout, answer)
        return _FAILED
    _write(stdout, shown)
    return 0


def _run(arguments: argparse.Namespace) -> int:
    import shlex

    from edge_agent import daemon, later, login, rights
    from edge_agent.starting import StartFailed

    later.import_all()
    later.memory.give_back()
    logins = None
    if arguments.console is not None:
        try:
            # first of all, because it keeps the rights that are given up next
            logins = login.Logins.start(shlex.split(arguments.console))
        except (OSError, ValueError, login.LoginFailed) as exc:
            raise StartFailed("console", str(exc)) from exc
    if arguments.user is not None:
        try:
            rights.give_up_rights(arguments.user, tty=arguments.tty)
        except (OSError, ValueError) as exc:
            raise StartFailed("user", str(exc)) from exc
    return daemon.run_daemon(
        arguments.state or _default_state(),
        arguments.python,
        tty=arguments.tty,
        baud=arguments.baud,
        rtscts=arguments.rtscts,
        logins=logins,
        applications=arguments,
    )


def _trust(arguments: argparse.Namespace) -> int:
    from edge_agent.policy_command import change_trust

    if arguments.what is None:
        print("edge-agent: trust what? see edge-agent trust --help", file=sys.stderr)
        return 2
    try:
        return _emit(1, change_trust(arguments))
    except ValueError as exc:
        print("edge-agent: cannot set what is demanded: {}".format(exc), file=sys.stderr)
        return 2


def _lane(state: str, stdin: int, stdout: int) -> int:
    from edge_agent.fs import NotOurs
    from edge_agent.lane import run_lane

    try:
        return run_lane(state, reading=stdin, writing=stdout)
    except (OSError, NotOurs) as exc:
        print("edge-agent: failed at stage lane: {}".format(exc), file=sys.stderr)
        return _FAILED


def _without_agent(arguments: argparse.Namespace, stdin: int, stdout: int) -> int:
    """Do what needs no agent in this process, and so few imports."""
    if arguments.command == "version":
        return _emit(stdout, _version())
    if arguments.command == "lane":
        return _lane(arguments.state or _default_state(), stdin, stdout)
    from edge_agent.inferring import client_source

    _write(stdout, client_source().encode("utf-8"))
    return 0


def _main(arguments: argparse.Namespace, stdin: int, stdout: int) -> int:
    if arguments.command == "run":
        return _run(arguments)
    arguments.state = arguments.state or _default_state()
    if arguments.command == "stdio":
        from edge_agent.stdio import run_stdio

        return run_stdio(
            arguments.state,
            arguments.python,
            reading=stdin,
            writing=stdout,
            idle_exit_s=arguments.idle_exit,
        )
    if arguments.command == "infer":
        return _infer(arguments, stdin, stdout)
    from edge_agent.local import Local

    with Local(arguments.state, arguments.python) as local:
        answer = local.ask({"op": arguments.command}).meta
    _emit(stdout, answer)
    return 0 if answer.get("ok") else _FAILED


def _parsed(argv: List[str]) -> argparse.Namespace:
    parser = _parser(argv[0] if argv else "")
    arguments = parser.parse_args(argv)
    if arguments.command is None:
        parser.print_help()
        sys.exit(_USAGE)
    if arguments.command == "run" and arguments.console is not None and arguments.tty is None:
        parser.error("--console needs the line it is for: --tty")
    return arguments


def main(argv: Optional[List[str]] = None) -> int:
    """Run the agent and give its exit status."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["worker"]:
        from edge_agent.worker import work

        work()
    arguments = _as_a_host_starts(argv) or _parsed(argv)
    if arguments.command == "trust":
        return _trust(arguments)
    stdin, stdout = os.dup(0), os.dup(1)
    os.dup2(2, 1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    if arguments.command in ("version", "client", "lane"):
        return _without_agent(arguments, stdin, stdout)
    from edge_agent.starting import StartFailed

    try:
        return _main(arguments, stdin, stdout)
    except StartFailed as exc:
        print("edge-agent: failed at stage {}: {}".format(exc.stage, exc), file=sys.stderr)
        return _FAILED


if __name__ == "__main__":
    sys.exit(main())
