"""Who competes for a model, with which placement, and why others do not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import onnx.parser
import pytest

from edgesdk.errors import RecipeError
from edgesdk.model.open import OpenedModel, open_model
from edgesdk.plan import Contender, Recipe, plan_build, plan_contest
from edgesdk.plan.facts import model_facts
from edgesdk.plan.order import order_backends
from edgesdk.profiles import TargetProfile, find_target

NET = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[1, 4, 8, 8] x) => (float[1, 4, 8, 8] y)
{
    a = Relu (x)
    y = Sigmoid (a)
}
"""
FLOAT = Recipe(precision="fp32")


def opened(tmp_path: Path) -> OpenedModel:
    onnx.save(onnx.parser.parse_model(NET), tmp_path / "net.onnx")
    return open_model(tmp_path / "net.onnx")


@pytest.fixture
def profile() -> TargetProfile:
    """This computer's profile with a contest between onnxruntime and OpenVINO."""
    return replace(find_target("host"), contest=("ort-cpu", "openvino-cpu"))


def backends(profile: TargetProfile, recipe: Recipe) -> list[str]:
    return [entry.id for entry in order_backends(profile, recipe)]


def outs(contenders: tuple[Contender, ...]) -> dict[str, str]:
    return {each.backend: each.why_out for each in contenders}


def test_each_contestant_gets_the_plan_with_itself_first(
    tmp_path: Path, profile: TargetProfile
) -> None:
    first, second = plan_contest(opened(tmp_path), profile, FLOAT)
    assert (first.backend, second.backend) == ("ort-cpu", "openvino-cpu")
    assert first.plan is not None
    assert second.plan is not None
    assert first.plan.nodes_by_backend == {"ort-cpu": 2}
    assert second.plan.nodes_by_backend == {"openvino-cpu": 2}
    assert outs((first, second)) == {"ort-cpu": "", "openvino-cpu": ""}


def test_the_first_is_what_is_built_without_a_contest(
    tmp_path: Path, profile: TargetProfile
) -> None:
    model = opened(tmp_path)
    plain = plan_build(model_facts(model, profile), profile, FLOAT)
    first, second = plan_contest(model, profile, FLOAT)
    assert first.plan == plain
    assert first.recipe == FLOAT
    assert second.recipe == replace(FLOAT, contestant="openvino-cpu")
    assert plan_contest(model, profile, FLOAT, known=plain)[0].plan is plain


def test_a_contestant_takes_a_place_of_the_contest_and_no_other(
    profile: TargetProfile,
) -> None:
    last = replace(profile, contest=("openvino-cpu", "litert-cpu"))
    assert backends(last, FLOAT) == ["ort-cpu", "openvino-cpu", "litert-cpu"]
    own = replace(FLOAT, contestant="litert-cpu")
    assert backends(last, own) == ["ort-cpu", "litert-cpu", "openvino-cpu"]
    ends = replace(profile, contest=("ort-cpu", "litert-cpu"))
    assert backends(ends, own) == ["litert-cpu", "openvino-cpu", "ort-cpu"]
    assert backends(ends, replace(own, prefer=("ort-cpu",)))[0] == "ort-cpu"
    assert backends(ends, replace(own, avoid=("openvino-cpu",))) == ["litert-cpu", "ort-cpu"]


def test_one_that_is_in_no_contest_cannot_be_its_contestant(profile: TargetProfile) -> None:
    with pytest.raises(RecipeError, match="'litert-cpu' is not in its contest") as caught:
        order_backends(profile, replace(FLOAT, contestant="litert-cpu"))
    assert caught.value.hint == "the contest is between ort-cpu, openvino-cpu"


def test_one_that_takes_no_node_is_out_with_its_reason(
    tmp_path: Path, profile: TargetProfile
) -> None:
    deaf = tuple(
        replace(each, kind="nothing") if each.id == "openvino-cpu" else each
        for each in profile.backends
    )
    found = plan_contest(opened(tmp_path), replace(profile, backends=deaf), FLOAT)
    assert found[1].plan is None
    assert outs(found)["openvino-cpu"] == (
        "it gets none of the nodes: this version of edgesdk has no compiler for nothing"
    )


def test_one_without_the_precision_is_out(tmp_path: Path, profile: TargetProfile) -> None:
    found = plan_contest(opened(tmp_path), profile, Recipe(precision="fp16"))
    assert found[0].plan is not None
    assert outs(found)["openvino-cpu"] == (
        "it gets none of the nodes: it runs int8, fp32, and this build is fp16"
    )


def test_one_that_the_recipe_avoids_is_out(tmp_path: Path, profile: TargetProfile) -> None:
    found = plan_contest(opened(tmp_path), profile, replace(FLOAT, avoid=("ort-cpu",)))
    assert outs(found) == {"ort-cpu": "the recipe avoids it", "openvino-cpu": ""}


def test_a_model_that_nobody_takes_leaves_nobody(
    tmp_path: Path, profile: TargetProfile
) -> None:
    deaf = tuple(replace(each, kind="nothing") for each in profile.backends)
    found = plan_contest(opened(tmp_path), replace(profile, backends=deaf), FLOAT)
    assert all(each.plan is None for each in found)
    for why in outs(found).values():
        assert why.startswith("cannot place net on host: node 0 (Relu)")


def test_a_preference_leaves_nothing_to_measure(tmp_path: Path, profile: TargetProfile) -> None:
    model = opened(tmp_path)
    assert plan_contest(model, profile, replace(FLOAT, prefer=("ort-cpu",))) == ()
    assert plan_contest(model, replace(profile, contest=()), FLOAT) == ()


def test_a_backend_that_wants_fixed_shapes_gets_them_when_it_goes_first(tmp_path: Path) -> None:
    text = NET.replace("[1, 4, 8, 8]", "[N, 4, 8, 8]")
    onnx.save(onnx.parser.parse_model(text), tmp_path / "open.onnx")
    profile = find_target("raspberry-pi-5")
    first, second = plan_contest(open_model(tmp_path / "open.onnx"), profile, FLOAT)
    assert first.plan is not None
    assert second.plan is not None
    assert first.plan.fixed_inputs == ()
    assert second.plan.fixed_inputs == ("x",)
    assert second.plan.nodes_by_backend == {"litert-cpu": 2}
