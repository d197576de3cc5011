"""From a TFLite file to the Edge TPU's, where the compiler is here.

The compiler is a closed program without a maintainer, so it is asked and not trusted: it gets a
time limit and one more try, its file is read by our own reader before it is shipped, and what
it mapped is set beside what was foretold. Where it is missing or fails, the 8-bit file itself
is shipped, which LiteRT runs on the processor, and the prediction says that it is one.
"""

from __future__ import annotations

import shutil
from collections import Counter
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
from edgesdk.backends.edgetpu.limits import Objection
from edgesdk.backends.edgetpu.log import CompilerLog, read_log
from edgesdk.backends.edgetpu.mapping import count_statuses, foretell, is_compiled, say
from edgesdk.backends.edgetpu.memory import estimate_memory, suggest_segments
from edgesdk.backends.edgetpu.package import read_packages
from edgesdk.backends.litert.compiler import compile_part as lower
from edgesdk.backends.program import run_program, time_limit_s
from edgesdk.model.tflite import open_tflite
from edgesdk.model.tflite_graph import TfliteGraph
from edgesdk.model.values import Finding
from edgesdk.profiles.compiler_values import CompilerRules
from edgesdk.profiles.values import BackendProfile

__all__ = ["compile_part"]

_TRIES = 2
#: The second time it may look for a shorter beginning that it can compile.
_SEARCH = ("--search_delegate",)
_MOST_LISTED = 200
_ACCELERATOR = "the Edge TPU"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Compiled:
    """What the compiler made, read again."""

    path: Path
    graph: TfliteGraph
    log: CompilerLog


def compile_part(job: PartJob, profile: BackendProfile, rules: CompilerRules) -> CompiledPart:
    """Make the file of a part.

    Options of the profile: ``min-runtime-version`` for an older runtime on the device,
    ``compile-timeout-s``, and ``tpus`` for how many segments to suggest.

    ``inside`` has ``ops`` (operators by status; where the compiler did otherwise than foretold,
    as ``mapped`` and ``left``), ``left`` (those foretold not to be mapped, with reasons),
    ``provenance`` (``assumed`` where it is foretold, ``measured`` where the compiler did it),
    ``memory`` (estimated, or as the compiled file has it), ``segments`` (estimates), and, where
    the compiler ran, ``log`` and ``disagreements`` with the prediction.

    Raises:
        NodesRefused: Nodes of a graph have no form in TFLite.
        CompileError: Its file cannot be written.
    """
    as_it_is = lower(job, rules.versions)
    path = as_it_is.files["model"]
    graph = open_tflite(path).graph
    objections = foretell(graph, rules)
    if is_compiled(graph, rules):
        known = {"ops": count_statuses(graph, objections), "provenance": "measured"}
        return replace(as_it_is, inside=known | _memory(graph, rules))
    mapped = {op.index for op in graph.ops} - objections.keys()
    tpus = profile.options.get("tpus", 0)
    inside: dict[str, Any] = {
        "compiler": f"{rules.program} {rules.version}",
        "ops": count_statuses(graph, objections),
        "left": _left(graph, objections, rules),
        "provenance": "assumed",
        "memory": estimate_memory(graph, mapped, rules),
        "segments": suggest_segments(
            graph, mapped, rules, tpus=tpus if isinstance(tpus, int) else 0
        ),
    }
    program = shutil.which(rules.program)
    if program is None:
        finding = not_compiled(rules.program, _ACCELERATOR, "is not on PATH", rules.how_to_get)
        return _uncompiled(as_it_is, inside, finding)
    made = _compiled(job, profile, rules, program, path)
    if isinstance(made, str):
        hint = "compile the file by hand to see what it says, and give what it makes"
        finding = not_compiled(rules.program, _ACCELERATOR, made, hint)
        return _uncompiled(as_it_is, inside, finding)
    found = differences(graph, objections, made.graph, rules.compiled_op)
    inside |= {
        "provenance": "measured",
        "log": made.log.to_json(),
        "disagreements": found,
        **({"ops": _counted(graph, made.graph, rules)} if found else {}),
    } | _memory(made.graph, rules)
    if not is_compiled(made.graph, rules):
        # it mapped nothing: the device would ask for its library in vain
        told = (*as_it_is.findings, *disagreement(found, rules.program, rules.name))
        return replace(as_it_is, is_for_rest=True, inside=inside, findings=told)
    return replace(
        as_it_is,
        files={"model": made.path},
        on_host=as_it_is.on_host or path,
        findings=(*as_it_is.findings, *disagreement(found, rules.program, rules.name)),
        inside=inside,
    )


def _uncompiled(part: CompiledPart, inside: dict[str, Any], why: Finding) -> CompiledPart:
    """Ship the file of 8 bits itself."""
    return replace(part, is_for_rest=True, inside=inside, findings=(*part.findings, why))


def _memory(graph: TfliteGraph, rules: CompilerRules) -> dict[str, Any]:
    """Give what the compiled operators say of the memory they take; nothing if unreadable."""
    packages = read_packages(graph, rules)
    if not packages:
        return {}
    first, *others = [package.to_json(rules.cache_bytes) for package in packages]
    return {"memory": {**first, "others": others} if others else first}


def _left(
    graph: TfliteGraph, objections: dict[int, Objection], rules: CompilerRules
) -> list[dict[str, Any]]:
    return [
        {
            "index": index,
            "op": graph.ops[index].name,
            "makes": _first_output(graph, index),
            "status": objections[index].kind,
            "reason": say(objections[index], rules)[:300],
        }
        for index in sorted(objections)[:_MOST_LISTED]
    ]


def _counted(
    graph: TfliteGraph, made: TfliteGraph, rules: CompilerRules
) -> list[dict[str, Any]]:
    """Count by name what the compiler mapped and what it left; why is in its log."""
    kept = Counter(op.name for op in made.ops if op.name != rules.compiled_op)
    counts = []
    for name, total in sorted(Counter(op.name for op in graph.ops).items()):
        left = min(kept[name], total)
        for status, count in (("left", left), ("mapped", total - left)):
            if count:
                counts.append({"op": name, "status": status, "count": count})
    return counts


def _first_output(graph: TfliteGraph, index: int) -> str:
    outputs = graph.ops[index].outputs
    return graph.tensors[outputs[0]].name[:200] if outputs and outputs[0] >= 0 else ""


def _compiled(
    job: PartJob, profile: BackendProfile, rules: CompilerRules, program: str, path: Path
) -> _Compiled | str:
    """Run the compiler, a second time if need be; give what it made, or what went wrong."""
    oldest = profile.options.get("min-runtime-version")
    limit_s = time_limit_s(profile.options)
    # the compiler has a shorter limit of its own, of 180 s
    extra = ["--timeout_sec", str(max(1, round(limit_s)))]
    extra += [] if oldest is None else ["--min_runtime_version", str(oldest)]
    problem = ""
    for number in range(_TRIES):
        folder = job.folder / f"edgetpu-{job.index}-{number}"
        folder.mkdir(parents=True, exist_ok=True)
        model = folder / "part.tflite"
        shutil.copyfile(path, model)
        outcome = run_program(
            [program, "-s", "-o", str(folder), *extra, *_SEARCH[:number], str(model)],
            folder=folder,
            timeout_s=limit_s,
        )
        job.on_note(f"{rules.program}, try {number + 1}: {outcome.problem or 'done'}")
        made = folder / "part_edgetpu.tflite"
        problem = outcome.problem or why_not_shipped(made, model, rules.compiled_op)
        if not problem:
            graph = open_tflite(made).graph
            return _Compiled(path=made, graph=graph, log=read_log(outcome.output))
    return problem
