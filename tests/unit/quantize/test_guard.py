"""What stays in float is computed in float by the runtime too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from edgesdk.model import fit_opset
from edgesdk.quantize.host import HostSession
from edgesdk.quantize.prepare import without_qdq
from edgesdk.quantize.values import Quantized
from tests.unit.quantize.floats import named, nodes, samples, shipped, static
from tests.unit.quantize.modes import kernels, normal

#: One scale for all weights would leave nothing of the middle layer.
RUINED = normal(8, 8, 1, 1, seed=2)
RUINED[1, 0] = 4000.0
WEIGHTS = {
    "u": normal(8, 8, 1, 1),
    "w": RUINED,
    "v": normal(8, 8, 1, 1, seed=3),
    "b": normal(8),
}
ACTIVATIONS = {
    "": "m = Conv (a, w, b)",
    "Relu": "c = Conv (a, w, b) m = Relu (c)",
    "Clip": "c = Conv (a, w, b) m = Clip (c, zero, lots)",
}
BOUNDS = {"zero": np.array(0, np.float32), "lots": np.array(1e6, np.float32)}


def sandwich(middle: str) -> ir.Model:
    weights = {**WEIGHTS, "u": WEIGHTS["u"].copy()}
    weights["u"][0] = 0.0  # so the weight that sticks out reads zeros
    return named(
        "n (float[1, 8, 6, 6] x) => (float[1, 8, 6, 6] y)"
        f"{{ a = Conv (x, u) {ACTIVATIONS[middle]} y = Conv (m, v) }}",
        {**weights, **BOUNDS},
    )


def noise(done: Quantized, model: ir.Model, optimize: str) -> float:
    sample = samples(model, 1)[0]
    wanted = HostSession(model).run(sample)["y"]
    got = HostSession(done.model, optimize=optimize).run(sample)["y"]
    return float(((got - wanted) ** 2).sum() / (wanted**2).sum())


@pytest.mark.parametrize("middle", ACTIVATIONS)
@pytest.mark.parametrize("optimize", ["off", "extended", "all"])
def test_a_kernel_between_eight_bits_stays_in_float(middle: str, optimize: str) -> None:
    model = sandwich(middle)
    names = ("m", "c")
    done = static(model, keep_float=names)
    assert noise(done, model, optimize) < 1e-3


def test_the_runtime_makes_no_whole_numbers_of_it(tmp_path: Path) -> None:
    done = static(sandwich("Relu"), keep_float=("m", "c"))
    made = kernels(done.model, tmp_path)
    assert made["QLinearConv"] == 2
    assert made["Conv"] + made["FusedConv"] == 1


def test_a_fully_connected_one_stays_in_float_too() -> None:
    wide = normal(8, 8, seed=2)
    wide[0, 1] = 4000.0
    model = named(
        "n (float[4, 8] x) => (float[4, 8] y)"
        "{ a = Gemm (x, u, z) m = Gemm (a, w, b) y = Gemm (m, v, b) }",
        {
            "u": normal(8, 8) * (np.arange(8) > 0).astype(np.float32),
            "w": wide,
            "v": normal(8, 8, seed=3),
            "b": normal(8),
            "z": np.zeros(8, np.float32),
        },
    )
    done = static(model, keep_float=("m",))
    assert noise(done, model, "all") < 1e-3


def test_readers_of_one_tensor_share_what_parts_them() -> None:
    model = named(
        "n (float[1, 8, 6, 6] x) => (float[1, 8, 6, 6] y, float[1, 8, 6, 6] z)"
        "{ a = Conv (x, u) m = Conv (a, w) k = Conv (a, v) y = Conv (m, v) z = Conv (k, v) }",
        WEIGHTS,
    )
    done = static(model, keep_float=("m", "k"))
    assert len(nodes(done.model, "Sum")) == 1


@pytest.mark.parametrize("rules", ["openvino", "tensorrt", "litert-int8", "edgetpu"])
def test_other_runtimes_leave_float_alone_and_need_nothing(rules: str) -> None:
    assert not nodes(static(sandwich("Relu"), rules, keep_float=("m", "c")).model, "Sum")


def test_nothing_stands_between_whole_kernels() -> None:
    assert not nodes(static(sandwich("Relu")).model, "Sum")


def test_it_goes_when_the_graph_is_read_back() -> None:
    done = static(sandwich("Relu"), keep_float=("m", "c"))
    back = without_qdq(done.model)
    assert [node.op_type for node in back.graph] == ["Conv", "Conv", "Relu", "Conv"]


def test_biases_beside_16_bits_survive_the_runtime() -> None:
    """It stores them in 32 bits of its own accord, in steps that a dead channel makes tiny."""
    weight, bias = normal(8, 8, 3, 3), np.full(8, 3.0, np.float32)
    weight[2] *= 1e-9
    weight[5] = 0.0
    model = named(
        "n (float[1, 8, 6, 6] x) => (float[1, 8, 2, 2] y)"
        "{ a = Conv (x, w, b) y = Conv (a, v) }",
        {"w": weight, "b": bias, "v": normal(8, 8, 3, 3, seed=4)},
    )
    scheme = shipped("onnxruntime-cpu", activations="int16-symmetric")
    fitted = fit_opset(model, lowest=21, highest=None, max_ir=None)
    done = static(fitted, scheme, precision="int16x8")
    for optimize in ("off", "all"):
        assert noise(done, model, optimize) < 1e-4
