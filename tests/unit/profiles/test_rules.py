"""Scheme rules: what a file may say, what is refused, and what the shipped ones say."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgesdk._resources import resource_dir
from edgesdk.errors import ProfileError
from edgesdk.profiles import SchemeRules, load_scheme_rules

Write = Callable[..., Path]
Rules = dict[str, Any]

SHIPPED = sorted(path.stem for path in (resource_dir("targets") / "schemes").glob("*.yaml"))
#: Operators that compute nothing but normalize; none of our runtimes has an 8-bit kernel.
NORMALIZATIONS = {"LayerNormalization", "InstanceNormalization", "GroupNormalization"}


@pytest.fixture
def refusal(write: Write, tmp_path: Path) -> Callable[[Rules], ProfileError]:
    """Load rules that must be refused and give the error."""

    def load_it(content: Rules) -> ProfileError:
        path = write(content, "acme.yaml")
        with pytest.raises(ProfileError) as caught:
            load_scheme_rules("acme", folder=tmp_path)
        assert str(caught.value).startswith(f"cannot use scheme rules {path}: ")
        assert caught.value.exit_code == 2
        assert caught.value.facts["path"] == str(path)
        return caught.value

    return load_it


Refusal = Callable[[Rules], ProfileError]


def test_rules_say_what_their_file_says(rules: Rules, write: Write, tmp_path: Path) -> None:
    write(rules, "acme.yaml")
    read = load_scheme_rules("acme", folder=tmp_path)
    (entry, *_) = read.provenance
    assert dataclasses.replace(read, provenance=()) == SchemeRules(
        name="acme",
        placement="operators",
        compute=("Conv", "Gemm"),
        elementwise=("Add", "Sigmoid"),
        same_scale=("MaxPool", "Reshape"),
        fused_after={"Conv": ("Relu", "Clip")},
        fixed_outputs={"Sigmoid": (0.0, 1.0)},
        per_tensor_weights=("Gemm",),
        float_results=("Gemm",),
        kept_float={"Softmax": "it is better"},
        narrow_weights=True,
        bias="int32",
    )
    assert (entry.field, entry.kind, entry.source) == ("placement", "assumed", "a test")
    with pytest.raises(TypeError):
        read.kept_float["Add"] = "no"  # type: ignore[index]  # it must not be possible


def test_lists_may_be_left_out(rules: Rules, write: Write, tmp_path: Path) -> None:
    kept = {"schema", "name", "placement", "compute", "narrow_weights", "bias", "provenance"}
    short = {key: value for key, value in rules.items() if key in kept}
    short["provenance"][0]["fields"] = ["placement", "compute", "narrow_weights", "bias"]
    write(short, "acme.yml")
    read = load_scheme_rules("acme", folder=tmp_path)
    assert dataclasses.replace(read, provenance=()) == SchemeRules(
        name="acme", placement="operators", compute=("Conv", "Gemm")
    )


def test_the_same_rules_are_read_once_until_their_file_changes(
    rules: Rules, write: Write, tmp_path: Path
) -> None:
    write(rules, "acme.yaml")
    first = load_scheme_rules("acme", folder=tmp_path)
    assert load_scheme_rules("acme", folder=tmp_path) is first
    rules["compute"].append("MatMul")
    write(rules, "acme.yaml")
    assert load_scheme_rules("acme", folder=tmp_path).compute == ("Conv", "Gemm", "MatMul")


def test_unknown_rules_get_near_misses() -> None:
    with pytest.raises(ProfileError) as caught:
        load_scheme_rules("onnx-runtime-cpu")
    assert str(caught.value) == (
        "cannot find scheme rules 'onnx-runtime-cpu': no file has that name "
        f"(expected one of {', '.join(SHIPPED)})"
    )
    assert caught.value.hint == "did you mean onnxruntime-cpu?"
    assert caught.value.facts["known"] == SHIPPED


@pytest.mark.parametrize("name", ["", "../host", "q" * 5000, "x/y", "\x00"])
def test_a_name_is_not_a_path(name: str) -> None:
    with pytest.raises(ProfileError, match="cannot find scheme rules") as caught:
        load_scheme_rules(name)
    assert caught.value.hint == ""
    assert len(str(caught.value)) < 300


def test_rules_that_are_no_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "acme.yaml").mkdir()
    (tmp_path / "gone.yaml").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ProfileError, match=r"cannot read scheme rules .*: is a directory"):
        load_scheme_rules("acme", folder=tmp_path)
    with pytest.raises(ProfileError, match=r"cannot read scheme rules .*: no such file"):
        load_scheme_rules("gone", folder=tmp_path)


@pytest.mark.parametrize(
    "key", ["schema", "name", "placement", "compute", "narrow_weights", "bias", "provenance"]
)
def test_a_missing_key_is_named(rules: Rules, refusal: Refusal, key: str) -> None:
    del rules[key]
    assert str(refusal(rules)).endswith(f": {key} is missing")


@pytest.mark.parametrize(
    ("place", "value", "complaint", "hint"),
    [
        (("same_scales",), [], "same_scales is not a known key (expected one of", "same_scale"),
        (("schema",), 2, "schema is 2 (expected 1)", ""),
        (("name",), "other", "name is other (expected acme, like the file)", ""),
        (("placement",), "input", "placement is 'input' (expected 'operators',", "inputs"),
        (("compute",), [], "compute is [] (expected otherwise: list should", ""),
        (("compute", 0), "conv", "compute[0] is 'conv' (expected text like ^[A-Z]", ""),
        (("compute", 0), "com.x.Conv", "compute[0] is 'com.x.Conv' (expected text", ""),
        (("elementwise", 0), 7, "elementwise[0] is 7 (expected text; put quotes", ""),
        (("fused_after", "conv"), ["Relu"], "fused_after.conv is 'conv' (expected text", ""),
        (("fused_after", "Conv"), [], "fused_after.Conv is [] (expected otherwise", ""),
        (("fixed_outputs", "Sigmoid"), [0], "fixed_outputs.Sigmoid is [0] (expected", ""),
        (("fixed_outputs", "Sigmoid", 1), "1", "fixed_outputs.Sigmoid[1] is '1' (exp", ""),
        (("fixed_outputs", "Sigmoid"), [1, 1], "is [1, 1] (expected the lower end fir", ""),
        (("kept_float", "Softmax"), "", "kept_float.Softmax is '' (expected", ""),
        (("narrow_weights",), 1, "narrow_weights is 1 (expected", ""),
        (("bias",), "int8", "bias is 'int8' (expected 'int32' or 'float')", "int32"),
        (("compute", 1), "Conv", "compute has Conv twice (expected once)", ""),
        (("fused_after", "Conv", 1), "Relu", "fused_after.Conv has Relu twice", ""),
        (("elementwise", 0), "Conv", "elementwise has Conv, which compute has too", ""),
        (("same_scale", 0), "Add", "same_scale has Add, which elementwise has too", ""),
        (("same_scale", 0), "Sigmoid", "fixed_outputs.Sigmoid is given, but same_scale", ""),
        (("kept_float", "Add"), "x", "kept_float has Add, which elementwise has too", ""),
        (
            ("fused_after", "MatMul"),
            ["Relu"],
            "fused_after has MatMul (expected an operator of compute or elementwise or same_",
            "",
        ),
        (
            ("fixed_outputs", "Tanh"),
            [-1, 1],
            "fixed_outputs has Tanh (expected an operator of elementwise)",
            "",
        ),
        (
            ("per_tensor_weights", 0),
            "Add",
            "per_tensor_weights has Add (expected an operator of compute)",
            "",
        ),
        (
            ("float_results", 0),
            "Add",
            "float_results has Add (expected an operator of compute)",
            "",
        ),
        (
            ("provenance", 0, "fields", 0),
            "placements",
            "provenance[0].fields has 'placements', which is no figure given here",
            "placement",
        ),
        (("provenance", 0, "kind"), "datasheet", "source is 'a test' (expected a link", ""),
        (("provenance", 0, "checked"), "2026-02-31", "is '2026-02-31' (expected a day", ""),
    ],
)
def test_a_wrong_value_is_named_with_its_file_key_and_what_was_expected(
    rules: Rules,
    refusal: Refusal,
    place: tuple[str | int, ...],
    value: object,
    complaint: str,
    hint: str,
) -> None:
    inner: Any = rules
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    error = refusal(rules)
    assert complaint in str(error)
    assert hint in error.hint


def test_an_operator_nobody_vouches_for_is_refused(rules: Rules, refusal: Refusal) -> None:
    rules["provenance"][0]["fields"][1] = "compute.Conv"
    error = refusal(rules)
    assert "provenance: does not say where compute.Gemm comes from" in str(error)
    assert "kind: assumed" in error.hint


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.one_of(st.binary(max_size=300), st.text(max_size=300).map(str.encode)))
def test_any_bytes_are_read_or_refused_as_a_profile_error(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "acme.yaml").write_bytes(data)
    with pytest.raises(ProfileError, match="cannot "):
        load_scheme_rules("acme", folder=tmp_path)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_rules_keep_normalizations_in_float(name: str) -> None:
    rules = load_scheme_rules(name)
    quantized = {*rules.compute, *rules.elementwise, *rules.same_scale}
    assert {"Conv", "Gemm", "MatMul"} <= set(rules.compute)
    assert not quantized & NORMALIZATIONS
    assert {"Relu", "Clip"} <= set(rules.fused_after["Conv"])
    assert rules.narrow_weights


def test_each_runtime_has_its_own_way() -> None:
    ort, litert = load_scheme_rules("onnxruntime-cpu"), load_scheme_rules("litert-int8")
    edgetpu, tensorrt = load_scheme_rules("edgetpu"), load_scheme_rules("tensorrt")
    openvino = load_scheme_rules("openvino")
    placements = [each.placement for each in (ort, litert, edgetpu, tensorrt, openvino)]
    assert placements == ["operators", "everything", "everything", "inputs", "inputs"]
    assert "ConvTranspose" not in ort.compute, "it has no 8-bit kernel there"
    assert "DepthToSpace" not in ort.same_scale, "such models do not load in 1.23 on Arm"
    assert "Softmax" in ort.kept_float
    assert ort.float_results == ("Gemm", "MatMul"), "a Conv without a Q stays in float"
    assert litert.fixed_outputs["Softmax"] == (0.0, 1.0)
    assert litert.fixed_outputs["Tanh"] == (-1.0, 1.0)
    low, high = litert.fixed_outputs["LogSoftmax"]
    assert (high - low) / 256 == 16 / 256
    for rules in (litert, edgetpu):
        assert {"AveragePool", "Concat", "MaxPool", "Pad"} <= set(rules.same_scale)
        assert rules.per_tensor_weights == ("Gemm", "MatMul")
    lists = ("compute", "elementwise", "same_scale")
    for name in lists:
        assert set(getattr(edgetpu, name)) <= set(getattr(litert, name)), "fewer, no others"
    assert (tensorrt.bias, openvino.bias, ort.bias) == ("float", "float", "int32")
