"""What a deployment builds for a contest, and what is said where there is none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import onnx.parser
import pytest

from edgesdk.bundle import Bundle
from edgesdk.cli.contest import build_competitors, choice_notes, contender_record
from edgesdk.errors import BuildError, CompileError
from edgesdk.model.open import OpenedModel, open_model
from edgesdk.plan import BuildPlan, Contender, Recipe, model_facts, plan_build, plan_contest
from edgesdk.profiles import TargetProfile, find_target
from edgesdk.testing import make_echo_bundle

NET = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[1, 4] x) => (float[1, 4] y) { y = Relu (x) }
"""
FLOAT = Recipe(precision="fp32")


@pytest.fixture
def model(tmp_path: Path) -> OpenedModel:
    onnx.save(onnx.parser.parse_model(NET), tmp_path / "net.onnx")
    return open_model(tmp_path / "net.onnx")


@pytest.fixture
def profile() -> TargetProfile:
    return replace(find_target("host"), contest=("ort-cpu", "openvino-cpu"))


@pytest.fixture
def contenders(model: OpenedModel, profile: TargetProfile) -> tuple[Contender, ...]:
    return plan_contest(model, profile, FLOAT)


def test_each_contender_is_built_from_its_own_plan(
    contenders: tuple[Contender, ...], tmp_path: Path
) -> None:
    asked: list[tuple[str, BuildPlan]] = []

    def build(each: Contender, plan: BuildPlan) -> tuple[Bundle, Bundle | None]:
        asked.append((each.backend, plan))
        return make_echo_bundle(tmp_path / each.backend, part=each.backend.encode()), None

    first, second = build_competitors(contenders, build)
    assert asked == [(each.backend, each.plan) for each in contenders]
    assert (first.entrant.backend, second.entrant.backend) == ("ort-cpu", "openvino-cpu")
    assert first.entrant.bundle is not None
    assert first.entrant.nodes == {"ort-cpu": 1}
    assert first.floats is None


def test_one_that_cannot_be_built_is_out_and_the_other_is_not(
    contenders: tuple[Contender, ...], tmp_path: Path
) -> None:
    def build(each: Contender, plan: BuildPlan) -> tuple[Bundle, Bundle | None]:
        if each.backend == "ort-cpu":
            raise CompileError("cannot compile part 0: the compiler hangs")
        return make_echo_bundle(tmp_path / each.backend), make_echo_bundle(tmp_path / "floats")

    first, second = build_competitors(contenders, build)
    assert first.entrant.bundle is None
    assert first.entrant.why_out == "cannot compile part 0: the compiler hangs"
    assert second.entrant.bundle is not None
    assert second.floats is not None


def test_where_none_can_be_built_it_is_the_first_error(
    contenders: tuple[Contender, ...],
) -> None:
    def build(each: Contender, plan: BuildPlan) -> tuple[Bundle, Bundle | None]:
        raise CompileError(f"cannot compile for {each.backend}")

    with pytest.raises(BuildError, match="cannot compile for ort-cpu"):
        build_competitors(contenders, build)


def test_one_that_is_out_already_is_not_built(
    contenders: tuple[Contender, ...], tmp_path: Path
) -> None:
    out = replace(contenders[1], plan=None, why_out="it gets none of the nodes")

    def build(each: Contender, plan: BuildPlan) -> tuple[Bundle, Bundle | None]:
        assert each.backend == "ort-cpu"
        return make_echo_bundle(tmp_path / each.backend), None

    _, second = build_competitors((contenders[0], out), build)
    assert second.entrant.why_out == "it gets none of the nodes"
    assert contender_record(out)["nodes_by_backend"] is None


def notes(model: OpenedModel, profile: TargetProfile, recipe: Recipe) -> tuple[str, ...]:
    made = plan_build(model_facts(model, profile, recipe), profile, recipe)
    return choice_notes(profile, recipe, made, why="--no-contest takes")


def test_a_choice_that_was_not_measured_is_said(
    model: OpenedModel, profile: TargetProfile
) -> None:
    assert notes(model, profile, FLOAT) == (
        "note: which is faster, ort-cpu or openvino-cpu, shows on the device; "
        "--no-contest takes ort-cpu",
    )
    assert notes(model, replace(profile, contest=()), FLOAT) == ()


def test_a_preference_needs_no_word_unless_it_gets_nothing(
    model: OpenedModel, profile: TargetProfile
) -> None:
    assert notes(model, profile, replace(FLOAT, prefer=("openvino-cpu",))) == ()
    deaf = tuple(
        replace(each, kind="nothing") if each.id == "openvino-cpu" else each
        for each in profile.backends
    )
    recipe = replace(FLOAT, prefer=("openvino-cpu",))
    (note,) = notes(model, replace(profile, backends=deaf), recipe)
    assert note == (
        "note: openvino-cpu, which was asked for, gets none of the nodes: this version of "
        "edgesdk has no compiler for nothing"
    )
