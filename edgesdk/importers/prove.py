"""Hold an imported graph against its framework: same inputs, same answers, or an error.

The framework's answers to a few sets of inputs came with the export. onnxruntime runs the file
on them, as written (its own rewriting is left off), and the largest difference at any output
over the largest value of that output has to stay below a bound. Where it does not, the values
that the framework's layers gave are looked for in the graph, in order of execution, and the
first that differs is named.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgesdk.errors import ProofMismatch
from edgesdk.importers.job import Exported, Layer

if TYPE_CHECKING:
    from typing import Any

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["MAX_REL_ERROR", "Agreement", "compare_arrays", "first_difference", "prove_export"]

#: The largest difference allowed, over the largest reference value of an output.
MAX_REL_ERROR = 1e-4
#: The same of an output of 16-bit floats: four of their rounding steps.
_MAX_HALF_ERROR = 4 * 2.0**-10


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How far two sets of answers are apart.

    Attributes:
        max_abs: The largest difference.
        max_rel: The largest difference over the largest reference value, output by output.
        allowed: What ``max_rel`` may be: `MAX_REL_ERROR`, and more for 16-bit floats.
        worst: The output, or layer, it was seen at.
        why: In words what differs where numbers cannot say it: shape, dtype, text.
    """

    max_abs: float = 0.0
    max_rel: float = 0.0
    allowed: float = MAX_REL_ERROR
    worst: str = ""
    why: str = ""

    @property
    def holds(self) -> bool:
        """Whether they count as the same."""
        return not self.why and self.share <= 1

    @property
    def share(self) -> float:
        """``max_rel`` as a share of what is allowed."""
        return self.max_rel / self.allowed


def prove_export(exported: Exported, *, name: str) -> Agreement:
    """Run the file on every example and give the largest difference.

    Args:
        exported: With its examples.
        name: What to call the source in errors.

    Raises:
        ProofMismatch: onnxruntime refuses the file, or its inputs or outputs are others.
    """
    seen: list[Agreement] = []
    session = None
    for example in exported.examples:
        try:
            session = session or _session(exported.model)
            names = [each.name for each in session.get_outputs()]
            got = dict(zip(names, session.run(None, dict(example.inputs)), strict=True))
        except Exception as exc:
            raise ProofMismatch(
                f"cannot prove the import of {name}: onnxruntime does not run the exported "
                f"graph: {' '.join(str(exc).split())[:400]}",
                hint="another --opset may help; please report it",
            ) from exc
        if set(example.outputs) != set(got):
            raise ProofMismatch(
                f"cannot prove the import of {name}: the graph has the outputs "
                f"{', '.join(got)[:200]} (expected {', '.join(example.outputs)[:200]})",
                hint="please report it",
            )
        seen += [
            compare_arrays(each, got[out], at=out) for out, each in example.outputs.items()
        ]
    if not seen:
        raise ProofMismatch(
            f"cannot prove the import of {name}: its exporter gave no example",
            hint="please report it",
        )
    worst = max(seen, key=lambda each: (bool(each.why), each.share))
    return dataclasses.replace(
        worst,
        max_abs=max(each.max_abs for each in seen),
        max_rel=max(each.max_rel for each in seen),
    )


def first_difference(exported: Exported) -> tuple[str, Agreement] | None:
    """Name the first layer whose values the graph does not have.

    Layers whose value is not in the graph (an exporter may have fused it away) are passed over.

    Returns:
        The layer and how far it is off; None if every layer that can be compared agrees.
    """
    if not exported.layers or not exported.examples:
        return None
    values = _values_of(exported.model, exported.layers, exported.examples[0].inputs)
    for layer in exported.layers:
        if layer.tensor in values:
            seen = compare_arrays(layer.value, values[layer.tensor], at=layer.name)
            if not seen.holds:
                return layer.name, seen
    return None


def compare_arrays(expected: NDArray[np.generic], got: object, *, at: str) -> Agreement:
    """Compare two arrays of one shape and type: floats by their difference, all else exactly.

    NaN and infinity have to be in the same places.
    """
    import numpy as np

    if not isinstance(got, np.ndarray):
        return Agreement(worst=at, why=f"it is no tensor but a {type(got).__name__}")
    other = _other_form(expected, got)
    if other:
        return Agreement(worst=at, why=other)
    if expected.dtype.kind != "f":
        wrong = int(np.count_nonzero(expected != got))
        why = f"{wrong} of {expected.size} values differ" if wrong else ""
        return Agreement(worst=at, why=why)
    ours, theirs = got.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(theirs)
    odd = ~finite
    same_odd = np.array_equal(finite, np.isfinite(ours)) and np.array_equal(
        theirs[odd], ours[odd], equal_nan=True
    )
    if not same_odd:
        return Agreement(worst=at, why="NaN or infinity is in other places")
    if not finite.any():
        return Agreement(worst=at)
    apart = float(np.abs(ours[finite] - theirs[finite]).max())
    scale = float(np.abs(theirs[finite]).max())
    allowed = _MAX_HALF_ERROR if expected.dtype.itemsize == 2 else MAX_REL_ERROR
    return Agreement(
        max_abs=apart, max_rel=apart / max(scale, 1e-12), allowed=allowed, worst=at
    )


def _other_form(expected: NDArray[np.generic], got: NDArray[np.generic]) -> str:
    """Say how shape or type differ; text has several types, which are as good."""
    if expected.shape != got.shape:
        return f"its shape is {list(got.shape)} (expected {list(expected.shape)})"
    if expected.dtype != got.dtype and not {expected.dtype.kind, got.dtype.kind} <= set("UO"):
        return f"its type is {got.dtype} (expected {expected.dtype})"
    return ""


def _session(model: Path | bytes) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    source = model if isinstance(model, bytes) else str(model)
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def _values_of(
    path: Path, layers: Sequence[Layer], inputs: Mapping[str, NDArray[np.generic]]
) -> dict[str, NDArray[np.generic]]:
    """Compute those of the values that layers name which the graph has at its top level."""
    import onnx

    model = onnx.load(str(path))
    there = {name for node in model.graph.node for name in node.output if name}
    wanted = [name for name in dict.fromkeys(layer.tensor for layer in layers) if name in there]
    known = {output.name for output in model.graph.output}
    for name in wanted:
        if name not in known:
            model.graph.output.append(onnx.ValueInfoProto(name=name))
    if not wanted:
        return {}
    session = _session(model.SerializeToString())
    return dict(zip(wanted, session.run(wanted, dict(inputs)), strict=True))
