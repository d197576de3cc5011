"""Every single-operator case of the onnx package: refused with a reason, or the same numbers.

Whatever the rules take has to lower, load in LiteRT with its CPU delegate and without, and give
the answers that come with the case: within 1e-4 of the largest value, integers exactly. How
many cases of each operator get that far is counted, so that refusing everything fails too.
"""

from __future__ import annotations

import pytest

from tests.unit.backends.litert.lowering import LiteRT, far, lower
from tests.unit.backends.litert.onnx_cases import OnnxCase, cases_by_op

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

_NEAR = 1e-4
#: Answers that the package states with four digits.
_ROUNDED = {"test_averagepool_2d_ceil_last_window_starts_on_pad"}
#: At least so many cases of the operator lower.
LOWERED: dict[str, int] = {
    "(expanded)": 77,
    "Abs": 1,
    "Acosh": 2,
    "Add": 2,
    "And": 8,
    "ArgMax": 8,
    "ArgMin": 8,
    "Asinh": 2,
    "Atanh": 2,
    "AveragePool": 12,
    "BatchNormalization": 2,
    "Cast": 4,
    "Ceil": 2,
    "Celu": 2,
    "Clip": 9,
    "Concat": 12,
    "Constant": 1,
    "ConstantOfShape": 2,
    "Conv": 6,
    "ConvTranspose": 9,
    "Cos": 2,
    "Cosh": 2,
    "CumSum": 9,
    "DepthToSpace": 2,
    "DequantizeLinear": 1,
    "Div": 4,
    "Dropout": 5,
    "Einsum": 4,
    "Elu": 3,
    "Equal": 2,
    "Erf": 1,
    "Exp": 2,
    "Expand": 2,
    "Flatten": 9,
    "Floor": 2,
    "GRU": 6,
    "Gather": 8,
    "GatherElements": 3,
    "GatherND": 4,
    "Gelu": 4,
    "Gemm": 22,
    "GlobalAveragePool": 2,
    "GlobalMaxPool": 2,
    "Greater": 2,
    "GreaterOrEqual": 2,
    "GroupNormalization": 4,
    "HardSigmoid": 3,
    "HardSwish": 1,
    "Identity": 3,
    "InstanceNormalization": 4,
    "IsInf": 4,
    "IsNaN": 2,
    "LRN": 2,
    "LSTM": 6,
    "LayerNormalization": 38,
    "LeakyRelu": 3,
    "Less": 2,
    "LessOrEqual": 2,
    "Log": 2,
    "LogSoftmax": 7,
    "LpNormalization": 6,
    "MatMul": 7,
    "Max": 8,
    "MaxPool": 12,
    "Mean": 3,
    "Min": 8,
    "Mish": 1,
    "Mod": 3,
    "Mul": 3,
    "Neg": 2,
    "Not": 3,
    "OneHot": 5,
    "Or": 8,
    "PRelu": 4,
    "Pad": 6,
    "Pow": 6,
    "QuantizeLinear": 1,
    "RMSNormalization": 38,
    "RNN": 6,
    "Range": 3,
    "Reciprocal": 2,
    "ReduceL1": 8,
    "ReduceL2": 8,
    "ReduceLogSum": 4,
    "ReduceLogSumExp": 8,
    "ReduceMax": 8,
    "ReduceMean": 8,
    "ReduceMin": 8,
    "ReduceProd": 8,
    "ReduceSum": 10,
    "ReduceSumSquare": 8,
    "Relu": 1,
    "Reshape": 18,
    "Resize": 29,
    "Round": 1,
    "Selu": 3,
    "Shape": 10,
    "Shrink": 2,
    "Sigmoid": 2,
    "Sign": 1,
    "Sin": 2,
    "Sinh": 2,
    "Size": 2,
    "Slice": 7,
    "Softmax": 7,
    "Softplus": 2,
    "Softsign": 2,
    "SpaceToDepth": 4,
    "Split": 14,
    "Sqrt": 2,
    "Squeeze": 4,
    "Sub": 3,
    "Sum": 3,
    "Swish": 1,
    "Tan": 2,
    "Tanh": 2,
    "ThresholdedRelu": 3,
    "Tile": 2,
    "TopK": 5,
    "Transpose": 7,
    "Trilu": 16,
    "Unsqueeze": 14,
    "Upsample": 1,
    "Where": 2,
    "Xor": 8,
}


def _judge(case: OnnxCase) -> bool:
    """Say whether a case was lowered; fail where it was, and is wrong."""
    made = lower(case.model)
    if isinstance(made, dict):
        known = {value.name for node in case.model.graph for value in node.outputs}
        assert made, f"{case.name}: refused without a word"
        assert all(reason.strip() for reason in made.values()), f"{case.name}: {made}"
        assert set(made) <= known, f"{case.name}: {made} are no outputs of its nodes"
        return False
    for plain in (False, True):
        answers = LiteRT(made, plain=plain).run(case.inputs)
        assert set(answers) == set(case.wanted), case.name
        for name, wanted in case.wanted.items():
            off = far(answers[name], wanted)
            assert off <= (1e-3 if case.name in _ROUNDED else _NEAR), (
                f"{case.name}: {name} is off by {off:g} (plain: {plain})"
            )
    return True


@pytest.mark.parametrize("op", cases_by_op())
def test_what_is_taken_gives_the_answers_that_come_with_it(op: str) -> None:
    lowered = sum(_judge(case) for case in cases_by_op()[op])
    assert lowered >= LOWERED.get(op, 0)


def test_operators_with_a_floor_exist() -> None:
    assert set(LOWERED) <= set(cases_by_op())
