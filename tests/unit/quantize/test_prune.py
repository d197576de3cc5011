"""Pruning keeps its pattern, refits what stays, makes channels go for real, and is honest."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesdk.errors import QuantizeError, RecipeError
from edgesdk.quantize._sparse import by_magnitude, prune_rows
from edgesdk.quantize.prune import (
    Pruned,
    PruneSpec,
    parse_prune,
    prune,
    speed_finding,
)
from edgesdk.quantize.rounding import output_error

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[N, 4, 16, 16] x) => (float[N, 5] y)
<float[32, 4, 3, 3] w1, float[32] b1, float[32, 1, 3, 3] w2, float[32] b2,
 float[24, 32, 1, 1] w3, float[24, 24, 3, 3] w4, float[24] b4, float[24, 5] w5, float[5] b5>
{
    [stem] a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
    a2 = Relu (a)
    [depthwise] b = Conv <pads = [1, 1, 1, 1], group = 32> (a2, w2, b2)
    b2r = Relu (b)
    [point] c = Conv (b2r, w3)
    c2 = Relu (c)
    p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (c2)
    [wide] d = Conv <pads = [1, 1, 1, 1]> (p, w4, b4)
    d2 = Relu (d)
    g = GlobalAveragePool (d2)
    f = Flatten (g)
    [head] y = Gemm (f, w5, b5)
}
"""


def _model(text: str = TEXT, rank: int = 0) -> ir.Model:
    """Fill in seeded weights; with a rank, those of 1x1 convs have no more than it."""
    proto = onnx.parser.parse_model(text)
    random = np.random.default_rng(7)
    for declared in proto.graph.value_info:
        shape = [extent.dim_value for extent in declared.type.tensor_type.shape.dim]
        fan = max(math.prod(shape[1:]), 1) if len(shape) > 2 else shape[0]
        values = random.standard_normal(shape) * math.sqrt(2 / fan)
        if rank and len(shape) == 4 and shape[1] > 1:
            flat = values.reshape(shape[0], -1)
            left, sizes, right = np.linalg.svd(flat, full_matrices=False)
            values = ((left[:, :rank] * sizes[:rank]) @ right[:rank]).reshape(shape)
        proto.graph.initializer.append(
            onnx.numpy_helper.from_array(values.astype(np.float32), declared.name)
        )
    del proto.graph.value_info[:]
    return ir.serde.deserialize_model(proto)


def _samples(count: int = 24, shape: tuple[int, ...] = (1, 4, 16, 16)) -> list[dict[str, Any]]:
    random = np.random.default_rng(2)
    found = []
    for _ in range(count):
        image = random.standard_normal(shape)
        for axis in range(2, len(shape)):  # neighbours are alike, as in pictures
            image = image + 0.7 * np.roll(image, 1, axis=axis)
        image[:, 1] += 0.8 * image[:, 0]
        found.append({"x": image.astype(np.float32)})
    return found


def _run(model: ir.Model, samples: list[dict[str, Any]]) -> np.ndarray:
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    data = ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, sample)[0] for sample in samples])


def _weight(model: ir.Model, name: str) -> np.ndarray:
    (node,) = [node for node in model.graph if node.name == name]
    value = node.inputs[1]
    assert value is not None
    assert value.const_value is not None
    return value.const_value.numpy()


def _noise(done: Pruned, text: str = TEXT, rank: int = 0) -> float:
    """Error over energy at the output, on samples that nothing was fitted to."""
    fresh = _samples(40)[24:]
    before, after = _run(_model(text, rank), fresh), _run(done.model, fresh)
    return float(((after - before) ** 2).sum() / ((before - before.mean(axis=0)) ** 2).sum())


def test_two_of_four_neighbouring_input_channels_are_zero_everywhere() -> None:
    done = prune(_model(), _samples(), pattern="2:4")
    names = {layer.name for layer in done.layers}
    assert names == {"stem", "point", "wide", "head"}
    for name in ("stem", "point", "wide"):
        weight = _weight(done.model, name)
        fours = weight.reshape(len(weight), -1, 4, *weight.shape[2:])
        assert ((fours != 0).sum(axis=2) == 2).all()
    assert ((_weight(done.model, "head").reshape(-1, 4, 5) != 0).sum(axis=1) == 2).all()
    assert {(left.name, left.reason) for left in done.left} == {
        ("depthwise", "it reduces over 1 channels (2:4 needs a multiple of 4)")
    }
    for layer in done.layers:
        assert layer.sparsity == 0.5
        assert layer.error_after < layer.error_before


def test_a_sparse_gemm_is_pruned_along_what_it_reduces_over_both_ways_round() -> None:
    for node, shape in (("Gemm (x, w)", "8, 3"), ("Gemm <transB = 1> (x, w)", "3, 8")):
        text = f"""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[N, 8] x) => (float[N, 3] y) <float[{shape}] w> {{ [it] y = {node} }}
        """
        done = prune(_model(text), _samples(shape=(4, 8)), pattern="2:4")
        weight = _weight(done.model, "it")
        rows = weight if "transB" in node else weight.T
        assert ((rows.reshape(3, 2, 4) != 0).sum(axis=2) == 2).all()


def test_unstructured_reaches_its_share_and_spares_what_matters() -> None:
    done = prune(_model(), _samples(), pattern="unstructured", sparsity=0.6)
    sizes = {layer.name: _weight(done.model, layer.name).size for layer in done.layers}
    zeros = sum(layer.sparsity * sizes[layer.name] for layer in done.layers)
    assert zeros / sum(sizes.values()) == pytest.approx(0.6, abs=0.01)
    shares = {layer.name: layer.sparsity for layer in done.layers}
    assert shares.keys() == {"stem", "point", "wide", "head"}
    assert max(shares["stem"], shares["head"]) <= 0.61  # the ends are spared
    assert min(shares.values()) >= 0.47
    assert [left.reason for left in done.left] == [
        "it is depthwise: few weights, and none to make up for another's loss"
    ]
    for layer in done.layers:
        assert layer.error_after <= layer.error_before


@pytest.mark.parametrize("pattern", ["2:4", "unstructured"])
def test_refitted_outputs_are_nearer_than_those_of_the_largest_weights_alone(
    pattern: Any,
) -> None:
    done = prune(_model(), _samples(), pattern=pattern, sparsity=0.5)
    plain = done.model.clone()
    for layer in done.layers:
        for node in plain.graph:
            if node.name != layer.name:
                continue
            weight = _weight(_model(), layer.name)
            value = node.inputs[1]
            assert value is not None
            if pattern == "2:4":
                turned = weight.T if weight.ndim == 2 else np.moveaxis(weight, 1, -1)
                rows = by_magnitude(turned.reshape(-1, turned.shape[-1]), sparsity="2:4")
                back = rows.reshape(turned.shape)
                weight = back.T if weight.ndim == 2 else np.moveaxis(back, -1, 1)
            else:
                flat = weight.reshape(len(weight), -1)
                weight = by_magnitude(flat, sparsity=layer.sparsity).reshape(weight.shape)
            value.const_value = ir.Tensor(np.ascontiguousarray(weight), name=value.name)
    without = Pruned(
        model=plain,
        layers=done.layers,
        left=(),
        before=done.before,
        after=done.after,
        findings=(),
    )
    assert _noise(done) < 0.7 * _noise(without)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_layer_is_worse_than_by_magnitude(data: st.DataObject) -> None:
    groups, fours = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 4))
    random = np.random.default_rng(data.draw(st.integers(0, 1 << 30)))
    width, rows = 4 * fours, groups * data.draw(st.integers(1, 4))
    x = random.standard_normal((groups, data.draw(st.integers(1, 30)), width))
    x *= random.random((groups, 1, width)) < data.draw(st.sampled_from([0.0, 0.7, 1.0]))
    second = x.transpose(0, 2, 1) @ x
    weight = random.standard_normal((rows, width))
    sparsity = data.draw(st.sampled_from(["2:4", 0.1, 0.5, 0.9]))
    done = prune_rows(weight, second, sparsity=sparsity)
    plain = by_magnitude(weight, sparsity=sparsity)
    lost = output_error(weight - done, second).sum()
    assert lost <= output_error(weight - plain, second).sum() * (1 + 1e-9) + 1e-12
    assert (done == 0).sum() >= (plain == 0).sum()
    if sparsity == "2:4":
        assert ((done.reshape(rows, -1, 4) != 0).sum(axis=2) <= 2).all()


def test_channels_that_others_can_replace_go_without_a_trace() -> None:
    """Convs of low rank: half of their channels are mixtures of the others."""
    text = TEXT.replace("Relu", "Identity").replace("MaxPool", "AveragePool")
    done = prune(_model(text, rank=6), _samples(), pattern="channels", sparsity=0.5, damp=1e-4)
    shrunk = {layer.name: layer for layer in done.layers}
    assert shrunk["wide"].error_after < 1e-4 < 0.1 < shrunk["wide"].error_before
    assert shrunk["point"].error_after < 1e-3 < 0.1 < shrunk["point"].error_before


def test_the_model_without_channels_is_smaller_runs_and_stays_close() -> None:
    model = _model()
    done = prune(model, _samples(), pattern="channels", sparsity=0.25)
    shrunk = {layer.name: layer for layer in done.layers}
    assert shrunk.keys() == {"stem", "point", "wide"}
    shapes = {name: _weight(done.model, name).shape for name in (*shrunk, "depthwise", "head")}
    assert shapes == {
        "stem": (24, 4, 3, 3),
        "depthwise": (24, 1, 3, 3),
        "point": (16, 24, 1, 1),
        "wide": (16, 16, 3, 3),
        "head": (16, 5),
    }
    assert [layer.sparsity for layer in done.layers] == pytest.approx([1 / 4, 1 / 3, 1 / 3])
    for layer in done.layers:
        assert layer.error_after < layer.error_before
    assert done.after.plain_bytes < 0.6 * done.before.plain_bytes
    assert done.after.compressed_bytes < done.before.compressed_bytes
    assert _noise(done) < 0.3


def test_a_quarter_of_the_channels_costs_less_than_dropping_the_smallest() -> None:
    done = prune(_model(), _samples(), pattern="channels", sparsity=0.25, keep=("wide",))
    assert {layer.name for layer in done.layers} == {"stem"}
    kept = np.argsort(-np.abs(_weight(_model(), "stem")).sum(axis=(1, 2, 3)))[:24]
    plain = _model()
    for node in plain.graph:
        for value in node.inputs[1:3] if node.name in ("stem", "depthwise") else ():
            assert value is not None
            assert value.const_value is not None
            value.const_value = ir.Tensor(value.const_value.numpy()[kept], name=value.name)
            value.shape = ir.Shape(value.const_value.shape)
        if node.name == "depthwise":
            node.attributes["group"] = ir.AttrInt64("group", 24)
        if node.name == "point":
            value = node.inputs[1]
            assert value is not None
            array = _weight(plain, "point")[:, kept]
            value.const_value = ir.Tensor(np.ascontiguousarray(array), name=value.name)
            value.shape = ir.Shape(array.shape)
    without = Pruned(
        model=plain,
        layers=done.layers,
        left=(),
        before=done.before,
        after=done.after,
        findings=(),
    )
    assert _noise(done) < 0.5 * _noise(without)


def test_shapes_inside_follow_the_channels() -> None:
    text = TEXT.replace("float[N, 4", "float[1, 4").replace("float[N, 5", "float[1, 5")
    proto = onnx.shape_inference.infer_shapes(ir.to_proto(_model(text)))
    done = prune(
        ir.serde.deserialize_model(proto), _samples(), pattern="channels", sparsity=0.5
    )
    shapes = {value.name: value.shape for node in done.model.graph for value in node.outputs}
    assert list(shapes["p"] or ()) == [1, 16, 8, 8]
    assert list(shapes["f"] or ()) == [1, 16]
    _run(done.model, _samples(2))


ENDS = {
    "Flatten, several positions": "f = Flatten (r) [end] y = Gemm (f, w2)",
    "Flatten, turned weights": "f = Flatten (r) [end] y = Gemm <transB = 1> (f, w3)",
    "Flatten, MatMul": "f = Flatten (r) [end] y = MatMul (f, w2)",
    "mean that keeps its axes": (
        "m = ReduceMean <axes = [2, 3]> (r) f = Flatten (m) [end] y = MatMul (f, w4)"
    ),
    "axes squeezed away": (
        "m = GlobalAveragePool (r) q = Squeeze (m, axes) [end] y = MatMul (q, w4)"
    ),
    "mean that drops its axes": (
        "m = ReduceMean <axes = [-1, -2], keepdims = 0> (r) [end] y = MatMul (m, w4)"
    ),
}


def _ended(end: str) -> str:
    return f"""
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N, 4, 4, 4] x) => (float[N, 3] y)
    <float[16, 4, 3, 3] w, float[64, 3] w2, float[3, 64] w3, float[16, 3] w4,
     int64[2] axes = {{2, 3}}>
    {{ [first] a = Conv (x, w) r = Relu (a) {end} }}
    """


def _with_shapes(end: str) -> ir.Model:
    proto = onnx.shape_inference.infer_shapes(ir.to_proto(_model(_ended(end))))
    return ir.serde.deserialize_model(proto)


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
def test_channels_are_found_again_behind_a_flattening(end: str) -> None:
    samples = _samples(200, (1, 4, 4, 4))
    done = prune(_with_shapes(end), samples, pattern="channels", sparsity=0.5)
    (layer,) = done.layers
    assert (layer.name, layer.sparsity) == ("first", 0.5)
    assert layer.error_after < layer.error_before
    before, after = (_run(model, samples) for model in (_with_shapes(end), done.model))
    lost = ((before - after) ** 2).sum() / (before**2).sum()
    assert lost == pytest.approx(layer.error_after, rel=0.1, abs=1e-6)


REFUSED = {
    "Add": ("b = Conv (x, w0) c = Add (a, b) y = Conv (c, v)", "Add '' behind it: it joins"),
    "Concat": ("c = Concat <axis = 1> (a, a) y = Conv (c, u)", "Concat '' behind it: it joins"),
    "output": ("z = Relu (a) y = Conv (z, v)", "'z' is an output of the model"),
    "groups": ("y = Conv <group = 2> (a, h)", "Conv '' behind it: it has groups of several"),
    "shared": ("y = Conv (a, v) z2 = Conv (a, v)", "Conv '' behind it: its weights are shared"),
    "transpose": (
        "t = Transpose <perm = [0, 1, 3, 2]> (a) y = Conv (t, v)",
        "Transpose '' behind it: it joins channels or changes their order",
    ),
    "matrix": ("y = MatMul (a, m)", "MatMul '' behind it: its columns are not these channels"),
    "softmax": (
        "s = Softmax <axis = 1> (a) y = Conv (s, v)",
        "Softmax '' behind it: it joins channels or changes their order",
    ),
}


@pytest.mark.parametrize(("body", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_channels_stay_where_not_every_user_can_follow(body: str, reason: str) -> None:
    outputs = "float[N, o, i, j] y" + (", float[N, p, k, l] z" if " z =" in f" {body}" else "")
    text = f"""
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N, 4, 8, 8] x) => ({outputs})
    <float[16, 4, 1, 1] w, float[16, 4, 1, 1] w0, float[8, 16, 1, 1] v, float[8, 32, 1, 1] u,
     float[8, 8, 1, 1] h, float[8, 3] m>
    {{ [first] a = Conv (x, w) {body} }}
    """
    with pytest.raises(QuantizeError, match="no layer takes it") as caught:
        prune(_model(text), _samples(2, (1, 4, 8, 8)), pattern="channels", sparsity=0.5)
    assert reason in str(caught.value)
    assert caught.value.hint == "leave pruning out, or try another pattern"


@pytest.mark.parametrize("pattern", ["2:4", "unstructured", "channels"])
def test_what_is_to_be_kept_stays_as_it_was(pattern: Any) -> None:
    done = prune(_model(), _samples(4), pattern=pattern, sparsity=0.5, keep=("wide",))
    assert np.array_equal(_weight(done.model, "wide"), _weight(_model(), "wide"))
    assert {left.reason for left in done.left if left.name == "wide"} == {"it is to be kept"}


def test_keeping_every_layer_leaves_nothing_to_prune() -> None:
    with pytest.raises(QuantizeError) as caught:
        prune(_model(), _samples(4), pattern="2:4", keep=("Conv", "Gemm"))
    assert str(caught.value) == (
        "cannot prune net by 2:4: no layer takes it (it is to be kept)"
    )
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("pattern", ["2:4", "unstructured", "channels"])
def test_the_model_that_was_given_is_not_changed_and_runs_are_alike(pattern: Any) -> None:
    model = _model()
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    first, again = (prune(model, _samples(4), pattern=pattern, sparsity=0.5) for _ in range(2))
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
    one, other = (ir.to_proto(done.model).SerializeToString() for done in (first, again))
    assert one == other


def test_layers_that_lost_much_are_named() -> None:
    done = prune(_model(), _samples(), pattern="unstructured", sparsity=0.9)
    (finding,) = done.findings
    worst = max(done.layers, key=lambda layer: layer.error_after)
    assert (finding.code, finding.subject) == ("pruning-lost-much", worst.name)
    assert repr(worst.name) in finding.message


def test_zeros_pack_better_and_no_zero_makes_a_file_smaller() -> None:
    done = prune(_model(), _samples(4), pattern="unstructured", sparsity=0.7)
    gained = 4 * 24  # the bias that the one convolution without had to get
    assert done.after.plain_bytes == done.before.plain_bytes + gained
    assert done.after.compressed_bytes < 0.7 * done.before.compressed_bytes


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("2:4", PruneSpec(pattern="2:4", sparsity=0.5)),
        ("unstructured:0.7", PruneSpec(pattern="unstructured", sparsity=0.7)),
        (" Channels:0.3 ", PruneSpec(pattern="channels", sparsity=0.3)),
    ],
)
def test_a_recipe_says_how_to_prune_in_a_word(text: str, spec: PruneSpec) -> None:
    assert parse_prune(text) == spec
    assert parse_prune(spec.text) == spec


@pytest.mark.parametrize(
    ("text", "problem", "hint"),
    [
        ("chanels:0.3", "there is no such pattern", "did you mean channels?"),
        ("4:2", "there is no such pattern", "write 2:4, unstructured:0.5 or channels:0.3"),
        ("", "there is no such pattern", "write 2:4, unstructured:0.5 or channels:0.3"),
        ("channels", "it does not say how much", "0.5 removes half: channels:0.5"),
        ("channels:", "its share is ''", "0.5 removes half: channels:0.5"),
        ("unstructured:50%", "its share is '50%'", "0.5 removes half: unstructured:0.5"),
        ("unstructured:1", "its share is '1'", "0.5 removes half: unstructured:0.5"),
        ("channels:-0.1", "its share is '-0.1'", "0.5 removes half: channels:0.5"),
        ("channels:nan", "its share is 'nan'", "0.5 removes half: channels:0.5"),
    ],
)
def test_what_a_recipe_cannot_mean_is_refused(text: str, problem: str, hint: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_prune(text)
    assert str(caught.value).startswith(f"cannot prune by {text!r}: {problem} (expected ")
    assert caught.value.hint == hint
    assert caught.value.exit_code == 2


@given(st.text(max_size=30))
def test_any_text_is_a_spec_or_a_recipe_error(text: str) -> None:
    try:
        spec = parse_prune(text)
    except RecipeError:
        return
    assert 0 < spec.sparsity <= 0.95


def test_it_says_when_pruning_bought_no_speed_and_why() -> None:
    sparse, fewer = parse_prune("unstructured:0.5"), parse_prune("channels:0.3")
    finding = speed_finding(sparse, kind="onnxruntime")
    assert finding is not None
    assert finding.message == (
        "pruning by unstructured:0.5 bought no speed: onnxruntime's CPU provider multiplies "
        "zeros like other numbers"
    )
    tensorrt = speed_finding(parse_prune("2:4"), kind="tensorrt", speedup=1.0)
    assert tensorrt is not None
    assert "(it runs 1.00 times as fast)" in tensorrt.message
    assert "trtexec --sparsity=enable" in tensorrt.message
    assert speed_finding(sparse, kind="openvino", speedup=1.4) is None
    assert speed_finding(fewer, kind="onnxruntime") is None
    assert speed_finding(fewer, kind="onnxruntime", speedup=1.01) is not None
    other = speed_finding(sparse, kind="other")
    assert other is not None
    assert other.message.endswith("nothing is known of other that uses zeros")
