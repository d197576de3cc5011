"""Every precision through one door: converted, measured, refused or passed over by name."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgesdk.errors import CalibrationError, QuantizeError
from edgesdk.profiles.catalog import default_target
from edgesdk.profiles.values import BackendProfile
from edgesdk.quantize.host import HostSession
from edgesdk.quantize.judge import LabelledJudge
from edgesdk.quantize.modes import Wanted, convert
from edgesdk.quantize.prune_spec import parse_prune
from edgesdk.quantize.state import State
from edgesdk.quantize.timing import PairedTimes
from edgesdk.quantize.values import Quantized
from tests.unit.quantize.floats import named, samples
from tests.unit.quantize.modes import normal, ops, run, size

TEXT = """
<ir_version: 10, opset_import: ["" : 21]>
small (float[1, 8, 10, 10] x) => (float[1, 6] y)
{
    c = Conv <pads = [1, 1, 1, 1]> (x, w, b)
    r = Relu (c)
    e = Conv (r, d)
    s = Relu (e)
    p = GlobalAveragePool (s)
    f = Flatten (p)
    g = Gemm <transB = 1> (f, u, h)
    t = Relu (g)
    y = MatMul (t, v)
}
"""


def small(**others: np.ndarray) -> ir.Model:
    weights = {
        "w": normal(16, 8, 3, 3) * 0.2,
        "b": normal(16),
        "d": normal(32, 16, 1, 1, seed=2) * 0.3,
        "u": normal(64, 32, seed=3) * 0.3,
        "h": normal(64, seed=4),
        "v": normal(64, 6, seed=5) * 0.2,
    }
    return named(TEXT, {**weights, **others})


def backend() -> BackendProfile:
    return next(one for one in default_target().backends if one.runtime == "onnxruntime")


def wanted(precision: str, **more: Any) -> Wanted:
    profile = backend()
    fields: dict[str, Any] = {
        "precision": precision,
        "scheme": profile.scheme,
        "precisions": profile.precisions,
        "runtime": profile.runtime,
        "kind": profile.kind,
        **more,
    }
    return Wanted(**fields)


def converted(precision: str, model: ir.Model | None = None, **more: Any) -> Quantized:
    model = model or small()
    data = samples(model, 24)
    judge, state = more.pop("judge", None), more.pop("state", None)
    return convert(
        model, lambda: data, wanted(precision, **more), total=24, judge=judge, state=state
    )


def judge_of(model: ir.Model) -> LabelledJudge:
    data = samples(model, 100, seed=9)
    session = HostSession(model)
    labels = np.concatenate([session.run(one)["y"] for one in data]).argmax(axis=1)
    return LabelledJudge(lambda: data, labels, total=100)


def share_of_noise(done: Quantized, model: ir.Model) -> float:
    (sample,) = samples(model, 1, seed=5)
    (want,), (got,) = run(model, **sample), run(done.model, **sample)
    return float(((got - want) ** 2).sum() / (want**2).sum())


@pytest.mark.parametrize(
    ("precision", "most", "op"),
    [
        ("fp16", 1e-5, "Cast"),
        ("int8", 1e-2, "QuantizeLinear"),
        ("int16x8", 1e-2, "QuantizeLinear"),
        ("int8-dynamic", 1e-2, "DynamicQuantizeLinear"),
        ("int4-weights", 0.1, "MatMulNBits"),
    ],
)
def test_each_precision_is_smaller_and_near_float(precision: str, most: float, op: str) -> None:
    model = small()
    done = converted(precision, model)
    assert done.precision == precision
    assert (done.samples > 0) == (precision not in ("fp16", "int8-dynamic"))
    assert share_of_noise(done, model) < most
    assert size(done.model) < size(model) * 0.95
    if op != "MatMulNBits":
        assert ops(done.model)[op]
    assert done.sqnr_db is not None
    assert done.budget is None
    assert not [one for one in done.findings if one.code == "budget-not-kept"]


@pytest.mark.parametrize("precision", ["fp16", "int8-dynamic", "int4-weights"])
def test_some_precisions_need_no_data(precision: str) -> None:
    done = convert(small(), None, wanted(precision))
    assert (done.precision, done.samples, done.sqnr_db) == (precision, 0, None)
    assert share_of_noise(done, small()) < 0.1


@pytest.mark.parametrize("precision", ["int8", "int16x8"])
def test_others_are_refused_without(precision: str) -> None:
    with pytest.raises(QuantizeError) as caught:
        convert(small(), None, wanted(precision))
    assert str(caught.value) == (
        f"cannot quantize to {precision}: there is no calibration data"
    )
    assert "--calib" in caught.value.hint


def test_a_backend_without_a_scheme_has_no_eight_bits() -> None:
    with pytest.raises(QuantizeError, match="int8: the backend names no scheme"):
        converted("int8", scheme=None)


def test_an_unknown_precision_is_named_with_those_there_are() -> None:
    with pytest.raises(QuantizeError, match="'int9': there is no such precision") as caught:
        converted("int9")
    assert "int4-weights" in caught.value.hint


@pytest.mark.parametrize("precision", ["fp16", "int8", "int8-dynamic", "int4-weights"])
def test_a_limit_that_was_asked_for_and_is_broken_is_an_error(precision: str) -> None:
    with pytest.raises(QuantizeError) as caught:
        converted(precision, max_drop=1e-15)
    assert caught.value.exit_code == 3
    assert "noise" in str(caught.value)
    assert "expected at most 1e-15" in str(caught.value) or "within 1e-15" in str(caught.value)
    assert "--max-drop" in caught.value.hint


class Hopeless(LabelledJudge):
    """Labels of which every other precision than float loses all."""

    def drop(self, session: HostSession) -> float:
        super().drop(session)
        return 0.5


@pytest.mark.parametrize("precision", ["fp16", "int8", "int8-dynamic"])
def test_a_limit_of_ours_that_is_broken_is_a_warning(precision: str) -> None:
    model = small()
    base = judge_of(model)
    judge = Hopeless(base._samples, base._labels)
    done = converted(precision, model, judge=judge)
    (finding,) = [one for one in done.findings if one.code == "budget-not-kept"]
    assert finding.severity == "warning"
    assert finding.message.startswith("top-1 drops by 0.5 in ")


def test_auto_takes_eight_bits_where_they_keep_the_limit() -> None:
    done = converted("auto")
    assert done.precision == "int8"
    assert done.budget is not None
    assert (done.budget.metric, done.budget.limit) == ("noise", 0.025)


def test_auto_measures_on_labels_where_there_are_some() -> None:
    model = small()
    done = converted("auto", model, judge=judge_of(model))
    assert done.budget is not None
    assert (done.budget.metric, done.budget.limit) == ("top-1", 0.01)


def test_auto_takes_nothing_that_it_cannot_measure() -> None:
    done = convert(small(), None, wanted("auto"))
    assert done.precision == "fp32"
    passed = [one.message for one in done.findings if one.code == "precision-passed-over"]
    assert any("there is nothing to measure it on" in message for message in passed)


@pytest.mark.parametrize("precision", ["fp16", "int8-dynamic", "int4-weights"])
def test_a_limit_with_nothing_to_measure_it_on_is_refused(precision: str) -> None:
    with pytest.raises(QuantizeError, match="there is nothing to measure it on") as caught:
        convert(small(), None, wanted(precision, max_drop=0.0))
    assert "--data" in caught.value.hint


@pytest.mark.parametrize("limit", [True, -0.1, 1.5, float("nan"), "1%"])
def test_a_limit_that_is_no_share_is_refused_before_anything_is_done(limit: Any) -> None:
    with pytest.raises(QuantizeError, match="expected a share from 0 to 1"):
        convert(small(), None, wanted("int8", max_drop=limit))


def test_auto_falls_back_to_float_and_says_what_it_passed_over() -> None:
    done = converted("auto", max_drop=1e-18)
    assert (done.precision, done.quantized_nodes) == ("fp32", 0)
    passed = [one for one in done.findings if one.code == "precision-passed-over"]
    tried = [one.message.removeprefix("not taken: ").split(":")[0] for one in passed]
    assert tried == [
        p for p in ("int8", "int16x8", "int8-dynamic", "fp16") if p in backend().precisions
    ]
    assert all(one.severity == "info" for one in passed)
    assert share_of_noise(done, small()) == 0.0


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_data_that_cannot_calibrate_are_an_error_in_auto_as_elsewhere(value: float) -> None:
    data = samples(small(), 4)
    data[2]["x"][0, 0, 0, 0] = value
    for precision in ("int8", "auto"):
        with pytest.raises(CalibrationError, match=r"with sample 2: input 'x' holds NaN or"):
            convert(small(), lambda: data, wanted(precision))


@pytest.mark.parametrize(
    ("pairs", "slower", "precision"), [(7, 7, "fp32"), (9, 7, "int8"), (12, 11, "fp32")]
)
def test_auto_passes_over_what_is_slower_beyond_chance(
    pairs: int, slower: int, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = PairedTimes(before_ms=1.0, after_ms=2.0, slower=slower, pairs=pairs)
    monkeypatch.setattr("edgesdk.quantize.modes.time_pair", lambda *_: times)
    done = converted("auto", same_machine=True, precisions=("int8",))
    assert done.precision == precision
    told = [one.message for one in done.findings if one.code == "precision-passed-over"]
    assert told == ["not taken: int8: float is faster on this computer"] * (precision == "fp32")


def test_auto_goes_on_from_no_search_of_another_precision(tmp_path: Path) -> None:
    """What 8 bits lost says nothing of 16."""
    model = small()
    whole = converted("auto", model, precisions=("int8", "int16x8"), max_drop=1e-5)
    kept = converted(
        "auto",
        model,
        precisions=("int8", "int16x8"),
        max_drop=1e-5,
        state=State(tmp_path, "k"),
    )
    assert (kept.precision, kept.budget) == (whole.precision, whole.budget)


@pytest.mark.parametrize("pattern", ["2:4", "unstructured:0.5", "channels:0.3"])
@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_pruning_comes_first_and_is_recorded(pattern: str, precision: str) -> None:
    done = converted(precision, prune=parse_prune(pattern))
    assert done.precision == precision
    assert done.pruned is not None
    assert done.pruned.pattern == pattern
    assert done.pruned.layers
    assert done.pruned.bytes_after < done.pruned.bytes_before
    assert done.pruned.drop is None
    assert done.to_json()["pruned"]["pattern"] == pattern


def test_pruning_is_held_to_the_limit_too() -> None:
    model = small()
    data = samples(model, 20, seed=9)
    session = HostSession(model)
    near = np.concatenate([session.run(one)["y"] for one in data]) + 0.01
    spec = parse_prune("unstructured:0.95")
    judge = LabelledJudge(lambda: data, near)
    with pytest.raises(QuantizeError) as caught:
        converted("int8", model, prune=spec, judge=judge, max_drop=0.0)
    problem = "cannot prune by unstructured:0.95: mean-abs-error drops by "
    assert str(caught.value).startswith(problem)
    assert str(caught.value).endswith("(expected at most 0)")
    assert caught.value.exit_code == 3


def test_pruning_needs_samples() -> None:
    with pytest.raises(QuantizeError, match="cannot prune the model: there is no calibration"):
        convert(small(), None, wanted("fp16", prune=parse_prune("2:4")))


def test_what_arrives_quantized_stays_as_it_is_unless_told_otherwise() -> None:
    model = small()
    first = converted("int8", model)
    again = converted("int8", first.model)
    assert [one.code for one in again.findings] == ["already-quantized"]
    (sample,) = samples(model, 1, seed=5)
    assert np.array_equal(run(first.model, **sample)[0], run(again.model, **sample)[0])
    anew = converted("int8", first.model, requantize=True)
    assert anew.quantized_nodes == first.quantized_nodes
    assert share_of_noise(anew, model) < 0.02


def _without_times(done: Quantized) -> tuple[bytes, dict[str, Any]]:
    return ir.to_proto(done.model).SerializeToString(deterministic=True), done.to_json()


@pytest.mark.parametrize(
    "precision", ["fp16", "int8", "int16x8", "int8-dynamic", "int4-weights"]
)
def test_twice_is_the_same(precision: str) -> None:
    assert _without_times(converted(precision)) == _without_times(converted(precision))


@pytest.mark.parametrize("here", [False, True])
def test_times_are_told_beside_the_record(*, here: bool) -> None:
    done = converted("int8", same_machine=here)
    assert (done.measured_ms is not None) is here
    assert "measured_ms" not in done.to_json()
    assert all(math.isfinite(one) for one in (done.measured_ms or {}).values())


def test_means_that_are_not_allowed_are_not_tried() -> None:
    done = converted("int8", means=("range-mse",))
    assert [mean.name for mean in done.means] == ["range-mse"]
    assert converted("int8", means=()).means == ()
