"""Have a part's ONNX file turned into OpenVINO IR, in a process that may die of it."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgesdk.backends.program import run_program

__all__ = ["Converted", "convert_to_ir", "has_openvino", "named_nodes"]

_CHILD = Path(__file__).with_name("_child.py")
_MEMORY_BYTES = 4 << 30
#: Bytes that conversion and compilation may take for each byte of the model.
_MEMORY_SHARE = 12
_MOST_REPORT_BYTES = 64 << 20
_STAGES = ("start", "converted", "compiled")
_DOING = {"start": "reading the graph", "converted": "compiling it for the processor"}
#: How the frontend names a node in what it says: by operator and first output.
_NODE = re.compile(r"<Node\([^()]*\): ([^\n]*?)>'")


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """What became of a graph.

    Attributes:
        stage: The last stage reached: ``start``, ``converted`` (the IR is there) or
            ``compiled`` (the CPU of this computer takes it too).
        problem: What went wrong after that, in one line; empty if nothing did.
        detail: All that the library said of it.
        version: OpenVINO's; empty if it did not get that far.
        default_precision: What it would compute floats in on this computer's CPU by itself.
        open: Names of nodes whose results have extents that are not fixed.
        primitives: What the CPU executes, in order: layer type, precision, the names of the
            layers it was made of joined by commas, and the precisions of its results.
    """

    stage: str
    problem: str = ""
    detail: str = ""
    version: str = ""
    default_precision: str = ""
    open: tuple[str, ...] = ()
    primitives: tuple[tuple[str, str, str, str], ...] = ()

    @property
    def has_ir(self) -> bool:
        """Whether the IR was written."""
        return self.stage != "start"


def has_openvino() -> bool:
    """Say whether OpenVINO is installed here."""
    return importlib.util.find_spec("openvino") is not None


def convert_to_ir(source: Path, target: Path, *, timeout_s: float) -> Converted:
    """Write the IR of an ONNX file to ``target``, with its weights beside it.

    Args:
        source: The ONNX file; external data lies beside it.
        target: Ends in ``.xml``.
        timeout_s: How long all of it may take.
    """
    report = target.with_suffix(".json")
    for old in (report, target, target.with_suffix(".bin")):
        old.unlink(missing_ok=True)
    size = sum(path.stat().st_size for path in source.parent.glob(f"{source.stem}.*"))
    memory = _MEMORY_BYTES + _MEMORY_SHARE * size
    command = [sys.executable, "-P", str(_CHILD)]
    command += [str(source), str(target), str(report), str(memory)]
    outcome = run_program(command, folder=target.parent, timeout_s=timeout_s)
    seen = _read(report)
    stage = seen.get("stage")
    if stage not in _STAGES:
        stage = "start"
    fate = outcome.problem
    if stage != "start" and not _is_there(target):
        stage, fate = "start", "it wrote no IR"
    said = seen.get("error")
    detail = said if isinstance(said, str) else outcome.output[-4000:]
    problem = ""
    if stage != "compiled":
        reason = _gist(said) if isinstance(said, str) else fate or "it said nothing"
        problem = f"OpenVINO, {_DOING[stage]}: {reason}"
    return Converted(
        stage=stage,
        problem=problem,
        detail=detail,
        version=_text(seen.get("version")),
        default_precision=_text(seen.get("default_precision")),
        open=tuple(name for name in _list(seen.get("open")) if isinstance(name, str)),
        primitives=tuple(_primitives(seen.get("primitives"))),
    )


def named_nodes(said: str, outputs: Collection[str]) -> dict[str, str]:
    """Find the nodes that the frontend names in what it said, with what it said of each.

    Args:
        said: All of its words.
        outputs: Names of the first outputs of the graph's nodes.

    Returns:
        By name of the first output, the reason.
    """
    found: dict[str, str] = {}
    for entry in re.split(r"\n-- ", said.partition("\nSummary:")[0]):
        for match in _NODE.finditer(entry):
            if match.group(1) in outputs:
                rest = entry[match.end() :].strip(" :\n") or entry[: match.start()]
                found.setdefault(match.group(1), _gist(rest))
    return found


def _gist(text: str) -> str:
    """Give what a message says, in one line, without where in the sources it was said."""
    lines = [line.strip() for line in text.split("\n")]
    kept = [
        line
        for line in lines
        if line and not re.match(r"(Exception from|Check '|While validating|Summary:)", line)
    ]
    return " ".join(" ".join(kept or lines).split())[:300]


def _is_there(target: Path) -> bool:
    return target.is_file() and target.with_suffix(".bin").is_file()


def _read(path: Path) -> dict[str, Any]:
    """Read what the child left; anything else than what it writes counts as nothing."""
    try:
        if path.stat().st_size > _MOST_REPORT_BYTES:
            return {}
        seen = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return seen if isinstance(seen, dict) else {}


def _text(value: object) -> str:
    return value[:200] if isinstance(value, str) else ""


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _primitives(value: object) -> list[tuple[str, str, str, str]]:
    return [
        (entry[0], entry[1], entry[2], entry[3])
        for entry in _list(value)
        if isinstance(entry, list)
        and len(entry) == 4
        and all(isinstance(text, str) for text in entry)
    ]
