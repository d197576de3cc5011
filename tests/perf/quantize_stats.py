"""What an answer is worth: right or wrong, distance to float, and whether it matters."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from quantize_models import Case, feeds

__all__ = [
    "count_quantizers",
    "count_right",
    "extra_scores",
    "interval_of_ratios",
    "judge",
    "mcnemar",
    "open_session",
    "run_case",
    "sqnr_of_outputs",
]


def open_session(path: Path, *, threads: int = 0) -> Any:
    """Open a model for the CPU as a deployment would, quietly."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run_case(
    case: Case, path: Path, *, file: str = "test.npz", rows: Collection[int] | None = None
) -> dict[str, np.ndarray]:
    """Run the test samples one by one; state goes from each to the next of the same stream.

    Args:
        case: The model and where its samples are.
        path: The file to run.
        file: Which samples.
        rows: Only these of them.
    """
    session = open_session(path)
    names = [value.name for value in session.get_outputs()]
    resets = itertools.repeat(True)
    if case.state:
        with np.load(case.folder / "test.npz") as box:
            resets = iter(box["reset"].tolist())
    kept: dict[str, list[np.ndarray]] = {name: [] for name in names}
    carried: dict[str, np.ndarray] = {}
    for index, (sample, reset) in enumerate(zip(feeds(case, file), resets, strict=False)):
        if rows is not None and index not in rows:
            continue
        feed = sample if reset else sample | carried
        for name, value in zip(names, session.run(names, feed), strict=True):
            kept[name].append(value)
        carried = {into: kept[out][-1] for into, out in case.state.items()}
    return {name: np.stack(values) for name, values in kept.items()}


def judge(
    case: Case,
    outputs: dict[str, np.ndarray],
    *,
    file: str = "test.npz",
    rows: Iterable[int] | None = None,
) -> np.ndarray:
    """Say for each sample that has a label whether the answer is right; none may have."""
    picked = slice(None) if rows is None else list(rows)
    first = outputs[case.outputs[0] if case.outputs else next(iter(outputs))]
    with np.load(case.folder / file) as box:
        if "labels:text" in box.files:
            with np.load(case.folder / "test.npz") as test:
                table = ["", *test["labels:characters"].tolist(), " "]
            read = ["".join(table[i] for i in _collapse(row)).strip() for row in first]
            texts = box["labels:text"][picked].tolist()
            right = [a == b for a, b in zip(read, texts, strict=True)]
            return np.array(right, bool)
        if "labels:speech" in box.files:
            return np.asarray((first.reshape(len(first)) > 0.5) == box["labels:speech"])
        if "labels:class" in box.files:
            classes = box["labels:class"][picked]
            hits = np.equal(first.reshape(len(first), -1).argmax(1), classes)
            return np.asarray(hits[classes >= 0])
    return np.zeros(0, bool)


def _collapse(row: np.ndarray) -> list[int]:
    """Give the classes that connectionist temporal classification reads; 0 is the blank."""
    best = row.reshape(-1, row.shape[-1]).argmax(1)
    return [
        int(c) for c, before in zip(best, [0, *best[:-1]], strict=True) if c and c != before
    ]


def agreement(
    case: Case, reference: dict[str, np.ndarray], other: dict[str, np.ndarray]
) -> Any:
    """Say for each test sample whether the best class is the float model's."""
    name = case.outputs[0] if case.outputs else next(iter(reference))
    if case.kind not in ("class", "agree"):
        return None
    one, two = (
        each[name].reshape(len(each[name]), -1).argmax(1) for each in (reference, other)
    )
    return one == two


def sqnr_of_outputs(
    case: Case, reference: dict[str, np.ndarray], other: dict[str, np.ndarray]
) -> dict[str, float]:
    """Give for each compared output the power of float over that of the difference, in dB.

    Padding is not compared: where the model takes an attention mask, what it hides does not
    count.
    """
    found = {}
    mask = None
    with np.load(case.folder / "test.npz") as box:
        if "attention_mask" in box.files:
            mask = box["attention_mask"][:, None, :, None]
    for name in case.outputs or reference:
        one, two = reference[name].astype(np.float64), other[name].astype(np.float64)
        if mask is not None and one.ndim == 4:
            one, two = one * mask, two * mask
        noise, power = float(np.square(one - two).sum()), float(np.square(one).sum())
        if not math.isfinite(noise):
            found[name] = -math.inf
        elif noise == 0:
            found[name] = math.inf
        else:
            found[name] = 10 * math.log10(max(power, 1e-300) / noise)
    return found


def count_quantizers(path: Path) -> int:
    """Count the nodes that work in integers or hand over to such; 0 says: not quantized."""
    import onnx

    def count(graph: onnx.GraphProto) -> int:
        total = 0
        for node in graph.node:
            names = (node.op_type.startswith(p) for p in ("QLinear", "Dequantize", "Quantize"))
            total += any(names) or node.op_type.endswith("Integer")
            total += sum(count(attribute.g) for attribute in node.attribute)
        return total

    model = onnx.load(path, load_external_data=False)
    return count(model.graph) + sum(
        node.op_type.startswith("Dequantize") for f in model.functions for node in f.node
    )


def extra_scores(
    case: Case, reference: dict[str, np.ndarray], outputs: dict[str, np.ndarray]
) -> dict[str, float]:
    """Give what a rate of right answers leaves out: of masks and of thresholds."""
    name = case.outputs[0] if case.outputs else next(iter(reference))
    found = {}
    with np.load(case.folder / "test.npz") as box:
        if "labels:mask" in box.files:
            one, two = reference[name] > 0.3, outputs[name] > 0.3
            found["iou_with_float"] = float((one & two).sum() / max(1, (one | two).sum()))
        if "labels:speech" in box.files:
            values, speech = outputs[name].reshape(-1), box["labels:speech"]
            order = np.argsort(np.argsort(values)) + 1.0
            yes, no = int(speech.sum()), int((~speech).sum())
            found["auc"] = float((order[speech].sum() - yes * (yes + 1) / 2) / (yes * no))
    return found


def count_right(right: np.ndarray) -> dict[str, float] | None:
    """Give count, hits and rate of a row of right and wrong; None if it is empty."""
    if not len(right):
        return None
    return {"count": len(right), "right": int(right.sum()), "rate": float(right.mean())}


def mcnemar(one: np.ndarray, two: np.ndarray) -> float:
    """Give the two-sided exact p-value that two answerers of the same questions are alike.

    McNemar 1947: only the questions that one got right and the other wrong tell them apart, and
    under equality each such question is a fair coin.
    """
    wins, losses = int((one & ~two).sum()), int((two & ~one).sum())
    odd = wins + losses
    tail: float = sum(math.comb(odd, k) for k in range(min(wins, losses) + 1)) / 2**odd
    return min(1.0, 2 * tail)


def interval_of_ratios(ratios: np.ndarray) -> tuple[float, float, float]:
    """Give the median of paired ratios and its 95 % interval, by 2,000 bootstrap draws."""
    draws = np.random.default_rng(0).choice(ratios, (2000, len(ratios)))
    low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
    return float(np.median(ratios)), float(low), float(high)
