"""Hold a converted graph against LiteRT: same inputs, same answers, or the operator that errs.

Where the file rounds to grids both runtimes do, and a number that lies half-way between two
steps falls to either side; so quantized outputs have to agree to one step in nearly all
numbers. Float outputs of float files have to agree to a small share of the largest number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgesdk.errors import CompileError
from edgesdk.importers.tflite.litert import LiteRT, litert_version, made_float

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgesdk.importers.tflite.walk import Converted, Place
    from edgesdk.model.tflite_graph import TfliteGraph

__all__ = [
    "FLOAT_BOUND",
    "MIXED_BOUND",
    "STEPS_SHARE",
    "Agreement",
    "Proof",
    "examples_of",
    "prove_tflite",
]

#: How far numbers of a float file may be apart, as a share of the largest.
FLOAT_BOUND = 1e-4
#: ... and float numbers behind others that were rounded to 8 bits.
MIXED_BOUND = 0.02
#: The share of a quantized output's numbers that are within one step.
STEPS_SHARE = 0.995
_EXAMPLES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How near one output is to LiteRT's, over all examples.

    Attributes:
        name: Of the output.
        unit: What ``largest`` counts: ``steps`` of its grid, ``share`` of the largest number,
            or ``differing`` for whole numbers and truths that are no measure.
        numbers: How many were compared.
        largest: The largest difference.
        bound: Up to where a difference is allowed.
        within: The share of numbers within the bound.
        wanted: The share that has to be.
        apart: The largest difference as it is.
        share: That over the largest number of LiteRT's.
    """

    name: str
    unit: str
    numbers: int
    largest: float
    bound: float
    within: float
    wanted: float
    apart: float
    share: float

    @property
    def holds(self) -> bool:
        """Whether the output counts as the same."""
        return self.within >= self.wanted

    def __str__(self) -> str:
        if self.unit == "steps":
            return (
                f"output {self.name!r}: {self.within:.3%} of {self.numbers} numbers within one "
                f"step of LiteRT's, at most {self.largest:.3g} steps apart"
            )
        if self.unit == "share":
            return (
                f"output {self.name!r}: at most {self.largest:.2g} of the largest number apart "
                f"from LiteRT's, {self.within:.3%} of {self.numbers} within {self.bound:g}"
            )
        return f"output {self.name!r}: {self.within:.3%} of {self.numbers} equal LiteRT's"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What a comparison with LiteRT found.

    Attributes:
        version: Of LiteRT; None where there is none on this computer, so nothing was compared.
        examples: Sets of inputs.
        outputs: Each output's agreement.
        hybrid: Where LiteRT rounds inputs of float operators to 8 bits as it runs, how near the
            float graph is to that; the outputs above are then compared with the same file with
            its weights in float.
        culprit: Where it fails, the first operator whose result differs, in words.
    """

    version: str | None
    examples: int = 0
    outputs: tuple[Agreement, ...] = ()
    hybrid: tuple[Agreement, ...] = ()
    culprit: str = ""

    @property
    def holds(self) -> bool:
        """Whether all outputs agree; nothing compared is nothing refuted."""
        return all(each.holds for each in self.outputs)


def examples_of(
    graph: TfliteGraph, *, count: int = _EXAMPLES, seed: int = 0
) -> list[list[Any]]:
    """Make sets of inputs, always the same: normal numbers, integers over a grid's whole range.

    Whole numbers that are no grid's are 0 or 1, which every table has.
    """
    random = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        arrays = []
        for index in graph.inputs:
            tensor = graph.tensors[index]
            dtype = np.dtype(tensor.dtype)
            if dtype.kind == "f":
                arrays.append(random.standard_normal(tensor.shape).astype(dtype))
            elif dtype.kind in "iu" and dtype.itemsize <= 2 and tensor.scales:
                limits = np.iinfo(dtype)
                low, high = int(limits.min), int(limits.max) + 1
                arrays.append(random.integers(low, high, tensor.shape).astype(dtype))
            else:
                arrays.append(random.integers(0, 2, tensor.shape).astype(dtype))
        found.append(arrays)
    return found


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
    session = _session(converted.model)
    ours = [_run(session, names, converted, example) for example in examples]
    data = made_float(graph, converted.hybrid) if converted.hybrid else graph.data
    theirs = _answers(data, examples)
    outputs = _compared(converted, ours, theirs)
    hybrid: tuple[Agreement, ...] = ()
    if converted.hybrid:
        hybrid = _compared(converted, ours, _answers(graph.data, examples))
    proof = Proof(version=version, examples=len(examples), outputs=outputs, hybrid=hybrid)
    if proof.holds:
        return proof
    return Proof(
        version=version,
        examples=len(examples),
        outputs=outputs,
        hybrid=hybrid,
        culprit=_culprit(data, graph, converted, examples[0]),
    )


def _answers(data: bytes, examples: Sequence[list[Any]]) -> list[list[np.ndarray]]:
    litert = LiteRT(data)
    return [litert.run(example) for example in examples]


def _compared(
    converted: Converted,
    ours: Sequence[Sequence[np.ndarray]],
    theirs: Sequence[Sequence[np.ndarray]],
) -> tuple[Agreement, ...]:
    return tuple(
        _compare(
            place.value,
            np.stack([each[at] for each in ours]),
            np.stack([each[at] for each in theirs]),
            step=place.step,
            rounds=converted.rounds,
        )
        for at, place in enumerate(converted.outputs)
    )


def _compare(
    name: str, got: np.ndarray, wanted: np.ndarray, *, step: float | None, rounds: bool
) -> Agreement:
    """Compare an output by the measure that fits it."""
    unit, bound, share = "share", MIXED_BOUND if rounds else FLOAT_BOUND, 1.0
    if step is not None:
        unit, bound = "steps", 1.001
    elif wanted.dtype.kind != "f":
        unit, bound = "differing", 0.0
    if rounds:
        share = STEPS_SHARE
    if got.shape != wanted.shape:
        return Agreement(
            name=name,
            unit="differing",
            numbers=wanted.size,
            largest=np.inf,
            bound=0.0,
            within=0.0,
            wanted=share,
            apart=np.inf,
            share=np.inf,
        )
    same = got == wanted
    if wanted.dtype.kind == "f":
        same |= np.isnan(got) & np.isnan(wanted)
    with np.errstate(invalid="ignore"):
        apart = np.abs(got.astype(np.float64) - wanted.astype(np.float64))
    apart = np.where(same, 0.0, np.nan_to_num(apart, nan=np.inf))
    finite = np.abs(wanted[np.isfinite(wanted)].astype(np.float64))
    largest = max(float(finite.max(initial=0.0)), 1e-12)
    measure = apart
    if unit == "steps" and step is not None:
        measure = apart / step
    elif unit == "share":
        measure = apart / largest
    within = float(np.mean(measure <= bound)) if measure.size else 1.0
    return Agreement(
        name=name,
        unit=unit,
        numbers=int(measure.size),
        largest=float(measure.max(initial=0.0)),
        bound=bound,
        within=within,
        wanted=share,
        apart=float(apart.max(initial=0.0)),
        share=float(apart.max(initial=0.0)) / largest,
    )


def _culprit(data: bytes, graph: TfliteGraph, converted: Converted, example: list[Any]) -> str:
    """Name the first operator whose result is not LiteRT's.

    LiteRT's plain kernels are asked, which keep what every operator gives.
    """
    litert = LiteRT(data, keeps=True)
    litert.run(example)
    places: dict[int, Place] = converted.places
    names = list(dict.fromkeys(place.value for place in places.values()))
    session = _session(converted.model, also=names)
    values = dict(zip(names, _run(session, names, converted, example), strict=True))
    for op in graph.ops:
        for index in op.outputs:
            wanted = litert.tensor(index) if index in places else None
            if wanted is None:
                continue
            place = places[index]
            turned = values[place.value].transpose(
                [place.order.index(axis) for axis in range(len(place.order))]
            )
            seen = _compare(
                place.value, turned, wanted, step=place.step, rounds=converted.rounds
            )
            if not seen.holds:
                return (
                    f"operator {op.index} ({op.name}), tensor "
                    f"{graph.tensors[index].name!r}: {seen.within:.3%} within "
                    f"{seen.bound:g} {seen.unit}, at most {seen.largest:.3g} apart"
                )
    return ""


def _run(
    session: Any, names: list[str], converted: Converted, example: list[Any]
) -> list[np.ndarray]:
    given = [value.name for value in converted.model.graph.inputs]
    try:
        values: list[np.ndarray] = session.run(names, dict(zip(given, example, strict=True)))
    except Exception as exc:
        raise _not_run(exc) from exc
    return values


def _session(model: ir.Model, also: Sequence[str] = ()) -> Any:
    """Open a graph in onnxruntime as it is written, ``also`` with these values as outputs."""
    import onnx
    import onnxruntime

    from edgesdk.model.save import model_bytes

    data = model_bytes(model)
    if also:
        proto = onnx.ModelProto.FromString(data)
        known = {value.name for value in proto.graph.output}
        for name in also:
            if name not in known:
                proto.graph.output.append(onnx.ValueInfoProto(name=name))
        data = proto.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.graph_optimization_level = level
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as exc:
        raise _not_run(exc) from exc


def _not_run(exc: Exception) -> CompileError:
    return CompileError(
        "cannot prove the import: onnxruntime does not run the converted graph: "
        f"{' '.join(str(exc).split())[:400]}",
        hint="please report it",
    )
