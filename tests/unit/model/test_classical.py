"""Classical operators written as arithmetic, against onnxruntime's own kernels of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgesdk.model.open import OpenedModel, open_model
from edgesdk.model.save import save_model

ML = "ai.onnx.ml"
TRANSFORMS = ("NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO")
F, N = 5, 17
Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Save one classical node, with what its inputs are."""

    def write(
        op: str,
        inputs: dict[str, tuple[int, list[Any]]],
        outputs: dict[str, int],
        *,
        opset: int = 17,
        ml: int = 3,
        behind: tuple[onnx.NodeProto, ...] = (),
        weights: dict[str, np.ndarray] | None = None,
        **attributes: Any,
    ) -> Path:
        node = helper.make_node(
            op, [*inputs, *(weights or {})], [*outputs], "it", domain=ML, **attributes
        )
        last = behind[-1].output if behind else [*outputs]
        kinds = [*outputs.values()]
        graph = helper.make_graph(
            [node, *behind],
            "one",
            [helper.make_tensor_value_info(k, t, s) for k, (t, s) in inputs.items()],
            [
                helper.make_tensor_value_info(k, t, None)
                for k, t in zip(last, kinds, strict=False)
            ],
            [onnx.numpy_helper.from_array(a, k) for k, a in (weights or {}).items()],
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid(ML, ml)],
            ir_version=8,
        )
        path = tmp_path / "classical.onnx"
        path.write_bytes(model.SerializeToString())
        return path

    return write


def run(path: Path, feeds: dict[str, np.ndarray]) -> list[Any]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))


def rows(seed: int = 0, width: int = F, count: int = N) -> np.ndarray:
    drawn = np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)
    drawn[3] = 0  # a norm of 0, scores that are all biases
    return drawn


def left(opened: OpenedModel) -> list[str]:
    return [op for op in opened.source.op_counts if op.startswith(f"{ML}.")]


def same(path: Path, feeds: dict[str, np.ndarray], tmp_path: Path, atol: float = 2e-6) -> None:
    """The file has a classical operator, the opened graph has none, and both say the same."""
    expected = run(path, feeds)
    opened = open_model(path)
    assert left(opened) == []
    saved = save_model(opened.ir, tmp_path, "lowered")[0]
    answered = run(saved, feeds)
    assert len(answered) == len(expected)
    for one, other in zip(answered, expected, strict=True):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        if one.dtype.kind == "f":
            np.testing.assert_allclose(one, other, rtol=2e-6, atol=atol)
        else:
            np.testing.assert_array_equal(one, other)


FLOATS = {"x": (TensorProto.FLOAT, ["n", F])}


@pytest.mark.parametrize(
    ("opset", "kind", "count"), [(9, "FLOAT", 1), (13, "INT64", F), (18, "FLOAT", F)]
)
def test_a_scaler_is_a_difference_and_a_product(
    save: Save, tmp_path: Path, opset: int, kind: str, count: int
) -> None:
    draw = np.random.default_rng(1)
    path = save(
        "Scaler",
        {"x": (TensorProto.DataType.Value(kind), ["n", F])},
        {"y": TensorProto.FLOAT},
        opset=opset,
        offset=draw.standard_normal(count).tolist(),
        scale=draw.standard_normal(count).tolist(),
    )
    x = rows() if kind == "FLOAT" else (rows() * 9).astype(np.int64)
    same(path, {"x": x}, tmp_path)


@pytest.mark.parametrize(
    ("norm", "opset"), [("MAX", 9), ("L1", 9), ("L2", 13), ("MAX", 18), ("L1", 17), ("L2", 18)]
)
def test_a_normalizer_leaves_rows_of_zeros(
    save: Save, tmp_path: Path, norm: str, opset: int
) -> None:
    path = save("Normalizer", FLOATS, {"y": TensorProto.FLOAT}, norm=norm, opset=opset)
    same(path, {"x": rows()}, tmp_path)


def test_a_binarizer_is_a_comparison(save: Save, tmp_path: Path) -> None:
    path = save("Binarizer", FLOATS, {"y": TensorProto.FLOAT}, threshold=0.25)
    x = rows()
    x[0, :2] = 0.25, np.nextafter(np.float32(0.25), np.float32(1))
    same(path, {"x": x}, tmp_path)


@pytest.mark.parametrize(
    ("replaced", "count"), [(float("nan"), F), (7.0, F), (0.0, 1), (float("nan"), 1)]
)
def test_an_imputer_fills_what_is_missing(
    save: Save, tmp_path: Path, replaced: float, count: int
) -> None:
    path = save(
        "Imputer",
        FLOATS,
        {"y": TensorProto.FLOAT},
        imputed_value_floats=[float(i) for i in range(count)],
        replaced_value_float=replaced,
    )
    x = rows()
    x[::3, 1] = replaced
    x[2, 4] = replaced
    same(path, {"x": x}, tmp_path)


def test_features_are_joined_as_floats(save: Save, tmp_path: Path) -> None:
    inputs = {"a": (TensorProto.INT64, ["n", 2]), "b": (TensorProto.INT64, ["n", 3])}
    path = save("FeatureVectorizer", inputs, {"y": TensorProto.FLOAT}, inputdimensions=[2, 3])
    feeds = {name: (rows(2, n) * 5).astype(np.int64) for name, n in (("a", 2), ("b", 3))}
    same(path, feeds, tmp_path)


def test_features_that_are_cut_off_stay_with_the_operator(save: Save) -> None:
    path = save("FeatureVectorizer", FLOATS, {"y": TensorProto.FLOAT}, inputdimensions=[3])
    assert left(open_model(path)) == ["ai.onnx.ml.FeatureVectorizer"]


@pytest.mark.parametrize(
    ("shape", "chosen"),
    [(["n", F], [1]), (["n", F], [[2, 1]]), ([F], [4, 0, 4]), (["n", 2, F], [3, 1])],
)
def test_features_are_chosen_along_the_last_axis(
    save: Save, tmp_path: Path, shape: list[Any], chosen: list[Any]
) -> None:
    path = save(
        "ArrayFeatureExtractor",
        {"x": (TensorProto.FLOAT, shape)},
        {"y": TensorProto.FLOAT},
        weights={"i": np.array(chosen, np.int64)},
    )
    extents = [N if extent == "n" else extent for extent in shape]
    x = np.random.default_rng(0).standard_normal(extents).astype(np.float32)
    same(path, {"x": x}, tmp_path)


@pytest.mark.parametrize("kind", ["FLOAT", "INT64"])
def test_categories_become_columns(save: Save, tmp_path: Path, kind: str) -> None:
    inputs = {"x": (TensorProto.DataType.Value(kind), ["n", F])}
    path = save("OneHotEncoder", inputs, {"y": TensorProto.FLOAT}, cats_int64s=[3, 0, -1, 7])
    x = (rows() * 3).astype(np.float32 if kind == "FLOAT" else np.int64)
    same(path, {"x": x}, tmp_path)


@pytest.mark.parametrize(
    ("values", "shape"), [("values_int64s", ["n"]), ("values_floats", ["n", 3])]
)
def test_a_table_of_whole_numbers_is_comparisons(
    save: Save, tmp_path: Path, values: str, shape: list[Any]
) -> None:
    whole = values == "values_int64s"
    kind = TensorProto.INT64 if whole else TensorProto.FLOAT
    numbers = [2**53 + 1, -4, 9] if whole else [0.1, -4.5, 9.25]
    default = {"default_int64": 77} if whole else {"default_float": 0.7}
    inputs = {"x": (TensorProto.INT64, shape)}
    path = save(
        "LabelEncoder",
        inputs,
        {"y": kind},
        keys_int64s=[5, 1, 2],
        **{values: numbers},
        **default,
    )
    x = np.random.default_rng(0).integers(0, 6, [N if e == "n" else e for e in shape])
    same(path, {"x": x}, tmp_path)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("classes", [1, 3])
def test_a_linear_regressor_of_each_transform(
    save: Save, tmp_path: Path, transform: str, classes: int
) -> None:
    draw = np.random.default_rng(3)
    path = save(
        "LinearRegressor",
        FLOATS,
        {"y": TensorProto.FLOAT},
        coefficients=draw.standard_normal(classes * F).tolist(),
        intercepts=(0.5 + draw.standard_normal(classes)).tolist(),
        targets=classes,
        post_transform=transform,
    )
    same(path, {"x": rows()}, tmp_path)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize(("labels", "opset"), [([0, 1, 2], 9), ([7, -2, 3], 18), ([4, 9], 13)])
def test_a_linear_classifier_of_each_transform(
    save: Save, tmp_path: Path, transform: str, labels: list[int], opset: int
) -> None:
    draw = np.random.default_rng(4)
    for scores in {len(labels), 1} if len(labels) == 2 else {len(labels)}:
        path = save(
            "LinearClassifier",
            FLOATS,
            {"label": TensorProto.INT64, "scores": TensorProto.FLOAT},
            opset=opset,
            coefficients=draw.standard_normal(scores * F).tolist(),
            intercepts=(0.5 + draw.standard_normal(scores)).tolist(),
            classlabels_ints=labels,
            post_transform=transform,
        )
        same(path, {"x": rows()}, tmp_path)


def _machine(classes: int, kernel: str, spread: float = 1.0) -> dict[str, Any]:
    draw = np.random.default_rng(5)
    counts = [3 + i for i in range(classes)]
    total, pairs = sum(counts), classes * (classes - 1) // 2
    return {
        "kernel_type": kernel,
        "kernel_params": [0.3 / spread**2, 0.4, 2.0 if kernel != "POLY" else 3.0],
        "support_vectors": (draw.standard_normal(total * F) * spread).tolist(),
        "coefficients": draw.standard_normal((classes - 1) * total).tolist(),
        "vectors_per_class": counts,
        "rho": (draw.standard_normal(pairs) * 0.3).tolist(),
    }


@pytest.mark.parametrize("kernel", ["LINEAR", "RBF", "POLY", "SIGMOID"])
@pytest.mark.parametrize(("labels", "opset"), [([4, 9], 9), ([5, 1, 9, 2], 18)])
def test_a_machine_of_each_kernel(
    save: Save, tmp_path: Path, kernel: str, labels: list[int], opset: int
) -> None:
    path = save(
        "SVMClassifier",
        FLOATS,
        {"label": TensorProto.INT64, "scores": TensorProto.FLOAT},
        opset=opset,
        classlabels_ints=labels,
        **_machine(len(labels), kernel),
    )
    same(path, {"x": rows()}, tmp_path, atol=2e-5)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("labels", [[4, 9], [0, 1, 2]])
def test_a_machine_of_each_transform(
    save: Save, tmp_path: Path, transform: str, labels: list[int]
) -> None:
    path = save(
        "SVMClassifier",
        FLOATS,
        {"label": TensorProto.INT64, "scores": TensorProto.FLOAT},
        classlabels_ints=labels,
        post_transform=transform,
        **_machine(len(labels), "RBF"),
    )
    same(path, {"x": rows()}, tmp_path, atol=1e-5)


def test_a_machine_whose_vectors_are_far_apart_takes_differences(
    save: Save, tmp_path: Path
) -> None:
    machine = _machine(3, "RBF", spread=300.0)
    machine["kernel_params"] = [0.4, 0.0, 3.0]
    vectors = np.array(machine["support_vectors"], np.float32).reshape(-1, F)
    near = vectors[:N] + rows(count=len(vectors[:N])) * 0.3
    path = save(
        "SVMClassifier",
        FLOATS,
        {"label": TensorProto.INT64, "scores": TensorProto.FLOAT},
        classlabels_ints=[0, 1, 2],
        **machine,
    )
    same(path, {"x": near.astype(np.float32)}, tmp_path, atol=1e-5)
    assert "Unsqueeze" in open_model(path).source.op_counts


def test_probabilities_of_a_machine_come_out_of_a_loop_and_stay(save: Save) -> None:
    path = save(
        "SVMClassifier",
        FLOATS,
        {"label": TensorProto.INT64, "scores": TensorProto.FLOAT},
        classlabels_ints=[0, 1, 2],
        prob_a=[1.0] * 3,
        prob_b=[0.0] * 3,
        **_machine(3, "RBF"),
    )
    assert left(open_model(path)) == ["ai.onnx.ml.SVMClassifier"]


@pytest.mark.parametrize("transform", ["NONE", "SOFTMAX"])
def test_a_machine_without_vectors_has_a_score_for_each_class(
    save: Save, tmp_path: Path, transform: str
) -> None:
    path = save(
        "SVMClassifier",
        FLOATS,
        {"label": TensorProto.INT64, "scores": TensorProto.FLOAT},
        classlabels_ints=[3, 1, 2],
        coefficients=np.random.default_rng(6).standard_normal(3 * F).tolist(),
        kernel_params=[0.0, 0.0, 0.0],
        rho=[0.2],
        post_transform=transform,
    )
    same(path, {"x": rows()}, tmp_path)


@pytest.mark.parametrize(
    ("kernel", "one_class"),
    [("LINEAR", 0), ("RBF", 0), ("RBF", 1), ("POLY", 0), ("SIGMOID", 1), ("", 0)],
)
def test_a_machine_that_gives_a_number(
    save: Save, tmp_path: Path, kernel: str, one_class: int
) -> None:
    machine = _machine(2, kernel or "LINEAR")
    del machine["vectors_per_class"]
    count = len(machine["coefficients"])
    if not kernel:
        del machine["support_vectors"]
        machine["coefficients"], count = machine["coefficients"][:F], 0
    path = save(
        "SVMRegressor",
        FLOATS,
        {"y": TensorProto.FLOAT},
        n_supports=count,
        one_class=one_class,
        **machine,
    )
    same(path, {"x": rows()}, tmp_path, atol=1e-5)


@pytest.mark.parametrize("op", ["LinearRegressor", "LinearClassifier", "SVMClassifier"])
def test_probit_stays_with_the_runtime_that_approximates_it(save: Save, op: str) -> None:
    attributes: dict[str, Any] = {
        "LinearRegressor": {"targets": 3},
        "LinearClassifier": {"classlabels_ints": [0, 1, 2]},
        "SVMClassifier": {"classlabels_ints": [0, 1, 2], **_machine(3, "RBF")},
    }[op]
    if op != "SVMClassifier":
        attributes |= {"coefficients": [0.01] * 3 * F, "intercepts": [0.5] * 3}
    outputs = {"y": TensorProto.FLOAT}
    if op != "LinearRegressor":
        outputs = {"label": TensorProto.INT64, "scores": TensorProto.FLOAT}
    path = save(op, FLOATS, outputs, post_transform="PROBIT", **attributes)
    assert left(open_model(path)) == [f"ai.onnx.ml.{op}"]


WORDS = ["no", "yes", "perhaps"]
NUMBER = helper.make_node(
    "LabelEncoder",
    ["label"],
    ["number"],
    domain=ML,
    keys_strings=WORDS,
    values_int64s=[0, 1, 2],
)


def test_words_that_are_only_numbered_become_numbers(save: Save, tmp_path: Path) -> None:
    path = save(
        "LinearClassifier",
        FLOATS,
        {"label": TensorProto.INT64, "scores": TensorProto.FLOAT},
        coefficients=np.random.default_rng(7).standard_normal(3 * F).tolist(),
        intercepts=[0.1, 0.2, 0.3],
        classlabels_strings=["yes", "perhaps", "no"],
        behind=(NUMBER,),
    )
    same(path, {"x": rows()}, tmp_path)


def test_words_that_are_chosen_from_become_numbers(save: Save, tmp_path: Path) -> None:
    flat = helper.make_node("Reshape", ["label", "flat"], ["words"])
    number = onnx.NodeProto()
    number.CopyFrom(NUMBER)
    number.input[0] = "words"
    choose = helper.make_node("ArrayFeatureExtractor", ["classes", "x"], ["label"], domain=ML)
    graph = helper.make_graph(
        [choose, flat, number],
        "choice",
        [helper.make_tensor_value_info("x", TensorProto.INT64, ["n", 1])],
        [helper.make_tensor_value_info("number", TensorProto.INT64, ["n"])],
        [
            helper.make_tensor("classes", TensorProto.STRING, [3], [w.encode() for w in WORDS]),
            onnx.numpy_helper.from_array(np.array([-1], np.int64), "flat"),
        ],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(ML, 3)]
    path = tmp_path / "words.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString()
    )
    x = np.random.default_rng(0).integers(0, 3, (N, 1))
    same(path, {"x": x}, tmp_path)


def test_words_that_somebody_reads_stay(save: Save) -> None:
    path = save(
        "LinearClassifier",
        FLOATS,
        {"label": TensorProto.STRING, "scores": TensorProto.FLOAT},
        coefficients=[0.0] * 3 * F,
        intercepts=[0.1, 0.2, 0.3],
        classlabels_strings=WORDS,
    )
    assert left(open_model(path)) == ["ai.onnx.ml.LinearClassifier"]


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("Scaler", {"offset": [0.0] * 4, "scale": [1.0] * 4}),
        ("LinearRegressor", {"coefficients": [1.0] * 4, "targets": 1}),
        ("LinearRegressor", {"coefficients": [1.0] * F, "targets": -3}),
        ("Normalizer", {"norm": "L7"}),
        ("SVMRegressor", {"coefficients": [1.0] * 9, "n_supports": 2, "rho": [0.0]}),
        ("SVMRegressor", {"coefficients": [1.0] * 2, "n_supports": 2, "rho": [0.0]}),
        ("SVMRegressor", {"coefficients": [1.0] * F, "n_supports": -9, "rho": [0.0]}),
    ],
)
def test_what_contradicts_itself_is_left_to_the_runtime(
    save: Save, op: str, attributes: dict[str, Any]
) -> None:
    path = save(op, FLOATS, {"y": TensorProto.FLOAT}, **attributes)
    assert left(open_model(path)) == [f"ai.onnx.ml.{op}"]


def test_a_graph_of_an_old_opset_stays(save: Save) -> None:
    path = save("Binarizer", FLOATS, {"y": TensorProto.FLOAT}, opset=8)
    assert left(open_model(path)) == ["ai.onnx.ml.Binarizer"]


def test_sums_of_single_columns_become_one_product(tmp_path: Path) -> None:
    """As skl2onnx writes the votes of a machine of three classes."""
    text = f"""
        <ir_version: 8, opset_import: ["" : 13, "{ML}" : 1]>
        votes (float[n, 3] x) => (float[n, 3] y, float[n, 1] one)
        <int64 i = {{0}}, int64[1] j = {{1}}, int64 k = {{2}},
         float unit = {{1.0}}, float half = {{0.5}}>
        {{
            a = {ML}.ArrayFeatureExtractor(x, i)
            b = {ML}.ArrayFeatureExtractor(x, j)
            c = {ML}.ArrayFeatureExtractor(x, k)
            no_a = Neg(a)
            rest = Add(no_a, unit)
            first = Sum(rest, b, c)
            halved = Mul(half, b)
            second = Sub(halved, a)
            one = Identity(c)
            y = Concat<axis = 1>(first, second, one)
        }}
    """
    path = tmp_path / "votes.onnx"
    path.write_bytes(onnx.parser.parse_model(text).SerializeToString())
    x = np.random.default_rng(0).standard_normal((N, 3)).astype(np.float32)
    same(path, {"x": x}, tmp_path)
    counts = open_model(path).source.op_counts
    assert counts["Gemm"] == 1
    assert "Concat" not in counts


@pytest.mark.parametrize(
    "column", ["Mul(a, b)", "Exp(a)", "Add(a, other)", "Add(a, row)", "Identity(late)"]
)
def test_other_columns_stay_as_they_are(tmp_path: Path, column: str) -> None:
    text = f"""
        <ir_version: 8, opset_import: ["" : 13, "{ML}" : 1]>
        odd (float[n, 3] x, float[n, 3] z, int64[1] k) => (float[n, m] y)
        <int64[1] i = {{0}}, int64[1] j = {{1}}, float[1, 2] row = {{1.0, 2.0}}>
        {{
            a = {ML}.ArrayFeatureExtractor(x, i)
            b = {ML}.ArrayFeatureExtractor(x, j)
            other = {ML}.ArrayFeatureExtractor(z, j)
            late = {ML}.ArrayFeatureExtractor(x, k)
            c = {column}
            y = Concat<axis = 1>(a, c)
        }}
    """
    path = tmp_path / "odd.onnx"
    path.write_bytes(onnx.parser.parse_model(text).SerializeToString())
    x, z = np.random.default_rng(0).standard_normal((2, N, 3)).astype(np.float32)
    same(path, {"x": x, "z": z, "k": np.array([2])}, tmp_path)
    assert "Concat" in open_model(path).source.op_counts


def test_a_graph_that_imports_classical_operators_only_is_opened(tmp_path: Path) -> None:
    """Converters of boosters write such files."""
    text = f"""
        <ir_version: 8, opset_import: ["{ML}" : 1]>
        alone (float[n, {F}] x) => (float[n, {F}] y) {{
            y = {ML}.Normalizer<norm = "L2">(x)
        }}
    """
    path = tmp_path / "alone.onnx"
    path.write_bytes(onnx.parser.parse_model(text).SerializeToString())
    same(path, {"x": rows()}, tmp_path)
