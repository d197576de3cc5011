"""What the quantizer gives back: graphs of another precision, and what was decided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesdk.model.values import Finding

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgesdk.quantize.prune import PrunedLayer

__all__ = ["BudgetOutcome", "Converted", "LeftFloat", "Mean", "PrunedWeights", "Quantized"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftFloat:
    """A node that was not quantized."""

    name: str
    op: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """A graph of another precision, made without calibration data.

    Attributes:
        model: The converted graph; the one that was given stays as it was.
        converted_nodes: How many nodes of the float graph compute, or keep their weights, in
            the new precision, those in bodies of control flow included.
        left_float: The nodes that could have been of interest and were not converted.
        findings: What a person should know of the numbers, such as values that were clipped.
    """

    model: ir.Model
    converted_nodes: int
    left_float: tuple[LeftFloat, ...] = ()
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Mean:
    """An accuracy means that was tried.

    ``before_db`` and ``after_db`` are signal over noise at the outputs, without and with it, on
    samples that its numbers were not chosen from.
    """

    name: str
    on: bool
    before_db: float
    after_db: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetOutcome:
    """How a budget was kept.

    Without labels it is measured on samples that had a part in the ranges of the graph that is
    shipped; `Quantized.sqnr_db` is from before they had.

    Attributes:
        metric: What was measured: a metric on labelled data, or ``noise`` without labels.
        limit: The largest drop allowed, in the unit of the metric.
        reference: The float model's value; 0 for ``noise``.
        before: The drop with every node quantized that can be.
        after: The drop as built.
        evaluations: How many candidates were measured on the data.
        probes: How many were measured on a few samples, to rank the nodes.
        kept: Nodes that stay in float for it.
        bytes_added: What their weights cost in bytes.
        float_share: Their share of the graph's multiply-accumulates.
        expected_time: Predicted time over that of the graph without them in float.
    """

    metric: str
    limit: float
    reference: float
    before: float
    after: float
    evaluations: int
    probes: int
    kept: tuple[str, ...]
    bytes_added: int
    float_share: float | None
    expected_time: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunedWeights:
    """What pruning did before quantizing.

    Attributes:
        pattern: As asked for.
        layers: What each layer lost.
        bytes_before: Size of all weights, compressed, in bytes.
        bytes_after: The same afterwards.
        drop: What the metric lost; None where there are no labels.
    """

    pattern: str
    layers: tuple[PrunedLayer, ...]
    bytes_before: int
    bytes_after: int
    drop: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantized:
    """A quantized graph and what was done to get it.

    Attributes:
        model: The graph.
        precision: What it was quantized to.
        samples: How many samples were seen.
        quantized_nodes: Nodes that compute in the new precision.
        quantized_weights: Weights that are stored in it.
        left_float: Nodes that stay in float, with the reason.
        means: Accuracy means that were tried, and what each bought.
        ranges: How ranges of activations were chosen; empty where there are none.
        sqnr_db: Signal over noise per output on held-out samples, before those were counted in
            for the ranges that are shipped; None where exact or lost.
        kernels: Compute nodes that onnxruntime runs in 8-bit kernels, and how many were meant
            to; None where that cannot be looked up here.
        budget: How a budget was kept; None where none was given.
        pruned: What was pruned; None for nothing.
        findings: What a person should know.
        measured_ms: Median times on this computer, for people; not part of any record.
    """

    model: ir.Model
    precision: str
    samples: int
    quantized_nodes: int
    quantized_weights: int
    left_float: tuple[LeftFloat, ...] = ()
    means: tuple[Mean, ...] = ()
    ranges: str = ""
    sqnr_db: Mapping[str, float | None] | None = None
    kernels: tuple[int, int] | None = None
    budget: BudgetOutcome | None = None
    pruned: PrunedWeights | None = None
    findings: tuple[Finding, ...] = ()
    measured_ms: Mapping[str, float] | None = None

    def save(self, path: str | Path) -> Path:
        """Write the graph to a file, weights above 1.8 GB beside it.

        Raises:
            OutputError: It cannot be written.
        """
        from edgesdk.model.save import save_model

        path = Path(path)
        return save_model(self.model, path.parent, path.name.removesuffix(".onnx"))[0]

    def to_json(self) -> dict[str, Any]:
        """Give what was decided and measured, without the graph and without times."""
        return {
            "precision": self.precision,
            "calibration_samples": self.samples,
            "quantized_nodes": self.quantized_nodes,
            "quantized_weights": self.quantized_weights,
            "left_float": [asdict(node) for node in self.left_float],
            "means": [asdict(mean) for mean in self.means],
            "ranges": self.ranges,
            "sqnr_db": None if self.sqnr_db is None else dict(self.sqnr_db),
            "int8_kernels": None
            if self.kernels is None
            else {"found": self.kernels[0], "planned": self.kernels[1]},
            "budget": None if self.budget is None else asdict(self.budget),
            "pruned": None if self.pruned is None else asdict(self.pruned),
        }
