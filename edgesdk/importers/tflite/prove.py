"""Hold a converted graph against LiteRT: same inputs, same answers, or the operator that errs.

Where the file rounds to grids both runtimes do, and a number that lies half-way between two
steps falls to either side; layers behind may make more of it. So of a quantized file each
operator is held against LiteRT's by itself too, given the same inputs, and has to agree to one
step in nearly all numbers. Float outputs of float files have to agree to a small share of the
largest number.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgesdk.importers.tflite.agreement import Agreement, compare
from edgesdk.importers.tflite.layers import compare_layers, is_small_enough
from edgesdk.importers.tflite.litert import LiteRT, litert_version, made_float
from edgesdk.importers.tflite.onnxruns import OnnxRuns

if TYPE_CHECKING:
    from edgesdk.importers.tflite.walk import Converted
    from edgesdk.model.tflite_graph import TfliteGraph, TfliteTensor

__all__ = ["Proof", "examples_of", "prove_tflite"]

_EXAMPLES = 3
#: Side of the spots in pictures that are made up.
_SPOT = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What a comparison with LiteRT found.

    Attributes:
        version: Of LiteRT; None where there is none on this computer, so nothing was compared.
        examples: Sets of inputs.
        outputs: Each output's agreement.
        hybrid: Where LiteRT rounds inputs of float operators to 8 bits as it runs, how near the
            float graph is to that; all else here is then compared with the same file with its
            weights in float.
        layers: How many tensors were compared with LiteRT's, given LiteRT's own inputs; 0 where
            they were not looked at.
        worst: The one of them with the fewest numbers within its bound.
        worst_op: The operator that gives it, in words.
        culprit: The first operator whose result differs, in words.
    """

    version: str | None
    examples: int = 0
    outputs: tuple[Agreement, ...] = ()
    hybrid: tuple[Agreement, ...] = ()
    layers: int = 0
    worst: Agreement | None = None
    worst_op: str = ""
    culprit: str = ""

    @property
    def holds(self) -> bool:
        """Whether the graph computes what the file does.

        Either all outputs agree, or numbers are rounded on the way and every operator by
        itself does. Nothing compared is nothing refuted.
        """
        rounded = any(each.unit != "share" or each.wanted < 1 for each in self.outputs)
        every_layer = self.layers > 0 and not self.culprit
        return all(each.holds for each in self.outputs) or (rounded and every_layer)


def examples_of(
    graph: TfliteGraph, *, count: int = _EXAMPLES, seed: int = 0
) -> list[list[Any]]:
    """Make sets of inputs, always the same: normal numbers, integers over a grid's whole range.

    Whole numbers that are no grid's are 0 or 1, which every table has.
    """
    random = np.random.default_rng(seed)
    return [
        [
            _example(graph.tensors[index], random, coarse=bool(number % 2))
            for index in graph.inputs
        ]
        for number in range(count)
    ]


def _example(tensor: TfliteTensor, random: np.random.Generator, *, coarse: bool) -> Any:
    """Make an input; of pictures every other one has large spots, which noise has not."""
    dtype, shape = np.dtype(tensor.dtype), tensor.shape
    spots = coarse and len(shape) == 4 and min(shape) > 0
    if spots:
        shape = (shape[0], *(-(-extent // _SPOT) for extent in shape[1:3]), shape[3])
    if dtype.kind == "f":
        array = random.standard_normal(shape).astype(dtype)
    elif dtype.kind in "iu" and dtype.itemsize <= 2 and tensor.scales:
        limits = np.iinfo(dtype)
        array = random.integers(int(limits.min), int(limits.max) + 1, shape).astype(dtype)
    else:
        array = random.integers(0, 2, shape).astype(dtype)
    if not spots:
        return array
    spread = array.repeat(_SPOT, axis=1).repeat(_SPOT, axis=2)
    return np.ascontiguousarray(spread[:, : tensor.shape[1], : tensor.shape[2]])


def prove_tflite(graph: TfliteGraph, converted: Converted) -> Proof:
    """Compare a converted graph with LiteRT's answers to the file it came from.

    Raises:
        CompileError: onnxruntime does not run the graph, or LiteRT not the file.
    """
    version = litert_version()
    if version is None:
        return Proof(version=None)
    examples = examples_of(graph)
    names = [place.value for place in converted.outputs]
    inputs = [value.name or "" for value in converted.model.graph.inputs]
    runs = OnnxRuns(converted.model)
    ours = [runs.run(names, dict(zip(inputs, each, strict=True))) for each in examples]
    data = made_float(graph, converted.hybrid) if converted.hybrid else graph.data
    outputs = _compared(converted, ours, _answers(data, graph, examples))
    hybrid: tuple[Agreement, ...] = ()
    if converted.hybrid:
        hybrid = _compared(converted, ours, _answers(graph.data, graph, examples))
    proof = Proof(version=version, examples=len(examples), outputs=outputs, hybrid=hybrid)
    if (proof.holds and not converted.rounds) or not is_small_enough(graph):
        return proof
    return _with_layers(proof, data, graph, converted, examples[:2])


def _with_layers(
    proof: Proof,
    data: bytes,
    graph: TfliteGraph,
    converted: Converted,
    examples: Sequence[list[Any]],
) -> Proof:
    """Add what operators by themselves show."""
    worst: Agreement | None = None
    worst_op, culprit, count = "", "", 0
    every = (compare_layers(data, graph, converted, example) for example in examples)
    for op, seen in itertools.chain.from_iterable(every):
        count += 1
        if worst is None or (seen.within, -seen.largest) < (worst.within, -worst.largest):
            worst, worst_op = seen, f"operator {op.index} ({op.name})"
        if not seen.holds and not culprit:
            culprit = (
                f"operator {op.index} ({op.name}), tensor {seen.name!r}: {seen.within:.3%} "
                f"within {seen.bound:.3g} {seen.unit}, at most {seen.largest:.3g} apart"
            )
    return replace(proof, layers=count, worst=worst, worst_op=worst_op, culprit=culprit)


def _answers(
    data: bytes, graph: TfliteGraph, examples: Sequence[list[Any]]
) -> list[list[np.ndarray]]:
    litert = LiteRT(data, shapes=[graph.tensors[index].shape for index in graph.inputs])
    return [litert.run(example) for example in examples]


def _compared(
    converted: Converted,
    ours: Sequence[Sequence[np.ndarray]],
    theirs: Sequence[Sequence[np.ndarray]],
) -> tuple[Agreement, ...]:
    return tuple(
        compare(
            place.value,
            np.stack([each[at] for each in ours]),
            np.stack([each[at] for each in theirs]),
            step=place.step,
            is_wide=place.is_wide,
            rounds=converted.rounds,
        )
        for at, place in enumerate(converted.outputs)
    )
