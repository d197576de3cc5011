"""Check vectors: inputs with the answers expected of a bundle, which travel inside it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from edgesdk.build.reference import HostModel
from edgesdk.bundle import BundleWriter
from edgesdk.errors import BuildError
from edgesdk.tensors import TensorInfo, pack_tensors
from edgesdk.wire.tensors import DTYPE_BYTES

if TYPE_CHECKING:
    import numpy as np

    from edgesdk.data.metrics import Difference

__all__ = ["Checks", "kernel_spread", "make_checks", "synthetic_samples", "tell_parts"]

Sample = Mapping[str, "np.ndarray"]

#: All check vectors together, their answers too; one is kept however large it is.
_MAX_CHECK_BYTES = 4 << 20
#: Float parts: share of the largest expected value by which an element may differ, which is
#: what another instruction set's order of summation costs.
_FLOAT_TOLERANCE = 1e-4
#: 8-bit parts: share of elements that may be off by more than the step, as kernels of other
#: versions and instruction sets round sums in another order.
_STRAY_SHARE = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class Checks:
    """Check vectors as the manifest holds them, and how near the part is to the float model.

    ``against_float`` has, for each float output, the smallest cosine and the largest absolute
    error over the check vectors, each None where one vector has none; empty where there is no
    float model.
    """

    records: list[dict[str, Any]]
    against_float: list[dict[str, Any]]


def synthetic_samples(inputs: Sequence[TensorInfo], count: int) -> list[dict[str, np.ndarray]]:
    """Make inputs for a model that comes without data: the same ones each time.

    Floats are uniform in 0..1, 8-bit integers over all they can hold (they are pixels or
    quantized values), wider integers 0 or 1 (which every index and mask accepts).

    Raises:
        BuildError: An extent other than the first is not fixed, or a dtype cannot be made.
    """
    import numpy as np

    random = np.random.default_rng(20260101)
    samples = []
    for _ in range(count):
        sample = {}
        for value in inputs:
            shape = [_extent(value, axis) for axis in range(len(value.shape))]
            if value.dtype not in DTYPE_BYTES:
                raise BuildError(
                    f"cannot make check vectors: input {value.name!r} has dtype {value.dtype}",
                    hint="give typical inputs with --calib",
                )
            if value.dtype.startswith("float"):
                sample[value.name] = random.random(shape, dtype=np.float64).astype(value.dtype)
            elif value.dtype in ("int8", "uint8"):
                limits = np.iinfo(value.dtype)
                whole = random.integers(limits.min, limits.max, shape, endpoint=True)
                sample[value.name] = whole.astype(value.dtype)
            else:
                sample[value.name] = random.integers(0, 2, shape).astype(value.dtype)
        samples.append(sample)
    return samples


def make_checks(
    samples: Iterable[Sample],
    writer: BundleWriter,
    *,
    part: HostModel | None,
    reference: HostModel | None,
    precision: str,
    steps: Mapping[str, float],
    limit: int,
    spread: Mapping[str, float] | None = None,
) -> Checks:
    """Run samples through the part and the float model; store each as one blob.

    Args:
        samples: Inputs by name.
        writer: Takes the blobs.
        part: The very part that is deployed, on this computer; None where it does not run
            here: no answers are expected then, and the device compares two runs of its own.
        reference: The float model, or None where there is none (a file deployed as it is).
        precision: Of the part; decides the tolerance.
        steps: Quantization step of each output that comes straight from a dequantizer.
        limit: At most that many check vectors.
        spread: What `kernel_spread` gave of a runtime with two kernel sets: which of them the
            device has shows there only, so that much is allowed at least.

    Returns:
        As ``records`` the manifest's ``checks``: tensor specs into the blob, and per output how
        far an element may be off. That is one quantization step for int8, and a share of the
        largest expected value for float.
    """
    runs: list[tuple[Sample, Sample, Sample]] = []
    total = 0
    for inputs in itertools.islice(samples, limit):
        answers = reference.run(inputs) if reference is not None else {}
        expected = part.run(inputs) if part is not None else {}
        total += sum(map(_bytes_of, (inputs, expected, answers)))
        if runs and total > _MAX_CHECK_BYTES:
            break
        runs.append((dict(inputs), expected, answers))
    if not runs:
        raise BuildError("cannot make check vectors: there are no samples")
    answered = [expected for _, expected, _ in runs]
    tolerance = _tolerances(answered, precision, steps, spread or {})
    return Checks(
        records=[_store(writer, *run, tolerance) for run in runs],
        against_float=_against_float(runs),
    )


def kernel_spread(
    samples: Sequence[Sample], one: HostModel, other: HostModel
) -> dict[str, float]:
    """Measure how far apart two kernel sets of a runtime are, per output, and give twice that.

    A file that arrives quantized is rounded in every layer by whichever kernels a runtime
    version picks, and a softmax at the end magnifies it: one step is not what its author's own
    kernels keep to. Answers of two shapes bound nothing.
    """
    import numpy as np

    spread: dict[str, float] = {}
    for sample in samples:
        answers, others = one.run(sample), other.run(sample)
        for name, answer in answers.items():
            same_shape = answer.shape == others[name].shape
            if answer.dtype.kind in "fiu" and answer.size and same_shape:
                apart = _apart(answer, others[name])
                # what one of them has no number for bounds nothing
                finite = apart[np.isfinite(apart)]
                spread[name] = max(spread.get(name, 0.0), 2.0 * float(finite.max(initial=0.0)))
    return spread


def tell_parts(
    as_built: dict[str, Any],
    samples: Sequence[Sample],
    chain: HostModel,
    whole: HostModel,
    steps: Mapping[str, float],
    *,
    precision: str,
) -> None:
    """Compare the parts, run as a chain, with the graph in one piece, and record it.

    Outputs of a float build may differ by a ten-thousandth of the largest value, those of
    another one by a step on all but one element in two hundred: that of their dequantizer, else
    of the 8 bits that would cover what was seen. More is worth a warning.
    """
    import numpy as np

    from edgesdk.model.values import Finding

    records: dict[str, dict[str, Any]] = {}
    runs = [(chain.run(sample), whole.run(sample)) for sample in samples]
    for name in runs[0][1] if runs else ():
        pairs = [(np.asarray(answers[name]), wanted[name]) for answers, wanted in runs]
        shapes = next(((g.shape, v.shape) for g, v in pairs if g.shape != v.shape), None)
        if shapes is not None:
            finding = Finding(
                code="parts-differ",
                severity="warning",
                message=f"output {name!r} of the parts has the shape {list(shapes[0])}, that "
                f"of the graph in one piece {list(shapes[1])}: they are not compared",
                hint="measure the accuracy with --data, or leave that backend out with `avoid` "
                "in a recipe",
                subject=name,
            )
            as_built["findings"].append(asdict(finding))
        pairs = [
            (given.astype(np.float64), value.astype(np.float64))
            for given, value in pairs
            if value.dtype.kind in "fiu" and given.shape == value.shape and value.size
        ]
        if not pairs:
            continue
        finite = [value[np.isfinite(value)] for _, value in pairs]
        largest = max(float(np.abs(value).max(initial=0.0)) for value in finite)
        bound = _FLOAT_TOLERANCE * largest + 1e-7
        if precision != "fp32":
            bound = max(bound, (steps.get(name) or _step_of_range(finite)) * (1 + 1e-4))
        aparts = [_apart(given, value) for given, value in pairs]
        records[name] = {
            "output": name,
            "max_abs_error": _number(max(float(np.nan_to_num(a).max()) for a in aparts)) or 0.0,
            "bound": _short(bound),
            "beyond": max(float(np.mean(~(apart <= bound))) for apart in aparts),
        }
    as_built["against_whole"] = list(records.values())
    for name, record in records.items():
        if record["beyond"] > (_STRAY_SHARE if precision != "fp32" else 0.0):
            finding = Finding(
                code="parts-differ",
                severity="warning",
                message=f"output {name!r} of the parts differs from that of the graph in one "
                f"piece by up to {record['max_abs_error']:g} (bound {record['bound']:g}) on "
                f"{record['beyond']:.2%} of its elements",
                hint="a runtime computes an operator in another way: measure the accuracy with "
                "--data, or leave that backend out with `avoid` in a recipe",
                subject=name,
            )
            as_built["findings"].append(asdict(finding))


def _apart(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Say by element how far two answers are apart; the same infinity, or no number, is 0."""
    import numpy as np

    one, other = one.astype(np.float64), other.astype(np.float64)
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    with np.errstate(invalid="ignore"):
        return np.where(same, 0.0, np.abs(one - other))


def _against_float(runs: Sequence[tuple[Sample, Sample, Sample]]) -> list[dict[str, Any]]:
    import numpy as np

    from edgesdk.data.metrics import compare

    found: dict[str, list[Difference]] = {}
    for _, expected, reference in runs:
        for name, value in reference.items():
            answer, wanted = np.asarray(expected[name]), np.asarray(value)
            if answer.dtype.kind == "f" and answer.shape == wanted.shape:
                # what neither has a number for, both agree on
                alike = ~np.isfinite(wanted) & (_apart(answer, wanted) == 0.0)
                pair = (np.where(alike, 0, each) for each in (wanted, answer))
                found.setdefault(name, []).append(compare(*pair))
    # numpy's smallest and largest are NaN where one is; Python's own depend on the order
    return [
        {
            "output": name,
            "cosine": _number(float(np.min([each.cosine for each in several]))),
            "max_abs_error": _number(float(np.max([each.max_abs_error for each in several]))),
            "vectors": len(several),
        }
        for name, several in found.items()
    ]


def _bytes_of(arrays: Sample) -> int:
    import numpy as np

    return sum(np.asarray(array).nbytes for array in arrays.values())


def _number(value: float) -> float | None:
    """Six digits, or None for what JSON has no number for."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _store(
    writer: BundleWriter,
    inputs: Sample,
    expected: Sample,
    reference: Sample,
    tolerance: list[dict[str, Any]],
) -> dict[str, Any]:
    groups: dict[str, list[dict[str, Any]]] = {}
    body = b""
    for title, arrays in (("inputs", inputs), ("expected", expected), ("reference", reference)):
        try:
            groups[title], piece = pack_tensors(arrays, start=len(body))
        except TypeError as exc:
            raise BuildError(f"cannot make check vectors: {exc}") from exc
        body += piece
    return {"blob": writer.add_bytes(body), **groups, "tolerance": tolerance}


def _tolerances(
    answers: Sequence[Sample],
    precision: str,
    steps: Mapping[str, float],
    spread: Mapping[str, float],
) -> list[dict[str, Any]]:
    import numpy as np

    tolerances = []
    for name in answers[0]:
        values = [np.asarray(answer[name]) for answer in answers]
        allowed = 0.0
        if values[0].dtype.kind == "f":
            finite = [v[np.isfinite(v)].astype(np.float64) for v in values]
            largest = max((float(np.abs(v).max()) for v in finite if v.size), default=0.0)
            allowed = _FLOAT_TOLERANCE * largest + 1e-7
            if precision not in ("fp32", "as-is"):
                # halves and 4-bit weights too: runtimes compute them in different ways
                allowed = max(allowed, steps.get(name) or _step_of_range(finite))
        elif precision != "fp32" and values[0].dtype.kind in "iu":
            # a raw quantized output differs by a step; an index computed from scores may flip
            # where two scores are one step apart, which the score outputs would show
            allowed = max(1.0, steps.get(name, 0.0))
        if precision != "fp32" and allowed:
            allowed = max(allowed, spread.get(name, 0.0))
        stray = 0.0 if precision == "fp32" else _STRAY_SHARE
        tolerances.append({"output": name, "abs": _short(allowed), "rel": 0.0, "stray": stray})
    return tolerances


def _step_of_range(values: Sequence[np.ndarray]) -> float:
    """One step of the 8-bit grid that would cover what was seen."""
    lowest = min((float(v.min()) for v in values if v.size), default=0.0)
    highest = max((float(v.max()) for v in values if v.size), default=0.0)
    return (max(highest, 0.0) - min(lowest, 0.0)) / 255


def _short(value: float) -> float:
    """Give a millionth more, for steps rounded in float32, in digits that read well."""
    return float(f"{value * (1 + 1e-6):.7g}")


def _extent(value: TensorInfo, axis: int) -> int:
    extent = value.shape[axis]
    if isinstance(extent, int):
        return extent
    if axis == 0:
        return 1
    raise BuildError(
        f"cannot make check vectors: extent {axis} of input {value} is not fixed",
        hint=f"fix it with --shape {value.name}=..., or give typical inputs with --calib",
        input=value.name,
    )
