"""What onnxruntime makes of Q/DQ graphs: as many 8-bit kernels as were planned."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from edgesdk.errors import QuantizeError
from tests.unit.quantize.floats import named, reasons, samples, shipped, static
from tests.unit.quantize.modes import far, kernels, normal, ops

#: In float, whatever the runtime calls them once it has fused what it can.
FLOAT = {"Conv", "ConvTranspose", "FusedConv", "FusedGemm", "FusedMatMul", "Gemm", "MatMul"}
NO_KERNEL = "onnxruntime made no 8-bit kernel of it (seen in the graph that it runs)"

RESIDUAL = """residual (float[1, 3, 16, 16] x) => (float[1, 10] y)
{ a = Conv <pads = [1, 1, 1, 1]> (x, w0, b0)
  ar = Relu (a)
  d = Conv <pads = [1, 1, 1, 1], group = 8> (ar, wd)
  dr = Clip (d, lo, hi)
  e = Conv (dr, we)
  s = Add (e, ar)
  sr = Relu (s)
  p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (sr)
  g = GlobalAveragePool (p)
  f = Flatten (g)
  y = Gemm <transB = 1> (f, wg, bg) }"""
ATTENTION = """attention (float[2, 16, 32] x) => (float[2, 16, 32] y)
{ q = MatMul (x, wq)
  qb = Add (q, bq)
  k = MatMul (x, wk)
  v = MatMul (x, wv)
  qh = Reshape (qb, heads)
  kh = Reshape (k, heads)
  vh = Reshape (v, heads)
  qt = Transpose <perm = [0, 2, 1, 3]> (qh)
  kt = Transpose <perm = [0, 2, 3, 1]> (kh)
  vt = Transpose <perm = [0, 2, 1, 3]> (vh)
  a = MatMul (qt, kt)
  as = Mul (a, small)
  p = Softmax <axis = -1> (as)
  o = MatMul (p, vt)
  ot = Transpose <perm = [0, 2, 1, 3]> (o)
  oj = Reshape (ot, joined)
  r = MatMul (oj, wo)
  rx = Add (x, r)
  n = LayerNormalization <axis = -1> (rx, gain, shift)
  f = MatMul (n, w1)
  fb = Add (f, b1)
  u = Div (fb, root)
  er = Erf (u)
  eo = Add (er, one)
  m = Mul (fb, eo)
  gelu = Mul (m, half)
  h = MatMul (gelu, w2)
  y = Add (h, n) }"""


def _residual() -> ir.Model:
    return named(
        RESIDUAL,
        {
            "w0": normal(8, 3, 3, 3) / 5,
            "b0": normal(8),
            "wd": normal(8, 1, 3, 3) / 3,
            "we": normal(8, 8, 1, 1) / 3,
            "lo": np.array(0, "f4"),
            "hi": np.array(6, "f4"),
            "wg": normal(10, 8),
            "bg": normal(10),
        },
    )


def _attention() -> ir.Model:
    dense = {f"w{n}": normal(32, 32, seed=ord(n)) / 6 for n in "qkvo"}
    return named(
        ATTENTION,
        {
            **dense,
            "bq": normal(32),
            "heads": np.array([0, 0, 4, 8]),
            "joined": np.array([0, 0, 32]),
            "small": np.array(0.35, "f4"),
            "gain": np.abs(normal(32)),
            "shift": normal(32),
            "w1": normal(32, 64) / 6,
            "b1": normal(64),
            "root": np.array(2**0.5, "f4"),
            "one": np.array(1, "f4"),
            "half": np.array(0.5, "f4"),
            "w2": normal(64, 32) / 8,
        },
    )


def _dense() -> ir.Model:
    text = """dense (float[4, 16] x) => (float[4, 8] y)
    { h = MatMul (x, w)
      hb = Add (h, b)
      r = Relu (hb)
      y = Gemm <alpha = 0.5, transB = 1> (r, v, c) }"""
    weights = {"w": normal(16, 16), "b": normal(16), "v": normal(8, 16), "c": normal(8)}
    return named(text, weights)


GRAPHS = {"residual": (_residual, 4), "attention": (_attention, 8), "dense": (_dense, 2)}


def _in_eight_bits(found: Counter[str]) -> int:
    """Count kernels that multiply whole numbers."""
    wanted = ("QLinearConv", "QLinearMatMul", "MatMulIntegerToFloat", "QGemm")
    return sum(found[op] for op in wanted)


@pytest.mark.parametrize("name", GRAPHS)
def test_every_node_that_computes_runs_in_an_eight_bit_kernel(
    name: str, tmp_path: Path
) -> None:
    build, planned = GRAPHS[name]
    model = build()
    done = static(model)
    assert done.kernels == (planned, planned)
    found = kernels(done.model, tmp_path)
    assert _in_eight_bits(found) == planned
    assert FLOAT.isdisjoint(found)
    assert far(model, done.model, **samples(model)[0]) < 0.05


@pytest.mark.parametrize("name", GRAPHS)
def test_int8_activations_are_counted_as_arm_runs_them(name: str) -> None:
    build, planned = GRAPHS[name]
    model = build()
    done = static(model, shipped("onnxruntime-cpu", "int8-asymmetric"))
    assert done.kernels == (planned, planned)
    assert far(model, done.model, **samples(model)[0]) < 0.05


def test_a_residual_network_converts_at_its_ends_only(tmp_path: Path) -> None:
    found = kernels(static(_residual()).model, tmp_path)
    assert (found["QuantizeLinear"], found["DequantizeLinear"]) == (1, 0)


@pytest.mark.parametrize("shape", ["float[1, 8, 4]", "float[2, 3, 8, 4]"])
def test_a_constant_on_the_left_of_a_product_gets_a_kernel(shape: str, tmp_path: Path) -> None:
    text = f"left ({shape} x) => ({shape} y) {{ y = MatMul (w, x) }}"
    model = named(text, {"w": normal(8, 8)})
    done = static(model)
    assert done.kernels == (1, 1)
    assert _in_eight_bits(kernels(done.model, tmp_path)) == 1
    assert far(model, done.model, **samples(model)[0]) < 0.05


# A Relu behind symmetric activations does not vanish, so nothing fuses over it.
STUCK = """stuck (float[1, 4, 8, 8] x) => (float[1, 4, 8, 8] y)
{ c = Conv <pads = [1, 1, 1, 1]> (x, w)
  r = Relu (c)
  y = Conv <pads = [1, 1, 1, 1]> (r, w) }"""


def test_what_cannot_fuse_goes_back_to_float_with_the_reason(tmp_path: Path) -> None:
    model = named(STUCK, {"w": normal(4, 4, 3, 3)})
    done = static(model, shipped("onnxruntime-cpu", "int8-symmetric"))
    assert reasons(done) == dict.fromkeys(("c", "r"), NO_KERNEL)
    assert done.kernels == (1, 1)
    assert [finding.code for finding in done.findings] == ["few-samples"]
    first = next(node for node in done.model.graph if node.name == "c")
    weight = first.inputs[1]
    assert weight is not None
    assert weight.producer() is None  # no weight of its is stored in 8 bits
    assert ops(done.model)["Conv"] == 2


def test_a_graph_of_which_nothing_fuses_is_refused() -> None:
    text = STUCK.replace("y = Conv <pads = [1, 1, 1, 1]> (r, w)", "y = Neg (r)")
    with pytest.raises(QuantizeError) as caught:
        static(
            named(text, {"w": normal(4, 4, 3, 3)}), shipped("onnxruntime-cpu", "int8-symmetric")
        )
    assert str(caught.value).startswith(
        f"cannot quantize stuck: no node was quantized ({NO_KERNEL}"
    )
    assert caught.value.hint == "build with --precision fp32"


def test_kernels_of_other_runtimes_are_not_counted() -> None:
    assert static(_dense(), "litert-int8").kernels is None
    assert static(_dense(), runtime="litert").kernels is None
