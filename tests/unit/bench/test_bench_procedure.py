"""How a measurement went, as an agent tells it, and what is kept where it breaks off."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesdk.bench.conditions import describe_conditions
from edgesdk.bench.measurements import read_measurements
from edgesdk.bench.procedure import read_procedure, throughput
from edgesdk.bench.procedure_values import Procedure
from edgesdk.bench.run import Live, take_measurements
from edgesdk.bench.trust import judge_trust
from edgesdk.bench.values import BenchSpec
from edgesdk.errors import ChannelClosed, InputError, ProtocolError, WorkerError
from edgesdk.report.procedure import procedure_rows
from edgesdk.report.schema import report_adapter
from edgesdk.wire.frames import Frame
from tests.unit.bench.fixtures import ScriptedSession, make_bundle, reply_frame
from tests.unit.report.fixtures import make_sample_report

TOLD: dict[str, Any] = {
    "runs": 500,
    "wall_s": 2.0,
    "stopped": "interval",
    "half_width": 0.004,
    "warm_up": {"runs": 30, "ns": 500_000_000, "stopped": "settled", "settle": True},
    "clock_went_back": 1,
    "one_call": True,
    "around": {
        "runs": 30,
        "in_ns": 20_000,
        "calls_ns": 2_000_000,
        "between_ns": 0,
        "out_ns": 10_000,
        "odd": {"logits": 3},
    },
    "scenario": {},
    "conditions": {
        "samples": [
            {"t_s": 0.0, "others_cpu": 9.0},
            {"t_s": 1.0, "others_cpu": 0.2},
            {"t_s": 3.0, "others_cpu": 0.5},
        ],
        "cpu_share": 0.001,
        "why_no_energy": "only root may read the energy counters of this machine",
        "energy": [],
    },
}


def told(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(TOLD), **changes}


def energy(*sensors: tuple[str, str, float, int | None]) -> dict[str, Any]:
    entries = [
        {"name": name, "kind": kind, "joules": joules, "mean_w": None, "samples": samples}
        for name, kind, joules, samples in sensors
    ]
    return {**TOLD["conditions"], "energy": entries}


def test_a_reply_is_put_into_words_and_milliseconds() -> None:
    spec = BenchSpec(until=0.01)
    procedure = read_procedure(told(), spec)
    assert procedure.stopped == "interval"
    assert procedure.why == (
        "the interval of the median was narrow enough, after 500 runs; the median is known to "
        "within 0.40% (asked for: 1.00%)"
    )
    assert procedure.warm_up is not None
    assert procedure.warm_up.settled is True
    assert procedure.around is not None
    assert (procedure.around.in_ms, procedure.around.calls_ms) == (0.02, 2.0)
    assert procedure.per_s == 250.0
    assert procedure.others_cpu == pytest.approx((1 * 0.2 + 2 * 0.5) / 3)
    assert procedure.energy_per_inference_mj is None
    assert procedure.energy_why.startswith("only root may read")
    assert procedure.odd_outputs == {"logits": 3}


def test_an_agent_that_tells_nothing_of_it_gives_a_procedure_all_the_same() -> None:
    procedure = read_procedure({"runs": 10}, BenchSpec(runs=400))
    assert procedure.stopped == "time"
    assert procedure.warm_up is None
    assert procedure.around is None
    assert procedure.energy_why == "the agent there does not tell"


@pytest.mark.parametrize(
    ("sensors", "mj", "said"),
    [
        ([("psys", "counter", 5.0, None), ("package-0", "counter", 4.0, None)], 10.0, "psys"),
        (
            [("package-0", "counter", 2.0, None), ("package-1", "counter", 1.0, None)],
            6.0,
            "of all processors, by package-0, package-1",
        ),
        ([("VDD_IN", "sampled", 5.0, 9), ("VDD_SOC", "sampled", 1.0, 9)], 10.0, "by VDD_IN"),
        ([("VDD_IN", "sampled", 5.0, 2)], None, "too short: 2 readings of VDD_IN"),
        ([("VDD_GPU", "sampled", 5.0, 9), ("VDD_SOC", "sampled", 1.0, 9)], None, "none of its"),
        ([("ina226", "sampled", 1.0, 5)], 2.0, "by ina226"),
        ([("amdgpu", "sampled", 1.0, 5)], None, "none of its sensors sees the whole device"),
    ],
)
def test_energy_is_that_of_the_sensor_that_sees_most(
    sensors: list[tuple[str, str, float, int | None]], mj: float | None, said: str
) -> None:
    procedure = read_procedure(told(conditions=energy(*sensors)), BenchSpec())
    assert procedure.energy_per_inference_mj == (None if mj is None else pytest.approx(mj))
    assert said in procedure.energy_why
    assert len(procedure.energy) == len(sensors)


def test_a_server_tells_what_arrived_and_what_waited() -> None:
    spec = BenchSpec(scenario="server", rate_per_s=300.0, runs=0)
    scenario = {"runs_by_stream": [500], "waiting_at_end": 100, "service_ns": 3_000_000}
    procedure = read_procedure(told(scenario=scenario, stopped="time"), spec)
    assert procedure.served is not None
    assert procedure.served.arrived_per_s == 300.0
    assert procedure.served.done_per_s == 250.0
    assert procedure.served.service_ms == 3.0
    measured = replace(read_measurements(reply_frame([1.0]), device="d"), procedure=procedure)
    notes = describe_conditions(measured, spec, cpu_count=4).notes
    assert any("does not keep up with 300 arrivals" in note for note in notes)
    assert throughput(measured, spec) == 250.0


def test_batches_count_their_inferences() -> None:
    spec = BenchSpec(scenario="offline", batch=4)
    procedure = read_procedure(told(one_call=False), spec)
    assert procedure.inferences == 2000
    assert procedure.per_s == 1000.0
    assert procedure.one_call is False


def test_what_was_odd_becomes_notes() -> None:
    spec = BenchSpec(until=0.001)
    meta = told(
        warm_up={"runs": 25, "ns": 10**9, "stopped": "time", "settle": True}, stopped="time"
    )
    measured = read_measurements(reply_frame([1.0]), device="d")
    measured = replace(measured, procedure=read_procedure(meta, spec))
    notes = "\n".join(describe_conditions(measured, spec, cpu_count=4).notes)
    assert "output logits holds 3 elements that are NaN or infinite" in notes
    assert "the device's clock went back 1 times" in notes
    assert "not warm when counting began: the runs still got faster after 1.0 s" in notes
    assert "before the median was known to within 0.10%: it is to within 0.40%" in notes
    assert "other processes took 0.40 cores" in notes


def test_swapping_is_noted() -> None:
    samples = [
        {"t_s": float(at), "swap_used_bytes": used << 20} for at, used in enumerate((10, 200))
    ]
    frame = reply_frame([1.0], conditions={"samples": samples})
    notes = describe_conditions(
        read_measurements(frame, device="d"), BenchSpec(), cpu_count=4
    ).notes
    assert any(note == "memory was short: 190 MiB more were swapped out" for note in notes)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from([*TOLD, "name", "kind", "joules"]), inner, max_size=5
            )
        ),
        max_leaves=20,
    )
)
def test_no_reply_makes_reading_fail(value: Any) -> None:
    for meta in (value, *({**TOLD, name: value} for name in TOLD)):
        if isinstance(meta, Mapping):
            procedure = read_procedure(meta, BenchSpec(scenario="server", rate_per_s=1.0))
            report = replace(make_sample_report(), procedure=procedure)
            assert report_adapter().validate_json(report_adapter().dump_json(report)) == report
            procedure_rows(report)


# -- what had arrived ----------------------------------------------------------------------


class BreakingSession(ScriptedSession):
    """Tells its events, then breaks."""

    def __init__(self, exc: Exception, *events: dict[str, Any]) -> None:
        super().__init__(events=events)
        self._exc = exc

    def request(
        self,
        op: str,
        meta: Mapping[str, Any] | None = None,
        body: bytes = b"",
        *,
        timeout_s: float = 60.0,
        on_event: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> Frame:
        for event in self._events:
            assert on_event is not None
            on_event(event)
        raise self._exc


def event(step: str, done: int, *recent_ns: Any, **live: Any) -> dict[str, Any]:
    live["recent_ns"] = list(recent_ns)
    return {"event": "progress", "step": step, "done": done, "live": live}


GONE = ChannelClosed("cannot read from bench-3: the link is closed")


def test_samples_of_events_are_kept_where_the_link_breaks() -> None:
    look = {"t_s": 0.5, "cpu_mhz": [1000.0], "throttled": ["under-voltage"]}
    session = BreakingSession(
        GONE,
        event("warm up", 9, 9_000_000),
        event("run", 4, 1_000_000, 2_000_000, half_width=0.5, conditions=look),
        event("run", 6, 3_000_000, "x", -1, 1e30),
    )
    seen: list[Live] = []
    measured = take_measurements(
        session,
        bundle=make_bundle(),
        spec=BenchSpec(),
        keep_partial=True,
        on_live=seen.append,
    )
    assert measured.samples_ms == (1.0, 2.0, 3.0)
    assert measured.broken is GONE
    assert measured.procedure is not None
    assert measured.procedure.incomplete == f"{GONE}; 3 of 6 runs made until then are here"
    assert measured.condition_samples[0].throttled == ("under-voltage",)
    assert [live.step for live in seen] == ["warm up", "run", "run"]
    assert seen[1].half_width == 0.5
    notes = describe_conditions(measured, BenchSpec(), cpu_count=4).notes
    assert notes[0].startswith("incomplete: cannot read from bench-3")
    assert not any("time limit" in note for note in notes)


@pytest.mark.parametrize("keep", [True, False])
def test_without_any_sample_or_wish_the_error_is_raised(keep: bool) -> None:
    events = (
        [event("warm up", 9, 9_000_000)] if keep else [event("run", 3, 1_000_000, 2_000_000)]
    )
    with pytest.raises(ChannelClosed):
        take_measurements(
            BreakingSession(GONE, *events),
            bundle=make_bundle(),
            spec=BenchSpec(),
            keep_partial=keep,
        )


def test_a_worker_that_dies_is_kept_like_a_link() -> None:
    died = WorkerError("cannot benchmark the model on bench-3: the worker ended by SIGKILL")
    session = BreakingSession(died, event("run", 1, 5_000_000))
    measured = take_measurements(
        session, bundle=make_bundle(), spec=BenchSpec(), keep_partial=True
    )
    assert measured.broken is died


def test_a_processor_that_is_not_there_is_bad_input() -> None:
    no = ProtocolError("cannot benchmark the model on d: there is no cpu 9", option="cpus")
    with pytest.raises(InputError, match="there is no cpu 9") as caught:
        take_measurements(BreakingSession(no), bundle=make_bundle(), spec=BenchSpec(cpus=(9,)))
    assert "--cpus" in caught.value.hint


def test_what_is_asked_for_beyond_the_usual_is_sent() -> None:
    session = ScriptedSession(reply_frame([1.0]))
    spec = BenchSpec(
        settle=True,
        until=0.02,
        patience_s=3.0,
        scenario="server",
        streams=2,
        batch=3,
        rate_per_s=9.0,
        seed=7,
        cpus=(0, 1),
    )
    take_measurements(session, bundle=make_bundle(), spec=spec, around=True)
    sent = session.asked[0][1]["spec"]
    more = {"settle": True, "until": 0.02, "patience_s": 3.0, "streams": 2, "batch": 3}
    more |= {"rate_per_s": 9.0, "seed": 7, "cpus": [0, 1], "around": True, "threads": 2}
    assert {name: sent[name] for name in more} == more


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"until": 0.0}, "a share between 0 and 1"),
        ({"until": 0.01, "runs": 0}, "until needs runs"),
        ({"until": 0.01, "duration_s": None}, "until needs duration_s"),
        ({"patience_s": -1.0}, "patience_s must be"),
        ({"scenario": "bulk"}, "there is no scenario 'bulk'"),
        ({"streams": 0}, "streams must be 1 to 256"),
        ({"cpus": ()}, "one processor at least"),
        ({"rate_per_s": 3.0}, "goes with the server scenario"),
        ({"scenario": "server"}, "goes with the server scenario"),
        ({"scenario": "server", "rate_per_s": 0.0}, "must be above 0"),
        ({"streams": 2}, "several streams are"),
        ({"scenario": "multi-stream"}, "needs 2 streams"),
        ({"scenario": "offline"}, "needs a batch of 2"),
    ],
)
def test_a_scenario_that_contradicts_itself_is_refused(
    fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        BenchSpec(**fields)


def test_reports_from_before_there_were_procedures_still_read() -> None:
    document = json.loads(report_adapter().dump_json(make_sample_report()))
    del document["procedure"]
    for name in ("settle", "until", "patience_s", "scenario", "streams", "batch"):
        del document["spec"][name]
    report = report_adapter().validate_python(document)
    assert report.procedure is None
    assert report.spec.until is None
    assert procedure_rows(report) == ()


def test_rows_say_what_an_inference_is_made_up_of() -> None:
    procedure: Procedure = read_procedure(told(), BenchSpec())
    rows = {
        row.label: row.value
        for row in procedure_rows(replace(make_sample_report(), procedure=procedure))
    }
    assert (
        rows["made up of"] == "the runtime's calls 2.00 ms, input 0.0200 ms, output 0.0100 ms"
    )
    assert rows["energy"].startswith("not known: only root may read")
    assert rows["measured"].startswith("the interval of the median")


@pytest.mark.parametrize(
    ("runs", "streams", "settled"),
    [(10, 1, None), (19, 1, None), (20, 1, False), (30, 2, None)],
)
def test_too_few_runs_to_tell_are_no_word_against_a_slow_model(
    runs: int, streams: int, settled: bool | None
) -> None:
    """Four windows of five runs have to be seen before any can have settled."""
    warm_up = {"runs": runs, "ns": 10**10, "stopped": "time", "settle": True}
    spec = BenchSpec(
        scenario="single-stream" if streams == 1 else "multi-stream", streams=streams
    )
    procedure = read_procedure(told(warm_up=warm_up), spec)
    assert procedure.warm_up is not None
    assert procedure.warm_up.settled is settled
    measured = replace(read_measurements(reply_frame([1.0]), device="d"), procedure=procedure)
    conditions = describe_conditions(measured, spec, cpu_count=4)
    assert any("not warm" in note for note in conditions.notes) == (settled is False)
    trust = judge_trust([500.0] * 20, conditions, procedure=procedure, spec=spec)
    assert ("warm-up" in {reason.about for reason in trust.reasons}) == (settled is False)
    if settled is None:
        assert procedure.warm_up.how == "too few runs in 10.0 s to tell whether it was warm"


@pytest.mark.parametrize(("stopped", "said"), [("time", True), ("runs", False)])
def test_the_time_limit_is_named_only_where_it_ended_it(stopped: str, said: bool) -> None:
    spec = BenchSpec(runs=5)
    procedure = read_procedure(told(runs=4, stopped=stopped), spec)
    measured = replace(
        read_measurements(reply_frame([1.0] * 4), device="d"), procedure=procedure
    )
    notes = describe_conditions(measured, spec, cpu_count=4).notes
    assert any("the time limit of 60 s ended it after 4 runs" in note for note in notes) == said
    assert any("clock went back" in note for note in notes)


def test_notes_and_reasons_say_the_same_of_other_work() -> None:
    samples = [{"t_s": float(at), "load1": 9.0, "others_cpu": 0.05} for at in range(3)]
    frame = reply_frame([1.0] * 30, conditions={"samples": samples})
    for meta, load in ((frame.meta, False), ({**frame.meta, "conditions": {}}, True)):
        procedure = read_procedure(meta, BenchSpec())
        measured = replace(read_measurements(frame, device="d"), procedure=procedure)
        conditions = describe_conditions(measured, BenchSpec(), cpu_count=4)
        trust = judge_trust([1.0] * 30, conditions, cpu_count=4, procedure=procedure)
        assert any("a load of 9.00" in note for note in conditions.notes) == load
        assert any("a load of 9.00" in reason.text for reason in trust.reasons) == load
