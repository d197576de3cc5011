"""What estimators do to their scores at the end, as onnxruntime does it.

A single score is a case of its own there: nothing but PROBIT is done to it, and where there are
two classes it becomes two numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgesdk.model.classical.writing import Writer

__all__ = ["TRANSFORMS", "both_scores", "finish_scores"]

TRANSFORMS = ("NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO", "PROBIT")
#: SOFTMAX_ZERO takes a score for 0 up to here.
_ZERO = 1e-7
#: Of the approximation of the inverse error function (S. Winitzki, 2008).
_ERF_A = 0.147
_PI = 3.14159
_SQRT2 = 1.41421356


def finish_scores(write: Writer, scores: ir.Value, count: int, transform: str) -> ir.Value:
    """Write what ``transform`` does to ``count`` scores a row."""
    if transform == "PROBIT":
        return _probit(write, scores)
    if count == 1 or transform == "NONE":
        return scores
    if transform == "LOGISTIC":
        return write.op("Sigmoid", scores)
    if transform == "SOFTMAX":
        return write.op("Softmax", scores, axis=1)
    return _softmax_zero(write, scores)


def both_scores(write: Writer, score: ir.Value, *, negated: bool) -> ir.Value:
    """Make two columns of the second class's score: its opposite, or what it lacks to 1."""
    if negated:
        return write.op("Concat", write.op("Neg", score), score, axis=1)
    return write.op("Concat", write.op("Sub", write.number(1, "one"), score), score, axis=1)


def _probit(write: Writer, scores: ir.Value) -> ir.Value:
    """Give the normal distribution's quantile, by the approximation that onnxruntime has."""
    one = write.number(1, "one")
    x = write.op("Sub", write.op("Mul", scores, write.number(2, "two")), one)
    log = write.op("Log", write.op("Mul", write.op("Sub", one, x), write.op("Add", one, x)))
    half = write.op("Mul", log, write.number(0.5, "half"))
    v = write.op("Add", half, write.number(2 / (_PI * _ERF_A), "shift"))
    inner = write.op("Mul", log, write.number(1 / _ERF_A, "factor"))
    root = write.op("Sqrt", write.op("Sub", write.op("Mul", v, v), inner))
    found = write.op("Sqrt", write.op("Sub", root, v))
    signed = write.op("Mul", write.op("Sign", x), found)
    return write.op("Mul", signed, write.number(_SQRT2, "sqrt2"))


def _softmax_zero(write: Writer, scores: ir.Value) -> ir.Value:
    """Give softmax over the scores that are not 0; those that are add nothing to the sum."""
    largest = write.over("ReduceMax", scores, (1,), keepdims=1)
    is_some = write.op("Greater", write.op("Abs", scores), write.number(_ZERO, "zero"))
    risen = write.op("Exp", write.op("Sub", scores, largest))
    rest = write.op("Mul", scores, write.op("Exp", write.op("Neg", largest)))
    counted = write.op("Mul", risen, write.cast(is_some, "FLOAT"))
    total = write.over("ReduceSum", counted, (1,), keepdims=1)
    return write.op("Div", write.op("Where", is_some, risen, rest), total)
