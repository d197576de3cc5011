"""What a vendor's compiler made of a TFLite file: read it, and set it beside the prediction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from edgesdk.errors import ModelError
from edgesdk.model.tflite import open_tflite
from edgesdk.model.tflite_graph import TfliteGraph
from edgesdk.model.values import Finding

__all__ = ["differences", "disagreement", "not_compiled", "why_not_shipped"]

_MOST_NAMED = 8


def why_not_shipped(made: Path, source: Path, compiled_op: str) -> str:
    """Say why what a compiler made cannot be shipped, or nothing.

    Args:
        made: Where its file should be.
        source: The file it was given.
        compiled_op: The custom operator that stands for what it took.
    """
    if made.is_symlink() or not made.is_file():
        return "ended without a compiled file"
    try:
        opened = open_tflite(made)
    except ModelError as exc:
        return f"made rubbish: {exc}"
    given = open_tflite(source)
    for side in ("inputs", "outputs"):
        ours = [(v.dtype, v.shape) for v in getattr(given.source, side)]
        theirs = [(v.dtype, v.shape) for v in getattr(opened.source, side)]
        if len(ours) > len(theirs) or ours != theirs[: len(ours)]:
            return f"made a file with other {side} ({theirs[:4]}, expected {ours[:4]})"[:400]
    foreign = [op.name for op in opened.graph.ops if op.is_custom and op.name != compiled_op]
    kept = [op.name for op in given.graph.ops if op.is_custom]
    if Counter(foreign) - Counter(kept):
        return f"made a file with operators that it did not get ({', '.join(foreign[:4])})"
    return ""


def differences(
    graph: TfliteGraph, left: Collection[int], made: TfliteGraph, compiled_op: str
) -> list[dict[str, Any]]:
    """List, by operator, where a compiler left more or fewer to the processor than foretold.

    Args:
        graph: What it was given.
        left: Operators of that, by index, that were foretold to stay.
        made: What it made.
        compiled_op: The custom operator that stands for what it took.
    """
    foretold = Counter(graph.ops[index].name for index in left)
    seen = Counter(op.name for op in made.ops if op.name != compiled_op)
    return [
        {"op": name, "foretold_left": foretold[name], "left": seen[name]}
        for name in sorted(foretold.keys() | seen.keys())
        if foretold[name] != seen[name]
    ]


def disagreement(
    found: Sequence[dict[str, Any]], program: str, rules: str
) -> tuple[Finding, ...]:
    """Warn where a compiler and the rules that foretell it differ; see `differences`."""
    if not found:
        return ()
    named = ", ".join(
        f"{each['op']} ({each['left']} left, {each['foretold_left']} foretold)"
        for each in found[:_MOST_NAMED]
    )
    return (
        Finding(
            code="compiler-disagrees",
            severity="warning",
            message=f"{program} took other operators than {rules} foretells: {named}",
            hint="what counts is the compiled file, which is in the bundle; the rules are too "
            "kind or too strict there",
            subject=str(found[0]["op"]),
        ),
    )


def not_compiled(program: str, accelerator: str, why: str, hint: str) -> Finding:
    """Say that a file is shipped without the compiler, and ``why``."""
    return Finding(
        code="not-compiled",
        severity="warning",
        message=f"the file is shipped as it is, for the processor: {program} {why}; what "
        f"{accelerator} would run is foretold, not compiled"[:600],
        hint=hint,
        subject=program,
    )
