"""The second look of a gate: which way it is made, and that a coarse one is made for longer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from edgesdk.bench import regression_again
from edgesdk.bench.regression_again import look_again
from edgesdk.bench.values import BenchSpec
from edgesdk.errors import ProtocolError
from tests.unit.bench.fixtures import ScriptedSession, make_bundle, reply_frame
from tests.unit.bench.test_regression import comparison
from tests.unit.report.fixtures import lognormal_ms, make_sample_report, vary

OURS, THEIRS = make_bundle(), replace(make_bundle(), id="ab" * 32)


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long each comparison was to take; the first is coarse, later ones are not."""
    asked: list[float] = []

    def compare(*_: object, seconds: float, **__: object) -> Any:
        asked.append(seconds)
        return comparison(1.05, 0.5 if len(asked) == 1 else 0.001)

    monkeypatch.setattr(regression_again, "prove_bundle", lambda *_, **__: None)
    monkeypatch.setattr(regression_again, "compare_bundles", compare)
    return asked


def again(session: Any = None, theirs: Any = THEIRS, **fields: Any):
    return look_again(
        session,
        OURS,
        theirs,
        report=vary(**fields),
        reference=make_sample_report(),
        limit=0.02,
        seconds=2.0,
    )


def test_a_coarse_comparison_is_made_once_more_for_longer(spans: list[float]) -> None:
    look = again()
    assert spans == [2.0, 6.0]
    assert look.slower
    assert look.notes[0] == "2 s were too coarse to tell, so it was measured for longer"


def test_a_fine_comparison_is_made_once(spans: list[float]) -> None:
    spans.append(0.0)  # as if the coarse one had been
    assert again().kind == "interleaved"
    assert spans == [0.0, 2.0]


@pytest.mark.parametrize(
    ("theirs", "fields", "why"),
    [
        (None, {}, "not at hand"),
        (OURS, {}, "the same bundle"),
        (THEIRS, {"spec": BenchSpec(scenario="offline", batch=4)}, "only a single stream"),
        (THEIRS, {"spec": BenchSpec(cpus=(0,))}, "only a single stream"),
        (THEIRS, {"spec": BenchSpec(batch=8)}, "only a single stream"),
    ],
)
def test_what_cannot_be_measured_in_turns_is_measured_anew(
    theirs: Any, fields: dict[str, Any], why: str, spans: list[float]
) -> None:
    session = ScriptedSession(reply_frame(lognormal_ms(100, 3.94, 5)))
    look = again(session, theirs, **fields)
    assert (look.kind, look.slower) == ("fresh", False)
    assert why in look.notes[0]
    assert spans == []


def test_an_older_agent_measures_anew_and_other_trouble_is_raised(
    spans: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(code: str) -> None:
        def compare(*_: object, **__: object) -> None:
            raise ProtocolError("no such operation", code=code)

        monkeypatch.setattr(regression_again, "compare_bundles", compare)

    refuse("unknown-op")
    look = again(ScriptedSession(reply_frame(lognormal_ms(100, 3.94, 5))))
    assert "too old to measure in turns" in look.notes[0]
    refuse("other")
    with pytest.raises(ProtocolError):
        again()
