"""One-shot pruning of a float graph: weights or channels go, the rest is refitted to data.

Nothing is trained. Layers are refitted one by one to what they gave before, on the inputs that
the float model has there (Frantar and Alistarh, arXiv:2208.11580 and arXiv:2301.00774). Only
``channels`` makes a graph smaller and faster everywhere; see `speed_finding` for the others.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from edgesdk.errors import QuantizeError
from edgesdk.model.values import Finding
from edgesdk.progress import OnProgress, ignore_progress
from edgesdk.quantize._channels import Chain, find_chain, own_bias, own_weight
from edgesdk.quantize._shrink import add_to_bias, shrink_chain
from edgesdk.quantize._sparse import by_magnitude, channel_fours, prune_rows, saliency
from edgesdk.quantize._taps import Sample
from edgesdk.quantize.moments import (
    Moments,
    collect_moments,
    moments_by_pass,
    rows_to_weight,
    weight_rows,
    why_no_moments,
)
from edgesdk.quantize.prune_gain import ModelSize, model_size, speed_finding
from edgesdk.quantize.prune_spec import Pattern, PruneSpec, parse_prune
from edgesdk.quantize.rounding import output_error

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

__all__ = [
    "Left",
    "ModelSize",
    "PruneSpec",
    "Pruned",
    "PrunedLayer",
    "model_size",
    "parse_prune",
    "prune",
    "speed_finding",
]

_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
#: A layer loses at least this share of the sparsity that was asked for,
_LEAST_OF_SHARE = 0.8
#: and beyond that sparsity at most this share of what is left.
_MOST_OF_REST = 0.3
_MUCH = 0.1
_MOST_NAMES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunedLayer:
    """A layer, or for ``channels`` a Conv with all that reads it, and what it lost.

    Attributes:
        name: The node; the Conv that lost channels.
        op: Its operator.
        pattern: As asked for.
        sparsity: The share of zeros among its weights, or of channels that went.
        error_before: The share of output energy lost on the samples where the smallest go and
            nothing is refitted.
        error_after: That share as it is now; for ``channels`` the sum over what reads it.
    """

    name: str
    op: str
    pattern: Pattern
    sparsity: float
    error_before: float
    error_after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """A node that was not pruned, and why."""

    name: str
    op: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """A pruned copy of a graph and what was done to get it."""

    model: ir.Model
    layers: tuple[PrunedLayer, ...]
    left: tuple[Left, ...]
    before: ModelSize
    after: ModelSize
    findings: tuple[Finding, ...]


def prune(
    model: ir.Model,
    samples: Iterable[Sample],
    *,
    pattern: Pattern,
    sparsity: float = 0.5,
    keep: Collection[str] = (),
    damp: float = 0.01,
    channel_multiple: int = 8,
    on_progress: OnProgress = ignore_progress,
) -> Pruned:
    """Prune a copy of ``model`` and refit what stays.

    Args:
        model: A float graph, simplified: BatchNormalization is folded.
        samples: Model inputs by name, each with its batch dimension; a list, not an iterator.
        pattern: ``2:4``: two zeros in every four consecutive input channels. ``unstructured``:
            ``sparsity`` of all weights together, more where the output feels it less.
            ``channels``: ``sparsity`` of the output channels of each Conv whose readers follow,
            to the nearest ``channel_multiple``.
        sparsity: The share that goes; ``2:4`` has its own.
        keep: Names of nodes, or operator types, that stay as they are.
        damp: Share of the mean of the moments' diagonal that is added to it.
        channel_multiple: Channels that stay are a multiple of this.
        on_progress: Told of every sample.

    Raises:
        QuantizeError: No layer can take the pattern, or the model does not run on the samples.
    """
    copy = model.clone()
    before = model_size(model)
    job = _Job(copy, samples, keep, damp, on_progress)
    if pattern == "channels":
        layers, left = _prune_channels(job, sparsity, channel_multiple)
    else:
        layers, left = _prune_weights(job, "2:4" if pattern == "2:4" else sparsity)
    if not layers:
        raise _nothing_pruned(model.graph.name or "the model", pattern, left)
    return Pruned(
        model=copy,
        layers=tuple(layers),
        left=tuple(left),
        before=before,
        after=model_size(copy),
        findings=tuple(_findings(layers)),
    )


def _nothing_pruned(name: str, pattern: Pattern, left: list[Left]) -> QuantizeError:
    reasons = "; ".join(list(dict.fromkeys(one.reason for one in left))[:_MOST_NAMES])
    return QuantizeError(
        f"cannot prune {name} by {pattern}: no layer takes it ({reasons or 'it has none'})",
        hint="leave pruning out, or try another pattern",
        pattern=pattern,
    )


@dataclass(frozen=True, slots=True)
class _Job:
    model: ir.Model
    samples: Iterable[Sample]
    keep: Collection[str]
    damp: float
    on_progress: OnProgress

    def named(self) -> dict[str, ir.Node]:
        """Give the layers of the top level that have a name of their own."""
        names = Counter(node.name for node in self.model.graph)
        return {
            node.name: node
            for node in self.model.graph
            if node.op_type in _LAYERS and node.name and names[node.name] == 1
        }


def _prune_weights(
    job: _Job, sparsity: float | Literal["2:4"]
) -> tuple[list[PrunedLayer], list[Left]]:
    named = job.named()
    left = []
    chosen = {}
    for name, node in named.items():
        reason = _why_not(node, sparsity, job.keep)
        if reason is None:
            chosen[name] = node
        else:
            left.append(Left(name=name, op=node.op_type, reason=reason))
    layers = []
    for node, seen, share in _shares(job, chosen, sparsity, left):
        layers.append(_prune_layer(node, seen, share, job.damp))
    return layers, left


def _why_not(
    node: ir.Node, sparsity: float | Literal["2:4"], keep: Collection[str]
) -> str | None:
    if node.name in keep or node.op_type in keep:
        return "it is to be kept"
    reason = why_no_moments(node)
    if reason is not None:
        return reason
    shape = own_weight(node)
    if isinstance(shape, str):
        return shape
    if node.op_type == "Conv" and shape[1] == 1 and sparsity != "2:4" and _is_depthwise(node):
        return "it is depthwise: few weights, and none to make up for another's loss"
    if sparsity == "2:4":
        channels = shape[1] if node.op_type == "Conv" else weight_rows(node).shape[1]
        if channels % 4:
            return f"it reduces over {channels} channels (2:4 needs a multiple of 4)"
    return None


def _shares(
    job: _Job,
    chosen: dict[str, ir.Node],
    sparsity: float | Literal["2:4"],
    left: list[Left],
) -> Iterator[tuple[ir.Node, Moments, float | Literal["2:4"]]]:
    """Give each layer with its moments and how much of it goes."""
    if not chosen:
        return
    if sparsity == "2:4":
        source = job.model.clone()  # layers change while later passes still run
        for part in moments_by_pass(source, chosen, job.samples, on_progress=job.on_progress):
            left += [Left(name=one.name, op=one.op, reason=one.reason) for one in part.left]
            for name, seen in part.moments.items():
                yield chosen[name], seen, "2:4"
        return
    found = collect_moments(job.model, chosen, job.samples, on_progress=job.on_progress)
    left += [Left(name=one.name, op=one.op, reason=one.reason) for one in found.left]
    lost = {
        name: saliency(weight_rows(chosen[name]), _moments_for(chosen[name], seen), job.damp)
        for name, seen in found.moments.items()
    }
    shares = _allocate(lost, sparsity, _ends(job.model, chosen))
    for name, share in shares.items():
        yield chosen[name], found.moments[name], share


def _allocate(
    lost: dict[str, np.ndarray], sparsity: float, spared: Collection[str]
) -> dict[str, float]:
    """Share the sparsity out so that the last weight of each layer costs the same.

    Losses are shares of each layer's output energy, so one threshold serves all layers. They
    are of single weights and say little of what many lose together, so no layer goes far from
    the average; ``spared`` ones, which see the input or make the answer, not above it.
    """
    import numpy as np

    ordered = {name: np.sort(scores, axis=None) for name, scores in lost.items()}
    least, most = _LEAST_OF_SHARE * sparsity, sparsity + _MOST_OF_REST * (1 - sparsity)
    wanted = sparsity * sum(scores.size for scores in ordered.values())
    low, high = -700.0, 10.0  # of the logarithm
    shares: dict[str, float] = {}
    for _ in range(60):
        middle = (low + high) / 2
        for name, scores in ordered.items():
            below = float(np.searchsorted(scores, math.exp(middle), "right")) / scores.size
            shares[name] = min(max(below, least), sparsity if name in spared else most)
        if sum(shares[name] * scores.size for name, scores in ordered.items()) < wanted:
            low = middle
        else:
            high = middle
    return shares


def _ends(model: ir.Model, chosen: Collection[str]) -> set[str]:
    """Give the first of the chosen layers, and the last."""
    order = [node.name or "" for node in model.graph if node.name in chosen]
    return {order[0], order[-1]}


def _prune_layer(
    node: ir.Node, seen: Moments, share: float | Literal["2:4"], damp: float
) -> PrunedLayer:
    import numpy as np
    import onnx_ir as ir

    rows = weight_rows(node)
    weight = node.inputs[1]
    assert weight is not None
    assert weight.const_value is not None
    order = np.arange(rows.shape[1])
    if node.op_type == "Conv" and share == "2:4":
        channels = int(weight.const_value.shape.numpy()[1])
        order = channel_fours(channels, rows.shape[1] // channels)
    moved = rows[:, order]
    second = _moments_for(node, seen)[:, order[:, None], order[None, :]]
    done = prune_rows(moved, second, sparsity=share, damp=damp)
    plain = by_magnitude(moved, sparsity=share)
    new = done[:, np.argsort(order)]
    array = rows_to_weight(node, new)
    dtype = weight.const_value.numpy().dtype
    if _takes_mean(node):
        change = (rows - new).reshape(len(seen.mean), -1, rows.shape[1])
        gain = (change @ seen.mean[:, :, None]).reshape(-1)
        add_to_bias(node, gain.astype(dtype))
    weight.const_value = ir.Tensor(np.ascontiguousarray(array.astype(dtype)), name=weight.name)
    energy = max(float(output_error(moved, second).sum()), 1e-300)
    return PrunedLayer(
        name=node.name or "",
        op=node.op_type,
        pattern="2:4" if share == "2:4" else "unstructured",
        sparsity=float((done == 0).mean()),
        error_before=float(output_error(moved - plain, second).sum()) / energy,
        error_after=float(output_error(moved - done, second).sum()) / energy,
    )


def _takes_mean(node: ir.Node) -> bool:
    """Say whether a bias can take up what the mean of the output loses."""
    return node.op_type == "Conv" and own_bias(node) is None


def _moments_for(node: ir.Node, seen: Moments) -> np.ndarray:
    return seen.centred if _takes_mean(node) else seen.second


def _prune_channels(
    job: _Job, sparsity: float, multiple: int
) -> tuple[list[PrunedLayer], list[Left]]:
    left = []
    chains: dict[str, tuple[Chain, int]] = {}
    for name, node in job.named().items():
        if node.op_type != "Conv" or _is_depthwise(node):
            continue
        kept = node.name in job.keep or node.op_type in job.keep
        chain = "it is to be kept" if kept else find_chain(node, job.keep)
        if isinstance(chain, Chain):
            stay = (
                max(math.floor(chain.channels * (1 - sparsity) / multiple + 0.5), 1) * multiple
            )
            if stay < chain.channels:
                chains[name] = chain, stay
                continue
            chain = f"of {chain.channels} channels {stay} would stay, in steps of {multiple}"
        left.append(Left(name=name, op=node.op_type, reason=chain))
    readers = {node.name or "" for chain, _ in chains.values() for node in chain.readers}
    if not readers:
        return [], left
    found = collect_moments(job.model, readers, job.samples, on_progress=job.on_progress)
    layers = []
    for name, (chain, stay) in chains.items():
        missing = [node.name for node in chain.readers if node.name not in found.moments]
        if missing:
            reason = f"there are no moments of {missing[0]!r}, which reads it"
            left.append(Left(name=name, op="Conv", reason=reason))
            continue
        before, after = shrink_chain(chain, stay, found.moments, job.damp)
        layers.append(
            PrunedLayer(
                name=name,
                op="Conv",
                pattern="channels",
                sparsity=1 - stay / chain.channels,
                error_before=before,
                error_after=after,
            )
        )
    return layers, left


def _is_depthwise(node: ir.Node) -> bool:
    group = node.attributes.get("group")
    return group is not None and group.as_int() != 1


def _findings(layers: list[PrunedLayer]) -> Iterator[Finding]:
    much = sorted((one for one in layers if one.error_after > _MUCH), key=_by_error)
    if much:
        names = ", ".join(repr(one.name) for one in much[:_MOST_NAMES])
        yield Finding(
            code="pruning-lost-much",
            severity="warning",
            message=f"{len(much)} of {len(layers)} pruned layers lost more than {_MUCH:.0%} of "
            f"their output's energy on the samples, the most in {names}",
            hint="measure it with --data; keep these layers, or prune less",
            subject=much[0].name,
        )


def _by_error(layer: PrunedLayer) -> float:
    return -layer.error_after
