"""Capture a live module by torch.export, and say in the user's terms why that fails."""

from __future__ import annotations

import linecache
import re
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgesdk.importers.frameworks.torch_words import first_line
from edgesdk.importers.job import CannotExport

__all__ = ["capture_module", "explain_capture", "in_inference_mode"]

_CAUSED_BY = re.compile(r"Caused by: \(?([^\s()]+\.py):(\d+)")
_VALUE_ERRORS = ("data-dependent", "DataDependent", "UnsupportedAliasMutation", "unbacked")
_CHANGES = (
    (
        re.compile(r"^\s*(if|elif|while|assert)\b|\bif\b.*\belse\b"),
        "a branch on values has no place in a fixed graph: use torch.where, or put both sides "
        "into functions and call torch.cond(condition, one, other, inputs)",
    ),
    (
        re.compile(r"\.(item|tolist)\(|\b(int|float|bool)\("),
        "a number taken out of a tensor leaves the graph: keep computing with the tensor "
        "itself, or make the number a constant of the module",
    ),
    (
        re.compile(r"\.numpy\(|\bnp\.|numpy\."),
        "NumPy sees no tensors of a trace: use PyTorch's operators",
    ),
    (
        re.compile(r"^\s*for\b|\brange\("),
        "a loop whose length depends on values has no place in a fixed graph: give it a fixed "
        "length, or use torch.while_loop",
    ),
)
_ANY_CHANGE = (
    "what is computed must not depend on values: use torch.where or torch.cond for branches, "
    "and sizes that are fixed"
)


@contextmanager
def in_inference_mode(module: Any) -> Iterator[None]:
    """Switch a module to inference and back: each part's mode and each buffer as it was."""
    import torch

    modes = [(part, part.training) for part in module.modules()]
    buffers = [(buffer, buffer.detach().clone()) for buffer in module.buffers()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
        with torch.no_grad():
            for buffer, before in buffers:
                if not torch.equal(buffer, before):  # a forward() may count or remember
                    buffer.copy_(before)


def capture_module(
    module: Any, tensors: Sequence[Any], *, free: Sequence[int], name: str
) -> Any:
    """Capture a module that is in inference mode, on the device where it is.

    Args:
        module: The module; it is not changed.
        tensors: Its inputs, where the module is.
        free: Positions of the inputs whose leading extent shall stay free.
        name: What to call the module in errors.

    Raises:
        CannotExport: It does not run on these inputs, or cannot be traced.
    """
    import torch

    dim = torch.export.Dim.AUTO
    shapes = tuple({0: dim} if index in free else None for index in range(len(tensors)))
    try:
        with torch.no_grad():
            module(*tensors)
    except MemoryError:
        raise
    except Exception as exc:
        where, code = _users_line(exc)
        raise CannotExport(
            f"cannot run {name} on its example inputs: {first_line(exc)}"
            + (f" (at {where}: {code})" if where else ""),
            hint="give inputs that the module takes, in the order of its forward()",
            where=where,
        ) from exc
    try:
        with torch.no_grad():
            return torch.export.export(
                module, tuple(tensors), dynamic_shapes=_for_signature(module, shapes)
            )
    except MemoryError:
        raise
    except Exception as exc:
        raise explain_capture(exc, name) from exc


def _for_signature(module: Any, shapes: tuple[Any, ...]) -> Any:
    """Nest the shapes as torch.export wants them for a forward() that takes ``*inputs``."""
    import inspect

    if not any(shapes):
        return None
    plain, rest = [], False
    for parameter in inspect.signature(module.forward).parameters.values():
        rest = rest or parameter.kind is inspect.Parameter.VAR_POSITIONAL
        if not rest:
            plain.append(parameter.name)
    if not rest:
        return shapes
    return (*shapes[: len(plain)], tuple(shapes[len(plain) :]))


def explain_capture(exc: BaseException, name: str) -> CannotExport:
    """Say where in the user's code a capture ended, and what to change there."""
    where, code = _users_line(exc)
    text = str(exc)
    on_values = any(mark in text or mark in type(exc).__name__ for mark in _VALUE_ERRORS)
    hint = _ANY_CHANGE
    for pattern, change in _CHANGES:
        if pattern.search(code):
            hint, on_values = change, True
            break
    if not on_values:
        return CannotExport(
            f"cannot trace {name}: {first_line(exc)}"
            + (f" (at {where}: {code})" if where else ""),
            hint="torch.export has to take the module: try torch.export.export(module, inputs) "
            "by itself and follow what it says",
            where=where,
        )
    place = f"{where} decides by a value that depends on the input ({code})" if where else text
    return CannotExport(
        f"cannot trace {name}: {place[:400]}", hint=hint, where=where, code=code
    )


def _users_line(exc: BaseException) -> tuple[str, str]:
    """Find the last line of the user's own code that an error came through."""
    import torch

    inside = (str(Path(torch.__file__).parent), str(Path(__file__).parent))
    seen: BaseException | None = exc
    found: tuple[str, int] | None = None
    while seen is not None and found is None:
        for frame in traceback.extract_tb(seen.__traceback__):
            ours = frame.filename.startswith(inside) or "importlib" in frame.filename
            if not ours and frame.name == "forward" and frame.lineno is not None:
                found = (frame.filename, frame.lineno)
            elif not ours and found is not None and frame.lineno is not None:
                found = (frame.filename, frame.lineno)  # a function that forward() called
        seen = seen.__cause__ or seen.__context__
    if found is None:
        named = _CAUSED_BY.findall(str(exc))
        found = (named[-1][0], int(named[-1][1])) if named else None
    if found is None:
        return "", ""
    return f"{found[0]}:{found[1]}", linecache.getline(*found).strip()[:200]
