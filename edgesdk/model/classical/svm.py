"""Support vector machines: a kernel against constant vectors, then constant sums and votes.

The distance of a RBF kernel is written as a product, ``|x|² + |s|² - 2 x·s``, which is what an
accelerator is good at and loses digits where the norms are large. So both are moved to the
middle of the support vectors first, and it is done only where what is lost in the exponent is
far below a float's own rounding of the answer; else differences are taken one by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgesdk.model.classical.linear import row_width
from edgesdk.model.classical.scores import TRANSFORMS, both_scores, finish_scores
from edgesdk.model.classical.writing import (
    Lowered,
    Writer,
    class_labels,
    float_array,
    int_array,
    text,
)

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

__all__ = ["svm_classifier", "svm_regressor"]

#: What the exponent of a RBF kernel may be off by, from writing it as a product.
_EXPONENT_ERROR = 4e-6
#: Differences of vectors and features that may be taken one by one, for each row.
_MOST_DIFFERENCES = 1 << 18
#: Elements of the constant matrices of sums and votes.
_MOST_SUMS = 1 << 24


@dataclass(frozen=True, slots=True)
class _Kernel:
    """``vectors`` is a matrix, one support vector a row."""

    kind: str
    gamma: float
    coef0: float
    degree: float
    vectors: np.ndarray


def svm_regressor(node: ir.Node, write: Writer) -> Lowered:
    """Lower a SVMRegressor, and the one-class machine that some exporters write as one."""
    attribute = node.attributes.get("n_supports")
    count = attribute.as_int() if attribute is not None else 0
    weights, rho = float_array(node, "coefficients"), float_array(node, "rho")
    value, width = node.inputs[0], row_width(node)
    if value is None or width is None or value.dtype is None or value.dtype.name != "FLOAT":
        return None
    if len(rho) < 1 or len(weights) != (count or width):
        return None
    kernel = _kernel_of(node, count, width) if count else None
    if count and kernel is None:
        return None
    data = value if kernel is None else _kernel(write, value, kernel)
    if data is None:
        return None
    sums = write.op(
        "Gemm",
        data,
        write.constant(weights.reshape(1, -1), "weight"),
        write.constant(rho[:1], "rho"),
        transB=1,
    )
    one_class = node.attributes.get("one_class")
    if one_class is None or one_class.as_int() == 0:
        return {0: sums}
    inside = write.op("Greater", sums, write.number(0, "zero"))
    return {
        0: write.op("Where", inside, write.number(1, "inlier"), write.number(-1, "outlier"))
    }


def svm_classifier(node: ir.Node, write: Writer) -> Lowered:
    """Lower a SVMClassifier without probabilities: those come out of a loop.

    Every two classes have a machine of their own, whose votes give the label.
    """
    labels, counts = class_labels(node), int_array(node, "vectors_per_class")
    weights, rho = float_array(node, "coefficients"), float_array(node, "rho")
    transform, width = text(node, "post_transform", "NONE"), row_width(node)
    classes, total, value = len(labels), int(counts.sum()), node.inputs[0]
    sound = transform in TRANSFORMS and classes > 1 and not len(float_array(node, "prob_a"))
    if value is None or width is None or not sound:
        return None
    if not total:
        return _liblinear(write, value, labels, (weights, rho), transform)
    pairs = classes * (classes - 1) // 2
    sound = len(counts) == classes and bool((counts >= 0).all()) and len(rho) >= pairs
    sound = sound and len(weights) == (classes - 1) * total
    if not sound or max(total, classes) * pairs > _MOST_SUMS:
        return None
    kernel = _kernel_of(node, total, width)
    data = None if kernel is None else _kernel(write, write.as_float(value), kernel)
    if data is None:
        return None
    sums, wins, losses = _machines(weights.reshape(classes - 1, total), counts)
    scores = write.op(
        "Gemm", data, write.constant(sums, "weight"), write.constant(rho[:pairs], "rho")
    )
    won = write.cast(write.op("Greater", scores, write.number(0, "zero")), "FLOAT")
    votes = write.op(
        "Gemm",
        won,
        write.constant(wins - losses, "votes"),
        write.constant(losses.sum(axis=0), "others"),
    )
    label = write.labels(write.op("ArgMax", votes, axis=1, keepdims=0), labels)
    if classes == 2:
        return {0: label, 1: both_scores(write, scores, transform, negated=True)}
    done = finish_scores(write, scores, pairs, transform)
    return {0: label, 1: done if done is not scores else write.op("Identity", scores)}


def _liblinear(
    write: Writer,
    value: ir.Value,
    labels: np.ndarray,
    numbers: tuple[np.ndarray, np.ndarray],
    transform: str,
) -> Lowered:
    """Lower a machine without support vectors, of more than two classes: one score for each.

    Of two classes onnxruntime chooses by rules of its own, which are left to it.
    """
    import numpy as np

    (weights, rho), classes = numbers, len(labels)
    width = None if value.shape is None else value.shape[1]
    if classes < 3 or not isinstance(width, int) or len(rho) < 1:
        return None
    if len(weights) != classes * width:
        return None
    scores = write.op(
        "Gemm",
        write.as_float(value),
        write.constant(weights.reshape(classes, width), "weight"),
        write.constant(np.repeat(rho[:1], classes), "rho"),
        transB=1,
    )
    label = write.labels(write.op("ArgMax", scores, axis=1, keepdims=0), labels)
    done = finish_scores(write, scores, classes, transform)
    return {0: label, 1: done if done is not scores else write.op("Identity", scores)}


def _machines(
    weights: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Spread the weights over the machines of every two classes.

    Returns:
        The matrix from kernel values to the machines' sums, and for each machine, as rows of 0
        and 1, the class that wins where the sum is above 0 and the one that wins elsewhere.
    """
    import numpy as np

    classes, total = len(counts), int(counts.sum())
    pairs = classes * (classes - 1) // 2
    starts = np.concatenate([[0], np.cumsum(counts)])
    sums = np.zeros((total, pairs), np.float32)
    wins, losses = np.zeros((2, pairs, classes), np.float32)
    machine = 0
    for i in range(classes - 1):
        for j in range(i + 1, classes):
            mine, theirs = slice(*starts[i : i + 2]), slice(*starts[j : j + 2])
            sums[mine, machine] = weights[j - 1, mine]
            sums[theirs, machine] = weights[i, theirs]
            wins[machine, i] = losses[machine, j] = 1
            machine += 1
    return sums, wins, losses


def _kernel_of(node: ir.Node, count: int, width: int) -> _Kernel | None:
    import numpy as np

    kind, params = text(node, "kernel_type", "LINEAR"), float_array(node, "kernel_params")
    vectors = float_array(node, "support_vectors")
    if len(vectors) != count * width or kind not in ("LINEAR", "POLY", "RBF", "SIGMOID"):
        return None
    if len(params) not in (0, 3) or not np.isfinite(vectors).all():
        return None
    gamma, coef0, degree = params.tolist() if len(params) else (0.0, 0.0, 0.0)
    return _Kernel(kind, gamma, coef0, degree, vectors.reshape(count, width))


def _kernel(write: Writer, value: ir.Value, kernel: _Kernel) -> ir.Value | None:
    """Write the kernel of every row of ``value`` with every support vector."""
    if kernel.kind == "RBF":
        return _rbf(write, value, kernel)
    vectors = kernel.vectors if kernel.kind == "LINEAR" else kernel.vectors * kernel.gamma
    shift = 0.0 if kernel.kind == "LINEAR" else kernel.coef0
    product = _times(write, value, vectors, shift)
    if kernel.kind == "SIGMOID":
        return write.op("Tanh", product)
    if kernel.kind == "LINEAR":
        return product
    if kernel.degree in (2.0, 3.0):
        square = write.op("Mul", product, product)
        return square if kernel.degree == 2.0 else write.op("Mul", square, product)
    return write.op("Pow", product, write.number(kernel.degree, "degree"))


def _times(write: Writer, value: ir.Value, vectors: np.ndarray, shift: float) -> ir.Value:
    import numpy as np

    bias = np.full(len(vectors), shift, np.float32)
    return write.op(
        "Gemm",
        value,
        write.constant(vectors.astype(np.float32), "vectors"),
        write.constant(bias, "shift"),
        transB=1,
    )


def _rbf(write: Writer, value: ir.Value, kernel: _Kernel) -> ir.Value | None:
    import numpy as np

    if not kernel.gamma >= 0:
        return None
    exact = kernel.vectors.astype(np.float64)
    middle = exact.mean(axis=0).astype(np.float32)
    moved = exact - middle
    norms = (moved**2).sum(axis=1)
    # a row near a support vector is as far from the middle; one far from all gives no kernel
    lost = 4 * kernel.gamma * float(norms.max()) * float(np.finfo(np.float32).eps)
    if lost <= _EXPONENT_ERROR:
        data = write.op("Sub", value, write.constant(middle, "middle"))
        squares = write.over("ReduceSum", write.op("Mul", data, data), (1,), keepdims=1)
        near = write.op(
            "Gemm",
            data,
            write.constant((2 * kernel.gamma * moved).astype(np.float32), "vectors"),
            write.constant((-kernel.gamma * norms).astype(np.float32), "norms"),
            transB=1,
        )
        far = write.op("Mul", squares, write.number(kernel.gamma, "gamma"))
        return write.op("Exp", write.op("Sub", near, far))
    if kernel.vectors.size > _MOST_DIFFERENCES:
        return None
    rows = write.over("Unsqueeze", value, (1,))
    apart = write.op("Sub", rows, write.constant(kernel.vectors[np.newaxis], "vectors"))
    squares = write.over("ReduceSum", write.op("Mul", apart, apart), (2,), keepdims=0)
    return write.op("Exp", write.op("Mul", squares, write.number(-kernel.gamma, "gamma")))
