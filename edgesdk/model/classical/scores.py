"""What estimators do to their scores at the end, as onnxruntime does it.

A single score is a case of its own there: where there are two classes it becomes two numbers,
else nothing is done to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgesdk.model.classical.writing import Writer

__all__ = ["TRANSFORMS", "both_scores", "finish_scores"]

#: PROBIT is left out: onnxruntime's approximation of it loses three digits in places, so
#: nothing that rounds otherwise gives the same.
TRANSFORMS = ("NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO")
#: SOFTMAX_ZERO takes a score for 0 up to here.
_ZERO = 1e-7


def finish_scores(write: Writer, scores: ir.Value, count: int, transform: str) -> ir.Value:
    """Write what ``transform`` does to ``count`` scores a row."""
    if count == 1 or transform == "NONE":
        return scores
    if transform == "LOGISTIC":
        return write.op("Sigmoid", scores)
    if transform == "SOFTMAX":
        return write.op("Softmax", scores, axis=1)
    return _softmax_zero(write, scores)


def both_scores(write: Writer, score: ir.Value, transform: str, *, negated: bool) -> ir.Value:
    """Make two columns of the second class's score.

    The first is its opposite where there is no transform and ``negated`` says so, else what the
    second lacks to 1; with LOGISTIC both are chances.
    """
    if transform == "LOGISTIC":
        both = write.op("Concat", write.op("Neg", score), score, axis=1)
        return write.op("Sigmoid", both)
    if negated and transform == "NONE":
        return write.op("Concat", write.op("Neg", score), score, axis=1)
    return write.op("Concat", write.op("Sub", write.number(1, "one"), score), score, axis=1)


def _softmax_zero(write: Writer, scores: ir.Value) -> ir.Value:
    """Give softmax over the scores that are not 0; those that are add nothing to the sum."""
    largest = write.over("ReduceMax", scores, (1,), keepdims=1)
    is_some = write.op("Greater", write.op("Abs", scores), write.number(_ZERO, "zero"))
    risen = write.op("Exp", write.op("Sub", scores, largest))
    rest = write.op("Mul", scores, write.op("Exp", write.op("Neg", largest)))
    counted = write.op("Mul", risen, write.cast(is_some, "FLOAT"))
    total = write.over("ReduceSum", counted, (1,), keepdims=1)
    return write.op("Div", write.op("Where", is_some, risen, rest), total)
