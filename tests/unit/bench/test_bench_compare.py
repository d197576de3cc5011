"""Comparing on a device: what is asked, what is made of the answer, what is not believed."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import pytest

from edgesdk.bench.compare import compare_bundles, compare_with_several
from edgesdk.bench.compare_values import Comparison, PairedBlock
from edgesdk.bench.offload import ask_offload
from edgesdk.bench.run import take_measurements
from edgesdk.bench.spec_values import BenchSpec, threads_of
from edgesdk.errors import InputError, ProtocolError
from edgesdk.progress import Progress
from edgesdk.report.files import encode_report
from edgesdk.report.read import parse_report
from edgesdk.wire.frames import Frame
from tests.unit.bench.fixtures import ScriptedSession, make_bundle, reply_frame
from tests.unit.report.fixtures import vary

OURS = make_bundle()
THEIRS = replace(OURS, id="ab" * 32)


def answer(times: list[tuple[float, float]], **changes: Any) -> Frame:
    body = b"".join(
        struct.pack("<5Q", 40_000_000 * k, round(a * 1e6), round(b * 1e6), 20, 19)
        for k, (a, b) in enumerate(times)
    )
    meta = {
        "ok": True,
        "pairs": len(times),
        "mode": "side-by-side",
        "why": "",
        "started": "2026-01-15T09:30:00Z",
        "wall_s": 1.0 + 0.04 * (len(times) - 1),
        "load_ms": [10.0, 11.0],
        "runtimes": [[], []],
        "conditions": {"static": {}, "samples": [{"t_s": 0.0, "throttled": []}]},
        **changes,
    }
    return Frame(meta, body)


def pairs(ratio: float) -> list[tuple[float, float]]:
    return [(ratio * (1 + 0.001 * (k % 5)), 1 + 0.001 * (k % 3)) for k in range(20)]


def compare(*frames: Frame, **options: Any) -> Comparison:
    return compare_bundles(ScriptedSession(*frames), OURS, THEIRS, **options)


def test_release_that_takes_longer_is_called_slower_by_at_least_something() -> None:
    found = compare(*[answer(pairs(1.1))] * 3, seconds=3.0, seed=7)
    assert (found.ours, found.theirs, found.seed) == (OURS.id, THEIRS.id, 7)
    assert (found.verdict, found.starts, len(found.blocks)) == ("slower", 3, 60)
    assert found.ratio == pytest.approx(1.1, abs=0.003)
    assert 0.09 < found.at_least < 0.102
    assert found.slower_than(0.02) < 0.001 < 0.9 < found.slower_than(0.12)
    assert found.faster_than(0.0) > 0.9
    assert found.text.startswith("slower by at least ")
    assert found.throttled is False


def test_faster_one_is_called_faster() -> None:
    found = compare(*[answer(pairs(0.8))] * 3, seconds=3.0)
    assert found.verdict == "faster"
    assert 0.19 < found.at_least < 0.21
    assert found.faster_than(0.1) < 0.01


def test_equal_ones_are_said_to_show_no_difference_and_which_is_ruled_out() -> None:
    found = compare(*[answer(pairs(r)) for r in (1.0, 1.001, 0.999)], seconds=1.0)
    assert found.verdict == "no difference shown"
    assert found.at_least == 0.0
    assert "no difference shown; one of more than" in found.text
    assert found.p_value > 0.05


def test_order_is_drawn_from_the_seed_and_kept_with_the_blocks() -> None:
    orders = []
    for _ in range(2):
        session = ScriptedSession(*[answer(pairs(1.0))] * 3)
        found = compare_bundles(session, OURS, THEIRS, seconds=3.0, seed=5)
        orders.append([meta["order"] for _, meta in session.asked])
        first = orders[0][0]
        assert [b.ours_first for b in found.blocks[:20]] == [c == "0" for c in first[:20]]
    assert orders[0] == orders[1]
    assert len(set(orders[0])) == 3
    assert 0.4 < orders[0][0].count("0") / len(orders[0][0]) < 0.6


def test_as_many_starts_are_made_as_half_of_the_time_allows() -> None:
    # a start takes 1 s besides its blocks: of 10 s five fit
    session = ScriptedSession(*[answer(pairs(1.0))] * 5)
    assert compare_bundles(session, OURS, THEIRS, seconds=10.0).starts == 5
    session = ScriptedSession(*[answer(pairs(1.0), wall_s=40.0)] * 3)
    assert compare_bundles(session, OURS, THEIRS, seconds=10.0).starts == 3
    session = ScriptedSession(*[answer(pairs(1.0), wall_s=0.8)] * 8)
    assert compare_bundles(session, OURS, THEIRS, seconds=10.0).starts == 8


def test_reloading_is_noted_and_not_tried_again_side_by_side() -> None:
    frame = answer(pairs(1.0), mode="reloaded", why="memory is short for two workers at once")
    session = ScriptedSession(*[frame] * 3)
    found = compare_bundles(session, OURS, THEIRS, seconds=1.0)
    assert found.mode == "reloaded"
    assert any("memory is short" in note for note in found.notes)
    assert [meta["side_by_side"] for _, meta in session.asked] == [True, False, False]


def test_throttling_and_emulation_are_told() -> None:
    conditions = {
        "static": {"emulated": "qemu-user"},
        "samples": [{"t_s": 0.0, "throttled": ["under-voltage"]}],
    }
    found = compare(*[answer(pairs(1.0), conditions=conditions)] * 3, seconds=1.0)
    assert (found.throttled, found.emulated) == (True, "qemu-user")
    assert len(found.notes) == 2


def test_progress_goes_on_over_the_starts() -> None:
    events = ({"event": "progress", "step": "pairs", "done": 4}, {"event": "alive"})
    session = ScriptedSession(*[answer(pairs(1.0))] * 3, events=events)
    seen: list[Progress] = []
    compare_bundles(session, OURS, THEIRS, seconds=1.0, on_progress=seen.append)
    assert [p.done for p in seen] == [4, 24, 44]


@pytest.mark.parametrize(
    "frame",
    [
        Frame({"ok": True, "pairs": 0}, b""),
        answer(pairs(1.0), pairs=19),
        answer(pairs(1.0), pairs="many"),
        Frame({"ok": True, "pairs": 1}, b"\0" * 39),
        answer([(1.0, 0.0)]),
        answer([(1.0, 1.0)] * 4097),
    ],
)
def test_answer_that_makes_no_sense_is_refused(frame: Frame) -> None:
    with pytest.raises(ProtocolError, match="cannot read the comparison from bench-3"):
        compare(frame)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_time_that_is_none_is_refused(seconds: float) -> None:
    with pytest.raises(InputError, match="cannot compare for"):
        compare(seconds=seconds)


def test_several_comparisons_share_their_error_by_holms_steps() -> None:
    frames = [answer(pairs(1.1))] * 3 + [answer(pairs(1.0 + d)) for d in (-0.001, 0.0, 0.001)]
    found = compare_with_several(
        ScriptedSession(*frames), OURS, [THEIRS, replace(OURS, id="cd" * 32)], seconds=1.0
    )
    assert [each.verdict for each in found] == ["slower", "no difference shown"]
    assert found[0].adjusted_p == pytest.approx(2 * found[0].p_value)
    assert found[0].seed + 1 == found[1].seed
    alone = compare_with_several(
        ScriptedSession(*[answer(pairs(1.1))] * 3), OURS, [THEIRS], seconds=1.0
    )
    assert alone[0].adjusted_p is None


def test_difference_that_only_counts_alone_is_not_shown_among_several() -> None:
    block = PairedBlock(
        start=0, t_s=0.0, ours_ms=1.0, theirs_ms=1.0, runs=(3, 3), ours_first=True
    )
    found = Comparison(
        ours="ab" * 32,
        theirs="cd" * 32,
        device="bench-3",
        started=None,
        blocks=(block,),
        starts=3,
        mode="side-by-side",
        ratio=1.05,
        lower=1.001,
        upper=1.1,
        coverage=0.95,
        log_error=0.0108,
        freedom=2.0,
        seed=1,
        seconds=10.0,
        throttled=None,
        emulated=None,
        notes=(),
    )
    assert found.p_value < 0.05
    assert found.verdict == "slower"
    assert replace(found, adjusted_p=0.09).verdict == "no difference shown"
    assert replace(found, adjusted_p=0.09).at_least == 0.0


def test_what_a_report_could_not_hold_is_left_out_or_refused() -> None:
    frames = [answer(pairs(1.0), started="yesterday", wall_s=10**400)] * 8
    found = compare(*frames, seconds=1.0)
    assert found.started is None
    assert parse_report(encode_report(vary(comparisons=(found,))), name="it").comparisons == (
        found,
    )
    records = struct.pack("<5Q", 0, 10**6, 10**6, (1 << 64) - 1, 3)
    with pytest.raises(ProtocolError, match="all times above 0 and possible"):
        compare(Frame({"ok": True, "pairs": 1}, records))
    with pytest.raises(ProtocolError, match="which no two releases do"):
        compare(*[answer([(1e12, 1e-6), (1e-6, 1e12)])] * 3, seconds=1.0)


@pytest.mark.parametrize(
    ("spec", "threads"),
    [
        (BenchSpec(), None),
        (BenchSpec(cpus=(0, 1)), 2),
        (BenchSpec(cpus=(0, 1), threads=1), 1),
    ],
)
def test_every_question_about_a_release_asks_for_as_many_threads(
    spec: BenchSpec, threads: int | None
) -> None:
    session = ScriptedSession(*[answer(pairs(1.0))] * 3, reply_frame([1.0]), Frame({}, b""))
    compare_bundles(session, OURS, THEIRS, spec=spec, seconds=1.0)
    take_measurements(session, bundle=OURS, spec=spec)
    ask_offload(session, OURS, profile=None, threads=threads_of(spec))
    (_, pair), *_, (_, bench), (_, profile) = session.asked
    assert pair["threads"] == bench["spec"]["threads"] == profile.get("threads") == threads
