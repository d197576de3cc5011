"""Run ONNX's C++ checker, shape inference and version converter in a child process.

They are written for well-meant files: a hostile one can make them crash, loop or ask for all
memory. So this file is also a program (nothing of edgesdk is imported when it runs as one): it
sets limits on itself, reads one request from stdin, and answers on stdout. Its death is an
answer like any other.

The child loads the library's one extension file and not the package around it, which takes
tens of milliseconds where the package takes most of a second.

A request or reply is a line of JSON, whose ``sizes`` say how many bytes of which piece follow.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import IO, Any

__all__ = ["ChildFailed", "check_and_infer", "convert_nodes"]

_CPU_S = 120
_WALL_S = 300
_MEMORY_BYTES = 2 << 30
_MAX_LINE = 1 << 24


class ChildFailed(Exception):
    """The child refused the model, or died over it. ``refused`` tells the two apart."""

    def __init__(self, text: str, *, refused: bool, stage: str = "") -> None:
        super().__init__(text)
        self.refused = refused
        self.stage = stage


def check_and_infer(checked: bytes, model: bytes) -> bytes:
    """Check a serialized model and infer its shapes; give the model with what was inferred.

    Args:
        checked: What the checker sees: the model, with some shape at every output.
        model: What the inference sees.

    Raises:
        ChildFailed: The checker or the inference refuses it (``stage`` says which), or the
            child died or hit a limit.
    """
    _, pieces = _ask({"op": "infer"}, [checked, model])
    return pieces[0]


def convert_nodes(models: Sequence[bytes], to_opset: int) -> list[bytes | str]:
    """Convert one-node models to another opset; give each model's bytes, or why not."""
    reply, pieces = _ask({"op": "convert", "opset": to_opset}, models)
    left = iter(pieces)
    return [next(left) if error is None else str(error) for error in reply["errors"]]


def _ask(
    request: dict[str, Any], pieces: Sequence[bytes]
) -> tuple[dict[str, Any], list[bytes]]:
    from onnx import onnx_cpp2py_export

    request = {
        **request,
        "library": onnx_cpp2py_export.__file__,
        "sizes": [len(piece) for piece in pieces],
        "memory_bytes": _MEMORY_BYTES + 6 * sum(map(len, pieces)),
    }
    with subprocess.Popen(
        [sys.executable, "-I", "-S", __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as child:
        try:
            data = b"".join([json.dumps(request).encode() + b"\n", *pieces])
            answer, _ = child.communicate(data, timeout=_WALL_S)
        except subprocess.TimeoutExpired as exc:
            child.kill()
            raise ChildFailed(f"it takes longer than {_WALL_S} s", refused=False) from exc
        except BaseException:
            child.kill()
            raise
    if child.returncode != 0:
        raise ChildFailed(_fate(child.returncode), refused=False)
    line, _, rest = answer.partition(b"\n")
    reply: dict[str, Any] = json.loads(line)
    if "refused" in reply:
        raise ChildFailed(reply["refused"], refused=True, stage=reply["stage"])
    return reply, list(_cut(rest, reply["sizes"]))


def _fate(code: int) -> str:
    import signal

    if code >= 0:
        return (
            "ONNX's library ran out of memory on it"
            if code == 12
            else (f"ONNX's library ended with code {code} on it")
        )
    with contextlib.suppress(ValueError):
        return f"ONNX's library died of {signal.Signals(-code).name} on it"
    return f"ONNX's library died of signal {-code} on it"


def _cut(data: bytes, sizes: Sequence[int]) -> Iterator[bytes]:
    at = 0
    for size in sizes:
        yield data[at : at + size]
        at += size


# From here on: the child.


def _limit(memory_bytes: int) -> None:
    import resource

    for what, value in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, _CPU_S),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(what)
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(what, (most, hard))


def _library(path: str) -> Any:
    """Load ONNX's extension from its file, without the package it belongs to."""
    from importlib import machinery, util

    name = "onnx.onnx_cpp2py_export"
    loader = machinery.ExtensionFileLoader(name, path)
    spec = util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def _infer(library: Any, pieces: list[bytes]) -> tuple[dict[str, Any], list[bytes]]:
    checked, model = pieces
    try:
        library.checker.check_model(checked, False, False, False)
    except library.checker.ValidationError as exc:
        return {"refused": str(exc), "stage": "check"}, []
    try:
        # types are checked, contradictions are errors, values of small tensors are followed
        inferred = library.shape_inference.infer_shapes(model, True, True, True)
    except library.shape_inference.InferenceError as exc:
        return {"refused": str(exc), "stage": "shapes"}, []
    return {}, [inferred]


def _convert(
    library: Any, opset: int, pieces: list[bytes]
) -> tuple[dict[str, Any], list[bytes]]:
    errors: list[str | None] = []
    done: list[bytes] = []
    for piece in pieces:
        try:
            done.append(library.version_converter.convert_version(piece, opset))
            errors.append(None)
        except (RuntimeError, ValueError, TypeError) as exc:
            errors.append(str(exc))
    return {"errors": errors}, done


def _serve(incoming: IO[bytes], outgoing: IO[bytes]) -> None:
    request = json.loads(incoming.readline(_MAX_LINE))
    _limit(request["memory_bytes"])
    pieces = [incoming.read(size) for size in request["sizes"]]
    library = _library(request["library"])
    if request["op"] == "convert":
        reply, answer = _convert(library, request["opset"], pieces)
    else:
        reply, answer = _infer(library, pieces)
    reply["sizes"] = [len(piece) for piece in answer]
    outgoing.write(json.dumps(reply).encode() + b"\n")
    for piece in answer:
        outgoing.write(piece)
    outgoing.flush()


if __name__ == "__main__":
    try:
        # what a library prints must not get between the bytes of the reply
        out = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)
        _serve(sys.stdin.buffer, out)
    except MemoryError:
        os._exit(12)
