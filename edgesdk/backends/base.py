"""The seam of planner, build and backends: facts in, reasons out; a graph in, files out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edgesdk.model.tflite_graph import TfliteGraph
from edgesdk.model.values import Finding, NodeFacts, SourceModel
from edgesdk.profiles.values import BackendProfile
from edgesdk.progress import OnNote, ignore_note

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = [
    "Backend",
    "CompiledPart",
    "Compiler",
    "ModelFacts",
    "NodesRefused",
    "PartJob",
    "Refusal",
    "RuleBackend",
    "WhyNot",
    "WhyNotHere",
]

WhyNot = Callable[[NodeFacts], str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A backend turning a node down. ``backend`` is the id in the target profile."""

    backend: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What a rule may look at beyond one node: the whole source graph.

    Attributes:
        source: The file.
        nodes: All nodes, in the order of the graph.
        fixed: The same nodes with leading unknown extents of the inputs taken as 1, and all
            shapes that follow; empty where that changes nothing or was not looked at.
        folded: Nodes, by index, that simplifying turns into constants when shapes are fixed.
        tflite: The graph of a TFLite file, whose operators are the nodes; None for an ONNX
            model.
        floats: Nodes, by index, that compute in float in a build of whole numbers, and why.
    """

    source: SourceModel
    nodes: tuple[NodeFacts, ...]
    fixed: tuple[NodeFacts, ...] = ()
    folded: frozenset[int] = frozenset()
    tflite: TfliteGraph | None = None
    floats: Mapping[int, str] = field(default_factory=dict)


#: From the graph and what was refused node by node, by index, to what is refused besides
#: because of where it stands in the graph.
WhyNotHere = Callable[[ModelFacts, Mapping[int, str]], Mapping[int, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartJob:
    """One part to compile.

    Attributes:
        index: The part's position in the bundle.
        model: Its graph: Q/DQ where it is quantized, shapes fixed where the backend wants it.
            None where a file is taken as it is.
        source: The file that is taken as it is; None where there is a graph.
        precision: What the part was converted to.
        folder: Where files go.
        max_opset: The newest opset that all who may run the part load; None for any.
        max_ir: The newest IR version likewise.
        on_note: Told what concerns this computer only.
    """

    index: int
    model: ir.Model | None
    source: Path | None
    precision: str
    folder: Path
    max_opset: int | None = None
    max_ir: int | None = None
    on_note: OnNote = ignore_note


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledPart:
    """What a compiler made of a part.

    Attributes:
        files: By role, in the manifest's order: ``model``, then ``data``, ``calibration``.
        format: A key of `edgesdk.wire.manifest.FORMAT_SUFFIX`.
        on_host: The file whose answers on this computer are those expected of the part; None
            where it is ``files["model"]`` itself.
        spare: The same part as an ONNX file, by role, for fallbacks that read nothing else;
            empty where ``files`` are ONNX, or where no fallback wants one.
        unrounded: A file that runs on this computer and gives what the device would without any
            rounding that is its own to choose; check vectors then allow twice what it and the
            expected answers differ by. None where all rounding is in the graph.
        options: What the runtime needs on top of the profile's options.
        requires: What the manifest's ``requires`` says beyond the profile.
        findings: What is worth a warning.
        is_for_rest: Nothing was compiled: the backend of `Backend.rest_kind` runs all of it.
        inside: Plain data for people and reports: what is inside the part, such as operators by
            the backend that runs them, or estimates of memory and cycles.
    """

    files: Mapping[str, Path]
    format: str
    on_host: Path | None = None
    spare: Mapping[str, Path] = field(default_factory=dict)
    unrounded: Path | None = None
    options: Mapping[str, str | int | bool] = field(default_factory=dict)
    requires: Mapping[str, Any] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    is_for_rest: bool = False
    inside: Mapping[str, Any] = field(default_factory=dict)


class NodesRefused(Exception):
    """A compiler cannot take some nodes of a part after all.

    Args:
        reasons: By name of the node's first output in the part's graph, why.
    """

    def __init__(self, reasons: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{name}: {why}" for name, why in reasons.items()))
        self.reasons = dict(reasons)


Compiler = Callable[[PartJob], CompiledPart]


class Backend(Protocol):
    """One backend of one target: the profile's facts with the code that knows the kind."""

    @property
    def profile(self) -> BackendProfile:
        """What the target profile says of it."""

    @property
    def is_static(self) -> bool:
        """Whether every shape has to be fixed before a part of it is compiled."""

    @property
    def rest_kind(self) -> str:
        """The kind of backend that runs, in the same file, what this one refuses; or empty.

        An Edge TPU's file is a LiteRT file: what the compiler leaves alone runs in LiteRT.
        """

    def why_not(self, node: NodeFacts) -> str | None:
        """Say why this backend cannot run ``node``, or None if it can."""

    def refusals(self, model: ModelFacts) -> dict[int, str]:
        """Say which nodes of a whole graph it does not run, by index, and why."""

    def part_format(self) -> str:
        """The format (``edgesdk.wire.manifest.FORMAT_SUFFIX``) its runtime reads."""

    @property
    def compiler(self) -> Compiler | None:
        """What turns a part's graph into files; None where the runtime reads ONNX as it is.

        It raises `NodesRefused` where rules were too kind, and `CompileError` where the part
        cannot be compiled at all.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleBackend:
    """A backend that is a list of rules; the first that objects gives the reason."""

    profile: BackendProfile
    format: str
    rules: tuple[WhyNot, ...]
    position_rules: tuple[WhyNotHere, ...] = ()
    rest_kind: str = ""
    compiler: Compiler | None = None

    @property
    def is_static(self) -> bool:
        """By the profile's quirk; LiteRT's files have fixed shapes too."""
        return "static-shapes-only" in self.profile.quirks or self.format == "tflite"

    def why_not(self, node: NodeFacts) -> str | None:
        """Give the first rule's objection, or None."""
        for rule in self.rules:
            if (reason := rule(node)) is not None:
                return reason
        return None

    def refusals(self, model: ModelFacts) -> dict[int, str]:
        """Ask node by node, then what position in the graph refuses besides."""
        found = {
            node.index: reason
            for node in model.nodes
            if (reason := self.why_not(node)) is not None
        }
        for index, extent in self._open_nodes(model).items():
            what = (
                "a TFLite file has" if self.format == "tflite" else f"{self.profile.id} takes"
            )
            found.setdefault(index, f"{extent} is not fixed, and {what} fixed shapes only")
        for rule in self.position_rules:
            for index, reason in rule(model, found).items():
                found.setdefault(index, reason)
        return found

    def _open_nodes(self, model: ModelFacts) -> dict[int, str]:
        """Name an extent that stays open, by node, where every shape has to be fixed.

        A build fixes the first extents of the inputs; what is still open then follows from
        others of theirs. Where there is none of those, the build finds all shapes.
        """
        inputs = model.source.inputs
        if not self.is_static or model.source.format == "tflite":
            return {}
        if all(isinstance(extent, int) for value in inputs for extent in value.shape[1:]):
            return {}
        found: dict[int, str] = {}
        for node in model.nodes:
            for value in (*node.input_types, *node.output_types):
                for position, extent in enumerate(() if value is None else value.shape):
                    if value is not None and not isinstance(extent, int):
                        found.setdefault(node.index, f"extent {position} of {value.name}")
        return found

    def part_format(self) -> str:
        """The format its runtime reads."""
        return self.format
