"""An accelerator that gets nothing of a model is named before anything is built."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import onnx.parser
import pytest

from edgesdk.backends import Refusal
from edgesdk.cli.placement import idle_notes
from edgesdk.model.open import OpenedModel, open_model
from edgesdk.plan import Recipe, model_facts, plan_build
from edgesdk.profiles import TargetProfile, find_target

NET = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[1, 4] x) => (float[1, 4] y) { y = Relu (x) }
"""


@pytest.fixture
def model(tmp_path: Path) -> OpenedModel:
    onnx.save(onnx.parser.parse_model(NET), tmp_path / "net.onnx")
    return open_model(tmp_path / "net.onnx")


def notes(model: OpenedModel, profile: TargetProfile, precision: str) -> tuple[str, ...]:
    recipe = Recipe(precision=precision)
    return idle_notes(profile, plan_build(model_facts(model, profile, recipe), profile, recipe))


def test_a_float_build_for_an_accelerator_of_whole_numbers_says_what_to_give(
    model: OpenedModel,
) -> None:
    assert notes(model, find_target("coral-dev-board"), "fp32") == (
        "note: edgetpu gets none of the nodes: it runs int8, and this build is fp32; "
        "--calib DATA builds int8 (a plan needs only --precision int8)",
    )


def test_of_several_reasons_the_first_is_given_with_its_node(model: OpenedModel) -> None:
    profile = find_target("coral-dev-board")
    recipe = Recipe(precision="int8")
    made = plan_build(model_facts(model, profile, recipe), profile, recipe)
    first, second = (
        replace(
            made.nodes[0],
            index=index,
            backend="litert-cpu",
            refusals=(Refusal(backend="edgetpu", reason=reason),),
        )
        for index, reason in enumerate(("it is too small", "it is too large"))
    )
    (note,) = idle_notes(profile, replace(made, nodes=(first, first)))
    assert note == "note: edgetpu gets none of the nodes: it is too small"
    (note,) = idle_notes(profile, replace(made, nodes=(first, second)))
    assert note.endswith("it is too small (node 0 Relu; edgesdk plan says why of each)")


def test_nothing_is_said_where_it_gets_some_or_there_is_none(model: OpenedModel) -> None:
    assert notes(model, find_target("host"), "fp32") == ()
    profile = find_target("host")
    first = replace(profile.backends[0], accelerator=True)
    assert notes(model, replace(profile, backends=(first, *profile.backends[1:])), "fp32") == ()
