"""How near each backend comes to onnxruntime on the same graph, one model at a time.

    python tests/long/backend_agreement.py NAME [--json FILE] [--limit N] [--backend ID ...]

builds the model for every backend that runs on this computer, in float and in 8 bits, runs the
parts as a chain on test samples and compares what comes out with the graph in one piece in
onnxruntime: the float graph, or the Q/DQ graph that was made for that backend. Models, samples
and labels are those of the quantizer's acceptance (``tests/perf/quantize_models.py``), fetched
once into ``.cache``; the networks that the onnx package ships without weights get drawn ones.

A backend gets all that its rules take: launches cost nothing here, so that no part is given up.

Where 8-bit answers miss a bar, two more numbers say why (``agreement_causes.py``): how far each
kernel agrees by itself (``kernels``), and how far onnxruntime agrees with itself when its
scales move by their last bit (``itself``, the worst of a few draws). A graph for which the
latter misses the bar too is unsteady: its answers say nothing of a backend, its kernels do.

Samples are rounded to the grids that a Q/DQ graph puts its inputs on. Pixels fall halfway
between two steps more often than chance has it; runtimes break such ties in different ways, and
forty layers later nothing is the same. What comes between input and output is compared.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "perf"))
sys.path.insert(0, str(Path(__file__).parent))

import quantize_stats
from agreement_causes import nudge_scales, on_grids, split_at_pairs
from agreement_models import MODELS, load
from quantize_models import Case

from edgesdk.build.chain import build_parts
from edgesdk.build.parts import BuiltParts
from edgesdk.build.pipeline import output_steps
from edgesdk.build.reference import HostModel, open_reference
from edgesdk.errors import EdgeError
from edgesdk.model import simplify
from edgesdk.model.open import OpenedModel
from edgesdk.plan import Recipe, plan_build
from edgesdk.plan.planner import model_facts
from edgesdk.profiles import find_target
from edgesdk.profiles.values import Speed, TargetProfile
from edgesdk.quantize.api import quantize

__all__ = ["BACKENDS", "MODELS", "SAME_BEST", "WITHIN", "Row", "measure", "table"]

Arrays = dict[str, np.ndarray]
#: Backends of this computer by id, best first; what the first refuses goes to the next.
BACKENDS: Mapping[str, tuple[str, ...]] = {
    "onnxruntime": ("ort-cpu",),
    "openvino": ("openvino-cpu", "ort-cpu"),
    "litert": ("litert-cpu", "ort-cpu"),
    "mixed": ("litert-cpu", "openvino-cpu", "ort-cpu"),
}
PRECISIONS = ("fp32", "int8")
#: Shares that 8-bit answers have to reach: elements within one step, and best classes.
WITHIN, SAME_BEST = 0.995, 0.99
#: How often scales are moved, and on how many samples kernels are looked at one by one.
_DRAWS, _SPLIT_SAMPLES = 3, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One build of one model.

    Attributes:
        model: The case.
        backend: A key of `BACKENDS`.
        precision: ``fp32`` or ``int8``.
        parts: What it was cut into: backends in the order of the chain.
        share: Of the nodes, on the backend that was asked for.
        rel_error: Largest difference as a share of the largest reference value of that output,
            over all outputs and samples; of exact integers how many differ.
        within: Share of elements within one step, of the worst output; None in float.
        top1: Share of samples with the same best class; None where there are no classes.
        accuracy: Share of right answers; None where there are no labels.
        wanted_accuracy: The same of the reference.
        kernels: Where 8-bit answers miss a bar, the share of elements within one step when each
            kernel is given what onnxruntime has, of the worst tensor inside; None where they
            do not, or where there is nothing between pairs.
        itself: Then also, the share of elements within one step between onnxruntime and itself
            with its scales moved by their last bit: the worst of a few draws.
        itself_top1: The same for the best class.
        samples: How many were run.
        why_not: Why it was not built; empty if it was.
    """

    model: str
    backend: str
    precision: str
    parts: tuple[str, ...] = ()
    share: float = 0.0
    rel_error: float | None = None
    within: float | None = None
    top1: float | None = None
    accuracy: float | None = None
    wanted_accuracy: float | None = None
    kernels: float | None = None
    itself: float | None = None
    itself_top1: float | None = None
    samples: int = 0
    why_not: str = ""

    @property
    def misses(self) -> bool:
        """Whether its 8-bit answers miss a bar, whatever the reason."""
        return self.precision == "int8" and (
            (self.within is not None and self.within < WITHIN)
            or (self.top1 is not None and self.top1 < SAME_BEST)
        )


def host_profile() -> TargetProfile:
    """Give this computer, where starting a part costs nothing."""
    free = Speed(
        gmacs_per_s={"fp32": 5.0}, move_mb_per_s=2000, copy_mb_per_s=None, launch_us=0.0
    )
    profile = find_target("host")
    return replace(
        profile, backends=tuple(replace(each, speed=free) for each in profile.backends)
    )


def measure(
    name: str, backends: Sequence[str] = tuple(BACKENDS), limit: int | None = None
) -> Iterator[Row]:
    """Build and compare a model for each backend and precision."""
    case, opened, calib, test = load(name)
    test = test[:limit]
    profile = host_profile()
    quantized: dict[str, Any] = {}
    wanted: dict[str, Arrays] = {}
    alone: dict[str, Row] = {}
    for backend in backends:
        order = BACKENDS[backend]
        for precision in PRECISIONS:
            row = Row(model=name, backend=backend, precision=precision)
            began = time.perf_counter()
            if backend == "mixed" and precision in alone:
                # the first of its backends takes everything: there is nothing to mix
                yield replace(alone[precision], backend=backend)
                continue
            key = order[0] if precision == "int8" else "float"
            try:
                if precision == "int8":
                    if order[0] not in quantized:
                        quantized[order[0]] = quantize(
                            opened, calib, scheme=f"host/{order[0]}", precision="int8"
                        ).model
                    model = quantized[order[0]]
                else:
                    model = simplify(opened.ir)
                given = on_grids(model, test)
                if key not in wanted:
                    with open_reference(model, as_written=True) as whole:
                        wanted[key] = _stacked(whole, given)
                row = _row(
                    row, case, opened, model, profile, given, wanted[key], cut=limit is not None
                )
                if row.misses:
                    row = replace(
                        row,
                        kernels=_by_kernel(row, opened, model, profile, given),
                        **_against_itself(row, case, model, given, wanted[key]),
                    )
            except EdgeError as exc:
                row = replace(row, why_not=str(exc)[:300])
            if backend == "litert" and row.share == 1.0:
                alone[precision] = row
            print(
                f"{name} {backend} {precision}: {time.perf_counter() - began:.0f} s",
                file=sys.stderr,
                flush=True,
            )
            yield row


def _row(
    row: Row,
    case: Case,
    opened: OpenedModel,
    model: Any,
    profile: TargetProfile,
    test: Sequence[Arrays],
    wanted: Arrays,
    *,
    cut: bool,
) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        built = _built(row, opened, model, profile, Path(folder))
        counts = built.placement["nodes_by_backend"]
        first = BACKENDS[row.backend][0]
        row = replace(
            row,
            parts=tuple(part.backend.profile.runtime for part in built.parts),
            share=counts.get(first, 0) / max(sum(counts.values()), 1),
        )
        chain = built.on_host([value.name or "" for value in model.graph.outputs])
        given = _stacked(chain, test)
        return _compare(row, case, given, wanted, output_steps(model), cut=cut)


def _built(
    row: Row, opened: OpenedModel, model: Any, profile: TargetProfile, folder: Path
) -> BuiltParts:
    order = BACKENDS[row.backend]
    others = tuple(each.id for each in profile.backends if each.id not in order)
    recipe = Recipe(precision=row.precision, prefer=tuple(order), avoid=others)  # type: ignore[arg-type]
    return build_parts(
        model,
        opened.source,
        profile,
        recipe,
        plan_build(model_facts(opened), profile, recipe),
        precision=row.precision,
        folder=folder,
        on_note=lambda note: None,
    )


def _by_kernel(
    row: Row, opened: OpenedModel, model: Any, profile: TargetProfile, test: Sequence[Arrays]
) -> float | None:
    """Compare every 8-bit tensor inside, each kernel reading what onnxruntime has."""
    split, stand_ins = split_at_pairs(model)
    if not stand_ins:
        return None
    watched = model.clone()
    values = {value.name: value for node in watched.graph for value in node.outputs}
    watched.graph.outputs.extend(values[name] for name in stand_ins)
    within = dict.fromkeys(stand_ins, 0.0)
    samples = test[:_SPLIT_SAMPLES]
    with tempfile.TemporaryDirectory() as folder:
        chain = _built(row, opened, split, profile, Path(folder)).on_host(list(stand_ins))
        with open_reference(watched, as_written=True) as whole:
            for sample in samples:
                inside = whole.run(sample)
                found = chain.run({**sample, **{to: inside[n] for n, to in stand_ins.items()}})
                for name in stand_ins:
                    apart = np.abs(found[name].astype(int) - inside[name].astype(int))
                    within[name] += float(np.mean(apart <= 1)) / len(samples)
    return min(within.values())


def _against_itself(
    row: Row, case: Case, model: Any, test: Sequence[Arrays], wanted: Arrays
) -> dict[str, float | None]:
    """Compare onnxruntime with itself after the last bits of the scales."""
    drawn = []
    for seed in range(_DRAWS):
        with open_reference(nudge_scales(model, seed), as_written=True) as nudged:
            found = _stacked(nudged, test)
        drawn.append(_compare(row, case, found, wanted, output_steps(model), cut=True))

    def worst(shares: Sequence[float | None]) -> float | None:
        return min((share for share in shares if share is not None), default=None)

    return {
        "itself": worst([each.within for each in drawn]),
        "itself_top1": worst([each.top1 for each in drawn]),
    }


def _compare(
    row: Row,
    case: Case,
    given: Arrays,
    wanted: Arrays,
    steps: Mapping[str, float],
    *,
    cut: bool,
) -> Row:
    count = len(next(iter(wanted.values())))
    found = {name: given[name] for name in wanted}
    errors, shares = [0.0], []
    for name, reference in wanted.items():
        answer = found[name]
        if answer.shape != reference.shape or answer.dtype != reference.dtype:
            return replace(row, why_not=f"{name} is {answer.dtype}{answer.shape}")
        if reference.dtype.kind != "f":
            errors.append(float(np.mean(answer != reference)))
            continue
        apart = np.abs(answer.astype("f8") - reference.astype("f8"))
        apart[np.isnan(apart)] = np.inf
        largest = float(np.abs(reference).max(initial=0.0)) or 1.0
        errors.append(float(apart.max(initial=0.0)) / largest)
        if row.precision == "int8":
            low, high = min(float(reference.min()), 0.0), max(float(reference.max()), 0.0)
            step = steps.get(name) or (high - low) / 255
            shares.append(float(np.mean(apart <= step * (1 + 1e-4))))
    right = wanted_right = np.zeros(0)
    if case.labelled and not (cut and case.kind == "speech"):
        right, wanted_right = (
            quantize_stats.judge(case, each, rows=range(count)) for each in (found, wanted)
        )
    return replace(
        row,
        rel_error=max(errors),
        within=min(shares) if shares else None,
        top1=_same_best(case, found, wanted),
        accuracy=float(right.mean()) if right.size else None,
        wanted_accuracy=float(wanted_right.mean()) if right.size else None,
        samples=count,
    )


def _stacked(model: HostModel, test: Sequence[Arrays]) -> Arrays:
    rows = [model.run(sample) for sample in test]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def _same_best(case: Case, found: Arrays, wanted: Arrays) -> float | None:
    """Compare best classes: of each sample, of each place, or of each prior of a detector."""
    name = case.outputs[0] if case.outputs else next(iter(wanted))
    drawn = case.name.startswith("light_")  # where all classes are as good as tied
    if drawn or case.name in ("ppocr_det", "minilm") or wanted[name].shape[-1] < 2:
        return None
    best = [each[name].argmax(-1).reshape(len(each[name]), -1) for each in (found, wanted)]
    return float(np.mean(best[0] == best[1]))


def table(rows: Sequence[Row]) -> str:
    """Lay rows out for people."""

    def text(value: float | None, digits: str) -> str:
        return "-" if value is None else format(value, digits)

    lines = [
        f"{'model':20} {'backend':12} {'bits':5} {'rel error':>9} {'in step':>8} {'top-1':>7} "
        f"{'accuracy':>8} {'(ref)':>7} {'kernels':>8} {'itself':>8} "
        f"{'n':>4} {'share':>6}  parts"
    ]
    for row in rows:
        head = f"{row.model:20} {row.backend:12} {row.precision:5} "
        if row.why_not:
            lines.append(head + f"not built: {row.why_not}")
            continue
        runs = [p for i, p in enumerate(row.parts) if not i or row.parts[i - 1] != p]
        several = f"{len(row.parts)}: " if len(row.parts) > 1 else ""
        shown = " ".join(runs[:6]) + (" ..." if len(runs) > 6 else "")
        lines.append(
            head
            + f"{text(row.rel_error, '9.1e')} {text(row.within, '8.4%'):>8} "
            + f"{text(row.top1, '7.2%'):>7} {text(row.accuracy, '8.4f'):>8} "
            + f"{text(row.wanted_accuracy, '7.4f'):>7} {text(row.kernels, '8.4%'):>8} "
            + f"{text(row.itself, '8.4%'):>8} {row.samples:4} {row.share:6.1%}  "
            + several
            + shown
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else "")
    parser.add_argument("names", nargs="*", default=MODELS)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--limit", type=int)
    parser.add_argument(
        "--backend", nargs="*", default=tuple(BACKENDS), choices=tuple(BACKENDS)
    )
    given = parser.parse_args()
    rows: list[Row] = []
    missing: dict[str, str] = {}
    for name in given.names:
        try:
            rows += measure(name, given.backend, given.limit)
        except LookupError as exc:
            missing[name] = str(exc)
    if given.json:
        document = {"rows": [asdict(row) for row in rows], "missing": missing}
        given.json.write_text(json.dumps(document, indent=1), encoding="utf-8")
    print(table(rows))
    for name, why in missing.items():
        print(f"{name:20} not to be had here: {why}")


if __name__ == "__main__":
    main()
