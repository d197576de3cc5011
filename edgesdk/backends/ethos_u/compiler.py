"""From a TFLite file to one with commands for an Ethos-U, where the compiler is here.

The compiler runs as a program of its own: it may hang on a large graph, and it stops altogether
at some operators that it could leave to the processor. So it gets a time limit and one more
try, its file is read by our own reader before it is shipped, and what it placed is set beside
what was foretold. Where it is missing or fails, the 8-bit file itself is shipped, which the
processor runs, and the prediction says that it is one.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgesdk.backends.base import CompiledPart, PartJob
from edgesdk.backends.compiled_files import (
    differences,
    disagreement,
    not_compiled,
    why_not_shipped,
)
from edgesdk.backends.ethos_u.mapping import foretell, is_compiled
from edgesdk.backends.ethos_u.performance import read_summary
from edgesdk.backends.litert.compiler import lower_part
from edgesdk.backends.program import run_program, time_limit_s
from edgesdk.model.tflite import open_tflite
from edgesdk.model.tflite_graph import TfliteGraph
from edgesdk.profiles.constraint_values import ConstraintRules, Core
from edgesdk.profiles.values import BackendProfile

__all__ = ["compile_part", "find_program"]

_VERSION_S = 30.0
_TRIES = 2
_MOST_LISTED = 200
_ACCELERATOR = "the Ethos-U"
_MOST_WORDS = 400
#: The profile's options that the compiler is given, by its own name for each.
_FLAGS = {
    "accelerator": "--accelerator-config",
    "config": "--config",
    "system-config": "--system-config",
    "memory-mode": "--memory-mode",
    "optimise": "--optimise",
    "arena-cache-bytes": "--arena-cache-size",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Compiled:
    """What the compiler made, read again."""

    path: Path
    graph: TfliteGraph
    estimate: Mapping[str, Any]
    version: str


def compile_part(
    job: PartJob, profile: BackendProfile, rules: ConstraintRules, core: Core
) -> CompiledPart:
    """Make the file of a part.

    Options of the profile: ``accelerator``, ``config``, ``system-config``, ``memory-mode``,
    ``optimise``, ``arena-cache-bytes``, which the compiler is given, and ``compile-timeout-s``.

    ``inside`` has ``compiler`` (its name and, where it ran, its own word for its release; else
    that of the rules), ``ops`` (how many operators of a kind are ``placed`` and ``left``),
    ``left`` (those foretold to be left, with reasons), ``provenance`` (``assumed`` where it is
    foretold, ``measured`` where the compiler did it) and, where the compiler ran, ``estimate``
    (cycles, memory and time, as it estimates them) and ``disagreements`` with the prediction.

    Raises:
        NodesRefused: Nodes of a graph that have no form in TFLite.
        CompileError: A graph cannot be written as a TFLite file.
    """
    path = job.source if job.source is not None else lower_part(job)
    as_it_is = CompiledPart(files={"model": path}, format="tflite")
    graph = open_tflite(path).graph
    objections = foretell(graph, rules, core)
    if is_compiled(graph, rules):
        known = {"ops": _counts(graph, objections), "provenance": "measured"}
        return replace(as_it_is, inside=known)
    inside: dict[str, Any] = {
        "compiler": f"{rules.program} {rules.version}",  # that the rules are of
        "accelerator": profile.options.get("accelerator"),
        "ops": _counts(graph, objections),
        "left": [
            {"index": index, "op": graph.ops[index].name, "reason": objections[index][:300]}
            for index in sorted(objections)[:_MOST_LISTED]
        ],
        "provenance": "assumed",
    }
    program = find_program(rules)
    if program is None:
        finding = not_compiled(
            rules.program, _ACCELERATOR, "is not installed", rules.how_to_get
        )
        return replace(as_it_is, is_for_rest=True, inside=inside, findings=(finding,))
    made = _compiled(job, profile, rules, program, path)
    if isinstance(made, str):
        hint = "compile the file by hand to see what it says, and give what it makes"
        finding = not_compiled(rules.program, _ACCELERATOR, made, hint)
        return replace(as_it_is, is_for_rest=True, inside=inside, findings=(finding,))
    found = differences(graph, objections, made.graph, rules.compiled_op)
    left = _left_in(graph, made.graph, rules)
    inside |= {
        "compiler": f"{rules.program} {made.version}".strip(),
        "ops": _counts(graph, left),
        "provenance": "measured",
        "estimate": dict(made.estimate),
        "disagreements": found,
    }
    is_all_left = len(left) == len(graph.ops)
    return CompiledPart(
        files={"model": path if is_all_left else made.path},
        format="tflite",
        on_host=path,
        findings=disagreement(found, rules.program, rules.name),
        is_for_rest=is_all_left,
        inside=inside,
    )


def find_program(rules: ConstraintRules) -> list[str] | None:
    """Give the command that starts it: a program on PATH, or this Python with its module."""
    if (found := shutil.which(rules.program)) is not None:
        return [found]
    package = rules.module.partition(".")[0]
    if not package or importlib.util.find_spec(package) is None:
        return None
    return [sys.executable, "-m", rules.module]


def _counts(graph: TfliteGraph, left: Mapping[int, Any]) -> list[dict[str, Any]]:
    """Count operators by name, as placed and as left."""
    found = Counter((op.name, "left" if op.index in left else "placed") for op in graph.ops)
    return [
        {"op": name, "status": status, "count": count}
        for (name, status), count in sorted(found.items())
    ]


def _compiled(
    job: PartJob,
    profile: BackendProfile,
    rules: ConstraintRules,
    program: Sequence[str],
    path: Path,
) -> _Compiled | str:
    """Run the compiler, a second time if need be; give what it made, or what went wrong."""
    flags = [
        text
        for option, flag in _FLAGS.items()
        if option in profile.options
        for text in (flag, str(profile.options[option]))
    ]
    problem = ""
    for number in range(_TRIES):
        folder = job.folder / f"{rules.compiled_op}-{job.index}-{number}"
        folder.mkdir(parents=True, exist_ok=True)
        model = folder / "part.tflite"
        shutil.copyfile(path, model)
        outcome = run_program(
            [*program, str(model), "--output-dir", str(folder), *flags],
            folder=folder,
            timeout_s=time_limit_s(profile.options),
        )
        job.on_note(f"{rules.program}, try {number + 1}: {outcome.problem or 'done'}")
        made = folder / "part_vela.tflite"
        problem = outcome.problem and f"{outcome.problem}: {_last_words(outcome.output)}"
        problem = problem or why_not_shipped(made, model, rules.compiled_op)
        if not problem:
            return _Compiled(
                path=made,
                graph=open_tflite(made).graph,
                estimate=read_summary(folder, "part"),
                version=_version(program, folder),
            )
    return problem


def _version(program: Sequence[str], folder: Path) -> str:
    """Ask the compiler which release it is; empty where it does not say so."""
    outcome = run_program([*program, "--version"], folder=folder, timeout_s=_VERSION_S)
    words = outcome.output.split()
    said = words[0] if words and not outcome.problem else ""
    return said if len(said) < 32 and re.fullmatch(r"[0-9][0-9A-Za-z.+-]*", said) else ""


def _last_words(output: str) -> str:
    """Give the line in which a program says why it stopped, as far as it can be shown."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    words = next(
        (line for line in reversed(lines) if "rror" in line), lines[-1] if lines else ""
    )
    shown = "".join(each if each.isprintable() else " " for each in words)
    return shown.replace("\\n", " ")[:_MOST_WORDS] or "it said nothing"


def _left_in(graph: TfliteGraph, made: TfliteGraph, rules: ConstraintRules) -> dict[int, str]:
    """Find the operators that a compiled file still has.

    They go by the names of their results. A reshape behind one may have been folded into it, so
    that its result has another name: what is not found so is taken in the order of the graph.
    """
    kept = [op for op in made.ops if op.name != rules.compiled_op]
    named = Counter((op.name, _result(made, op.outputs)) for op in kept)
    counts = Counter(op.name for op in kept)
    left: dict[int, str] = {}
    for op in graph.ops:
        key = op.name, _result(graph, op.outputs)
        if named[key]:
            named[key] -= 1
            counts[op.name] -= 1
            left[op.index] = "left"
    for op in graph.ops:
        if op.index not in left and counts[op.name] > 0:
            counts[op.name] -= 1
            left[op.index] = "left"
    return left


def _result(graph: TfliteGraph, outputs: tuple[int, ...]) -> str:
    return next((graph.tensors[index].name for index in outputs if index >= 0), "")
