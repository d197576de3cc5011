"""``edge-agent trust``: what this device demands, set by who is logged in on it.

It changes files of the state folder; an agent that serves it sees the change at its next
request. Secrets come from a file or stdin, never from the command line, which every user of the
machine can read.
"""

from __future__ import annotations

import os
import secrets
import sys
from typing import TYPE_CHECKING, Any, Dict, Optional

from edge_agent.fs import Folder, NotOurs, read_descriptor
from edge_agent.policy import Policy
from edge_agent.signing_keys import MAX_KEYS_CHARS
from edgesdk.wire.auth import KEY_BYTES, key_of_text
from edgesdk.wire.manifest import NAME_PATTERN
from edgesdk.wire.statement import MAX_COUNTER

if TYPE_CHECKING:
    import argparse

__all__ = ["add_commands", "change_trust"]

_YES_NO = {"yes": True, "no": False}


def add_commands(parser: argparse.ArgumentParser, shared: argparse.ArgumentParser) -> None:
    """Give ``edge-agent trust`` its commands."""
    commands = parser.add_subparsers(dest="what", metavar="WHAT")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, parents=[shared], help=text)

    add("show", "say what is demanded")
    for name, text in (
        ("signers", "whose signatures count: an allowed_signers file of OpenSSH, - for stdin"),
        ("revoked", "whose no longer do: a file of public keys, - for stdin"),
    ):
        add(name, text).add_argument("file", metavar="FILE")
    for name, text in (
        ("require", "demand a signature of every bundle that comes in"),
        ("remote", "let hosts change all this"),
    ):
        add(name, text).add_argument("answer", choices=sorted(_YES_NO))
    key = add("key", "demand a key of hosts on serial lines")
    group = key.add_mutually_exclusive_group(required=True)
    group.add_argument("--new", action="store_true", help="make one, and print it this once")
    group.add_argument(
        "--from", dest="file", metavar="FILE", help="take it from there (-: stdin)"
    )
    group.add_argument("--remove", action="store_true", help="demand none any more")
    back = add("allow-downgrade", "take bundles of a name from that counter on")
    back.add_argument("name", metavar="NAME")
    back.add_argument("counter", metavar="COUNTER", type=int)


def _read(path: str, most: int) -> str:
    if path == "-":
        return sys.stdin.buffer.read(most + 1).decode("utf-8")[:most]
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return read_descriptor(fd, most).decode("utf-8")
    finally:
        os.close(fd)


def _change(policy: Policy, arguments: argparse.Namespace) -> Optional[str]:
    """Do it; gives a new key, to be printed."""
    what = arguments.what
    if what in ("signers", "revoked"):
        policy.files.configure({what: _read(arguments.file, MAX_KEYS_CHARS)})
    elif what in ("require", "remote"):
        policy.files.configure({what: _YES_NO[arguments.answer]})
    elif what == "allow-downgrade":
        if not NAME_PATTERN.match(arguments.name):
            raise ValueError("{!r} is no name of a bundle".format(arguments.name))
        if not 0 <= arguments.counter <= MAX_COUNTER:
            raise ValueError("the counter must be from 0 to {}".format(MAX_COUNTER))
        policy.files.set_floor(arguments.name, arguments.counter)
    elif what == "key":
        if arguments.remove:
            policy.files.set_line_key(None)
        elif arguments.new:
            key = secrets.token_bytes(KEY_BYTES)
            policy.files.set_line_key(key)
            return key.hex()
        else:
            policy.files.set_line_key(key_of_text(_read(arguments.file, 4096)))
    return None


def change_trust(arguments: argparse.Namespace) -> Dict[str, Any]:
    """Do what was asked and say what is demanded now.

    Raises:
        ValueError: It cannot be done; the text says why, and holds no secret.
    """
    try:
        root = Folder.open_state(arguments.state)
    except (OSError, NotOurs) as exc:
        raise ValueError("cannot open the state folder: {}".format(exc)) from exc
    policy = Policy(root, lambda _: None)
    try:
        key = _change(policy, arguments)
        shown = dict(policy.describe(), ok=True)
        if key is not None:
            shown["new_key"] = key
        return shown
    except UnicodeDecodeError:
        raise ValueError("the file is not text") from None
    except (OSError, NotOurs) as exc:
        raise ValueError(str(exc)) from exc
    finally:
        policy.close()
        root.close()
