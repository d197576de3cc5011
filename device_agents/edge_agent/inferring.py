"""The commands ``infer``, one inference from the shell, and ``client``, its source."""

from __future__ import annotations

import argparse
import os
import re
from typing import Any, Callable, Dict, List, Tuple

from edge_agent.arrayfiles import json_of, npy_bytes, read_json, read_npy
from edge_agent.client import pack_input
from edgesdk.wire.frames import Frame
from edgesdk.wire.limits import MAX_TENSOR_BYTES
from edgesdk.wire.tensors import TensorError, check_specs

__all__ = ["add_infer_options", "client_source", "infer"]

#: Puts a request, with its body, to an agent, and gives the answer.
Ask = Callable[[Dict[str, Any], bytes], Frame]
_IMPORT = re.compile(
    r"^from (?:__future__|edgesdk\.wire\.\w+) import (?:\([^)]*\)|[^(\n]*)\n", re.M
)
_ONE_FILE = '''\
"""The client of the edgesdk agent as one file; see the class `Client` at its end.

Made by ``edge-agent.pyz client``; needs Python 3.7 or newer and nothing else.
"""

from __future__ import annotations

'''


def add_infer_options(parser: argparse.ArgumentParser) -> None:
    """Add what ``infer`` takes."""
    parser.add_argument(
        "--input",
        action="append",
        required=True,
        metavar="[NAME=]FILE",
        help="an input: .npy, .json (lists of numbers, or an object of such lists by input "
        "name), or raw bytes; - is raw bytes from stdin; may be repeated",
    )
    parser.add_argument(
        "--output",
        action="append",
        default=[],
        metavar="[NAME=]FILE",
        help="write an output to a file, .npy or raw bytes; without it all outputs are "
        "printed as JSON; may be repeated",
    )
    parser.add_argument(
        "--release",
        default="current",
        help="a slot or a bundle id (default: current)",
    )
    parser.add_argument(
        "--timeout", type=float, default=60.0, metavar="SECONDS", help="default: 60"
    )


def _named(argument: str, names: List[str], kind: str) -> Tuple[str, str]:
    name, equals, path = argument.partition("=")
    if equals and name in names:
        return name, path
    if len(names) == 1:
        return names[0], argument
    text = "its {} must be named, as in NAME=FILE; there are {}"
    raise TensorError(text.format(kind, ", ".join(names)))


def _read(path: str, stdin: int) -> bytes:
    if path == "-":
        stream = os.fdopen(stdin, "rb", closefd=False)
        data = stream.read(MAX_TENSOR_BYTES * 4 + 1)
    else:
        with open(path, "rb") as stream:
            data = stream.read(MAX_TENSOR_BYTES * 4 + 1)
    if len(data) > MAX_TENSOR_BYTES * 4:
        raise TensorError("it is larger than any input may be")
    return data


def _inputs(
    arguments: List[str], declared: List[Dict[str, Any]], stdin: int
) -> List[Tuple[str, str, List[int], bytes]]:
    """Give (name, dtype, shape, bytes) of each input."""
    names = [value["name"] for value in declared]
    found = []
    for argument in arguments:
        path = argument
        try:
            if argument.endswith(".json"):
                path = argument.partition("=")[2] if "=" in argument else argument
                path = path if os.path.exists(path) else argument
                value = read_json(_read(path, stdin))
                if isinstance(value, dict):
                    for name, inner in value.items():
                        found.append((name,) + pack_input(name, inner, declared))
                    continue
                name, _ = _named(argument, names, "input")
                found.append((name,) + pack_input(name, value, declared))
                continue
            name, path = _named(argument, names, "input")
            data = _read(path, stdin)
            if path.endswith(".npy"):
                found.append((name,) + read_npy(data))
            else:
                found.append((name,) + pack_input(name, data, declared))
        except TensorError as exc:
            raise TensorError("cannot use {}: {}".format(path, exc)) from None
    return found


def infer(arguments: argparse.Namespace, ask: Ask, stdin: int) -> Tuple[Dict[str, Any], bytes]:
    """Run a release once on files.

    Args:
        arguments: The command line.
        ask: Puts a request to an agent.
        stdin: Where ``-`` is read from.

    Returns:
        The agent's answer (or its refusal), and what is to be printed.

    Raises:
        TensorError: An input cannot be used, or there is no such output.
        OSError: A file cannot be read or written.
    """
    known = ask({"op": "served", "release": arguments.release}, b"").meta
    if not known.get("ok"):
        return known, b""
    specs, pieces, offset = [], [], 0
    for name, dtype, shape, data in _inputs(arguments.input, known["inputs"], stdin):
        spec = {"name": name, "dtype": dtype, "shape": shape}
        specs.append(dict(spec, offset=offset, nbytes=len(data)))
        pieces.append(data)
        offset += len(data)
    reply = ask(
        {
            "op": "infer",
            "release": arguments.release,
            "tensors": specs,
            "timeout_s": arguments.timeout,
        },
        b"".join(pieces),
    )
    if not reply.meta.get("ok"):
        return reply.meta, b""
    outputs = []
    for spec in check_specs(reply.meta.get("tensors"), len(reply.body)):
        data = reply.body[spec["offset"] : spec["offset"] + spec["nbytes"]]
        outputs.append(dict(spec, data=data))
    if not arguments.output:
        answer = {"bundle": reply.meta["bundle"], "run_ms": reply.meta["run_ms"]}
        return reply.meta, json_of(answer, outputs)
    by_name = {tensor["name"]: tensor for tensor in outputs}
    for argument in arguments.output:
        name, path = _named(argument, sorted(by_name), "output")
        tensor = by_name[name]
        data = tensor["data"]
        if path.endswith(".npy"):
            data = npy_bytes(tensor["dtype"], tensor["shape"], data)
        with open(path, "wb") as stream:
            stream.write(data)
    return reply.meta, b""


def client_source() -> str:
    """Give the client and what it needs of the protocol as one Python file."""
    import importlib

    pieces = []
    for name in (
        "edgesdk.wire.limits",
        "edgesdk.wire.frames",
        "edgesdk.wire.tensors",
        "edgesdk.wire.values",
        "edge_agent.client",
    ):
        module = importlib.import_module(name)
        loader = module.__loader__
        source = loader.get_source(name)  # type: ignore[union-attr] # files and zipapps have it
        pieces.append(_IMPORT.sub("", source).strip() + "\n")
    return _ONE_FILE + "\n\n".join(pieces)
