"""A contest on a scripted device: whose turn it is, who drops out, who is chosen."""

from __future__ import annotations

import dataclasses
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgesdk.bench.contest import MOST_ROUNDS, ContestResult, run_contest
from edgesdk.bench.course import Entrant
from edgesdk.bench.values import BenchSpec
from edgesdk.bundle import Bundle
from edgesdk.data.dataset import Dataset, open_dataset
from edgesdk.devices import Session
from edgesdk.errors import (
    DeviceError,
    InputError,
    RuntimeMissing,
    SelfCheckError,
    TargetMismatch,
    WorkerError,
)
from edgesdk.profiles import find_target
from edgesdk.tensors import TensorInfo, pack_tensors
from edgesdk.testing import FakeAgent, ScriptedChannel, make_echo_bundle
from edgesdk.wire import codes
from edgesdk.wire.frames import Frame

OUTPUT = {
    "name": "y",
    "within": True,
    "max_abs_error": 0,
    "allowed": 0,
    "mismatches": 0,
    "elements": 64,
    "cosine": 1.0,
}
Reply = Callable[[Frame], list[Frame]]


class Board:
    """A device whose bundles take the times they are told to, and fail when they are told to.

    Attributes:
        times_ms: Of each bundle, by what number its round is (from 0).
        refuse: Called with operation and bundle; may give the meta of a refusal.
        right: Of each bundle, how many of the samples in turn it gets right.
    """

    def __init__(self, folder: Path, **times_ms: Callable[[int], float]) -> None:
        self.bundles = {
            name: make_echo_bundle(folder / name, name=name, part=name.encode())
            for name in times_ms
        }
        self.times_ms = times_ms
        self.names = {bundle.id: name for name, bundle in self.bundles.items()}
        self.turns: list[str] = []
        self.active: list[str] = []
        self.specs: list[dict[str, Any]] = []
        self.refuse: Callable[[str, str], dict[str, Any] | None] = lambda op, name: None
        self.right: dict[str, Callable[[int], bool]] = {}
        self.runs: Counter[str] = Counter()
        self.agent = FakeAgent(
            {
                "facts": {"facts": {"machine": "mips", "system": "Linux"}},
                "stage": self.for_bundle("stage", {"missing": []}),
                "commit": self.for_bundle("commit", {}),
                "check": self.for_bundle("check", self.check),
                "bench": self.for_bundle("bench", self.bench),
                "evaluate": self.for_bundle("evaluate", self.evaluate),
            }
        )

    def for_bundle(
        self, op: str, answer: dict[str, Any] | Callable[[str, Frame], Frame]
    ) -> Reply:
        def reply(request: Frame) -> list[Frame]:
            asked = request.meta.get("bundle") or request.meta.get("release")
            name = self.names[str(asked)]
            refused = self.refuse(op, name)
            frame = Frame({"ok": False, "facts": {}, **refused}) if refused else None
            if frame is None:
                frame = answer(name, request) if callable(answer) else Frame(answer)
            return [Frame({"ok": True, **frame.meta, "id": request.meta["id"]}, frame.body)]

        return reply

    def check(self, name: str, request: Frame) -> Frame:
        return Frame(
            {
                "passed": True,
                "reused": False,
                "vectors": [{"index": 0, "outputs": [OUTPUT]}],
                "runtimes": [{"part": 0, "runtime": name, "version": "1", "detail": {}}],
                "load_ms": 1.0,
                "cold_start_ms": 2.0,
                "tensors": [],
            }
        )

    def bench(self, name: str, request: Frame) -> Frame:
        number = self.turns.count(name)
        self.turns.append(name)
        self.specs.append(request.meta["spec"])
        runs = min(request.meta["spec"]["runs"], 40)
        ns = [round(self.times_ms[name](number) * 1e6) + i for i in range(runs)]
        meta = {
            "runs": runs,
            "warmup_runs": request.meta["spec"]["warmup_runs"],
            "cold_start_ms": 100.0 + number,
            "load_ms": 10.0,
            "first_run_ms": 1.0,
            "peak_rss_bytes": 1000 + number,
            "wall_s": 0.1,
            "runtimes": [{"part": 0, "runtime": name, "version": "7.1", "detail": {}}],
            "parts": [],
        }
        return Frame(meta, struct.pack(f"<{runs}Q", *ns))

    def evaluate(self, name: str, request: Frame) -> Frame:
        count = request.meta["samples"]
        scores = np.zeros((count, 1, 3), np.float32)
        for row in scores[:, 0]:
            number = self.runs[name]
            self.runs[name] += 1
            row[number % 3 if self.right[name](number) else (number + 1) % 3] = 1
        specs, body = pack_tensors({"scores": scores})
        tensors = [{**spec, "first": 0} for spec in specs]
        return Frame({"samples": count, "tensors": tensors, "run_ms": 1.0}, body)

    def entrants(self) -> list[Entrant]:
        return [
            Entrant(backend=name, bundle=bundle, nodes={name: 3})
            for name, bundle in self.bundles.items()
        ]

    def hold(self, **options: Any) -> ContestResult:
        channel = ScriptedChannel(self.agent)
        session = Session(channel, device_name="bench-3", clock=channel.clock)
        options = {"entrants": self.entrants(), "spec": BenchSpec(runs=50), **options}
        try:
            return run_contest(session, options.pop("entrants"), **options)
        finally:
            ops = [request.meta["op"] for request in self.agent.requests]
            assert "activate" not in ops, "nothing becomes active in a contest"


def always(time_ms: float) -> Callable[[int], float]:
    return lambda number: time_ms + number / 1000


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(tmp_path, ort=always(2.0), lite=always(1.0))


def out_of(result: ContestResult) -> dict[str, str]:
    return {each.backend: each.why_out for each in result.contest.contestants if each.why_out}


def test_bundles_take_turns_and_every_other_round_goes_backwards(board: Board) -> None:
    result = board.hold()
    assert board.turns[:8] == ["ort", "lite", "lite", "ort", "ort", "lite", "lite", "ort"]
    assert board.turns.count("ort") == board.turns.count("lite") == MOST_ROUNDS
    assert result.winner.bundle.id == board.bundles["lite"].id
    assert all(spec["fresh"] for spec in board.specs)


def test_the_record_says_what_was_measured_of_each(board: Board) -> None:
    contest = board.hold().contest
    ort, lite = contest.contestants
    assert (contest.winner, contest.decided_by) == ("lite", "time")
    assert contest.why == (
        "lite is the fastest: ort takes 2.00 times as long "
        "(95 % interval 1.99 to 2.00, 10 rounds)"
    )
    assert lite.ratio is None
    assert ort.ratio is not None
    assert ort.ratio.lower is not None
    assert ort.ratio.lower > 1.9
    assert ort.latency is not None
    assert len(ort.latency.samples_ms) == sum(ort.rounds) == 50
    assert ort.rounds == (5,) * 10
    assert ort.p95_ms is None, "50 runs are too few for it"
    assert ort.peak_rss_bytes == 1009
    assert ort.cold_start_ms == 104.5
    assert ort.runtimes == ("ort 7.1",)
    assert ort.nodes == {"ort": 3}
    assert ort.bundle is not None
    assert ort.bundle.id == board.bundles["ort"].id
    assert contest.throttled is None
    assert contest.emulated is None


def test_what_rounds_say_of_the_device_is_kept(board: Board) -> None:
    measured = board.bench
    said = {"t_s": 0.0, "throttled": ["hot"]}

    def bench(name: str, request: Frame) -> Frame:
        reply = measured(name, request)
        samples = [said] if len(board.turns) == 5 else [{**said, "throttled": []}]
        conditions = {"static": {"emulated": "qemu-user"}, "samples": samples}
        return Frame({**reply.meta, "conditions": conditions}, reply.body)

    board.agent.replies["bench"] = board.for_bundle("bench", bench)
    contest = board.hold().contest
    assert contest.throttled is True
    assert contest.emulated == "qemu-user"


def test_with_enough_runs_there_is_a_95th_percentile(board: Board) -> None:
    contest = board.hold(spec=BenchSpec(runs=400)).contest
    assert [each.rounds for each in contest.contestants] == [(40,) * 10] * 2
    assert contest.contestants[1].p95_ms == pytest.approx(1.009, abs=1e-3)


def test_a_round_is_a_tenth_of_a_measurement(board: Board) -> None:
    board.hold(spec=BenchSpec(runs=0, duration_s=20.0, warmup_runs=1, threads=2))
    assert {
        (spec["warmup_runs"], spec["duration_s"], spec["threads"]) for spec in board.specs
    } == {(1, 2.0, 2)}


def test_a_tie_goes_to_the_first_and_says_so(tmp_path: Path) -> None:
    board = Board(
        tmp_path,
        ort=lambda number: 1.0 + 0.1 * (number % 2),
        lite=lambda number: 1.05 + 0.0 * number,
    )
    contest = board.hold().contest
    assert (contest.winner, contest.decided_by) == ("ort", "order")
    assert contest.why.startswith(
        "a tie: no clear difference between ort and lite, and ort comes first in the profile "
        "(lite takes 1.002 times as long (95 % interval 0.955 to 1.050, 10 rounds))"
    )


@pytest.mark.parametrize(
    ("op", "code", "detail"),
    [
        ("stage", codes.NO_SPACE, "4 bytes are free"),
        ("check", codes.NO_RUNTIME, "litert is not installed"),
        ("check", codes.WORKER_DIED, "the worker died of SIGILL while starting"),
        ("bench", codes.WORKER_DIED, "the worker died of SIGSEGV while running the benchmark"),
        ("bench", codes.WORKER_TIMEOUT, "the worker gave no sign of life for 300 s"),
    ],
)
def test_one_that_the_device_refuses_drops_out_and_the_other_goes_on(
    board: Board, op: str, code: str, detail: str
) -> None:
    def refuse(asked: str, name: str) -> dict[str, Any] | None:
        return {"code": code, "detail": detail} if (asked, name) == (op, "lite") else None

    board.refuse = refuse
    result = board.hold()
    assert (result.contest.winner, result.contest.decided_by) == ("ort", "alone")
    assert result.contest.why == "ort is the only one that is left"
    assert list(out_of(result)) == ["lite"]
    assert detail in out_of(result)["lite"]
    assert result.winner.bundle.id == board.bundles["ort"].id
    assert board.turns.count("lite") == 0


def test_one_that_dies_in_a_later_round_keeps_what_was_measured(board: Board) -> None:
    def refuse(op: str, name: str) -> dict[str, Any] | None:
        late = (op, name) == ("bench", "lite") and board.turns.count("lite") == 3
        return {"code": codes.WORKER_DIED, "detail": "it died"} if late else None

    board.refuse = refuse
    contest = board.hold().contest
    assert contest.winner == "ort"
    assert len(contest.contestants[1].rounds) == 3
    assert contest.contestants[1].ratio is None


def test_numbers_that_are_not_those_of_the_host_drop_out(board: Board) -> None:
    passing = board.check

    def check(name: str, request: Frame) -> Frame:
        meta = dict(passing(name, request).meta)
        off = {**OUTPUT, "within": False, "max_abs_error": 3, "mismatches": 1}
        if name == "lite":
            meta |= {"passed": False, "vectors": [{"index": 0, "outputs": [off]}]}
        return Frame(meta)

    board.agent.replies["check"] = board.for_bundle("check", check)
    assert "output y is off by 3" in out_of(board.hold())["lite"]
    board.agent.replies["check"] = board.for_bundle(
        "check", lambda name, request: check("lite", request)
    )
    with pytest.raises(SelfCheckError, match="output y is off by 3"):
        board.hold()


@pytest.mark.parametrize(
    ("op", "code", "error"),
    [("check", codes.NO_RUNTIME, RuntimeMissing), ("bench", codes.WORKER_DIED, WorkerError)],
)
def test_where_nobody_is_left_it_ends_with_what_was_said_of_the_first(
    board: Board, op: str, code: str, error: type[DeviceError]
) -> None:
    board.refuse = lambda asked, name: (
        {"code": code, "detail": f"no {name}"} if asked == op else None
    )
    with pytest.raises(error, match="no ort"):
        board.hold()


def test_another_device_than_the_target_is_no_matter_of_one_contestant(board: Board) -> None:
    with pytest.raises(TargetMismatch):
        board.hold(profile=find_target("raspberry-pi-5"))
    assert board.hold(profile=find_target("raspberry-pi-5"), force_target=True).winner.mismatch


def test_one_that_was_never_built_is_in_the_record(board: Board) -> None:
    first, second = board.entrants()
    second = dataclasses.replace(second, bundle=None, why_out="it gets none of the nodes")
    result = board.hold(entrants=[first, second])
    assert result.contest.decided_by == "alone"
    assert out_of(result) == {"lite": "it gets none of the nodes"}
    assert board.turns == []
    with pytest.raises(InputError, match="no entrant has a bundle"):
        board.hold(entrants=[second])


def test_the_same_parts_again_are_not_measured(board: Board) -> None:
    first, second = board.entrants()
    same = Bundle(
        folder=board.bundles["ort"].folder, id="ab" * 32, manifest=board.bundles["ort"].manifest
    )
    result = board.hold(entrants=[first, dataclasses.replace(second, bundle=same)])
    assert out_of(result) == {"lite": "its parts are the same as those of ort"}


def test_a_round_without_a_run_is_not_taken_for_a_fast_one(board: Board) -> None:
    measured = board.bench

    def bench(name: str, request: Frame) -> Frame:
        reply = measured(name, request)
        return reply if name == "ort" else Frame({**reply.meta, "runs": 0}, b"")

    board.agent.replies["bench"] = board.for_bundle("bench", bench)
    assert out_of(board.hold()) == {"lite": "round 1 gave no time of a run"}


# -- accuracy ----------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    np.savez(tmp_path / "d.npz", x=np.zeros((50, 4), np.float32), labels=np.arange(50) % 3)
    return open_dataset(
        tmp_path / "d.npz", (TensorInfo(name="x", dtype="float32", shape=(1, 4)),)
    )


def exact() -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Give a model on this computer that is always right."""
    numbers: Iterator[int] = iter(range(1000))

    def run(sample: dict[str, Any]) -> dict[str, Any]:
        return {"scores": np.eye(3, dtype=np.float32)[[next(numbers) % 3]]}

    return run


def test_a_faster_one_that_loses_too_much_does_not_win(board: Board, data: Dataset) -> None:
    board.right = {"lite": lambda number: number > 1, "ort": lambda number: number >= 0}
    result = board.hold(data=data, reference=exact())
    assert (result.contest.winner, result.contest.decided_by) == ("ort", "accuracy")
    assert result.contest.why == (
        "ort is the fastest that keeps its accuracy (lite: it loses 4.00% of top-1 "
        "(96.00%, 100.00% unquantized; at most 1.00% allowed))"
    )
    assert out_of(result)["lite"].startswith("it loses 4.00% of top-1")
    values = [e.labelled.value for e in result.contest.contestants if e.labelled is not None]
    assert values == [1.0, 0.96]
    assert result.judged is not None
    assert result.judged.reference is not None
    assert result.contest.contestants[1].ratio is not None
    assert result.contest.contestants[1].ratio.value < 1


def test_the_loss_that_is_allowed_is_the_users(board: Board, data: Dataset) -> None:
    board.right = {"lite": lambda number: number > 1, "ort": lambda number: number >= 0}
    result = board.hold(data=data, reference=exact(), max_drop=0.05)
    assert (result.contest.winner, result.contest.decided_by) == ("lite", "time")
    assert board.runs["ort"] == 0, "nobody asked how right the slower one is"


def test_where_none_keeps_its_accuracy_the_fastest_wins_and_it_is_said(
    board: Board, data: Dataset
) -> None:
    board.right = dict.fromkeys(("lite", "ort"), lambda number: number > 4)
    result = board.hold(data=data, reference=exact())
    assert (result.contest.winner, result.contest.decided_by) == ("lite", "time")
    assert "; none keeps its accuracy: it loses 10.00% of top-1" in result.contest.why


def test_one_that_dies_on_real_data_drops_out(board: Board, data: Dataset) -> None:
    board.right = dict.fromkeys(("lite", "ort"), lambda number: number >= 0)
    died = {"code": codes.WORKER_DIED, "detail": "it died"}
    board.refuse = lambda op, name: died if (op, name) == ("evaluate", "lite") else None
    result = board.hold(data=data, reference=exact())
    assert (result.contest.winner, result.contest.decided_by) == ("ort", "alone")
    assert "it died" in out_of(result)["lite"]


# -- precisions --------------------------------------------------------------------------------


def in_precisions(board: Board) -> list[Entrant]:
    """Let one backend compete in two precisions, the float one first."""
    first, second = board.entrants()
    return [
        dataclasses.replace(first, backend="cpu", precision="fp32"),
        dataclasses.replace(second, backend="cpu", precision="int8"),
    ]


def test_one_backend_can_compete_in_several_precisions(board: Board) -> None:
    contest = board.hold(entrants=in_precisions(board)).contest
    assert [(c.backend, c.precision) for c in contest.contestants] == [
        ("cpu", "fp32"),
        ("cpu", "int8"),
    ]
    assert (contest.winner, contest.decided_by) == ("cpu int8", "time")
    assert contest.why.startswith("cpu int8 is the fastest: cpu fp32 takes 2.00 times as long")


def test_a_tie_of_precisions_goes_to_the_most_exact(tmp_path: Path) -> None:
    board = Board(tmp_path, a=lambda number: 1.0 + 0.1 * (number % 2), b=always(1.05))
    contest = board.hold(entrants=in_precisions(board)).contest
    assert (contest.winner, contest.decided_by) == ("cpu fp32", "order")
    assert "and cpu fp32 comes first (" in contest.why


def test_for_the_record_the_slower_are_evaluated_too(board: Board, data: Dataset) -> None:
    board.right = {"lite": lambda number: number >= 0, "ort": lambda number: number > 0}
    result = board.hold(
        entrants=in_precisions(board), data=data, reference=exact(), score_all=True
    )
    assert result.contest.winner == "cpu int8"
    values = [e.labelled.value for e in result.contest.contestants if e.labelled is not None]
    assert values == [0.98, 1.0]


def test_rounds_end_where_there_were_enough(board: Board) -> None:
    seen = []

    def enough(rounds: Any) -> bool:
        seen.append({name: len(each) for name, each in rounds.items()})
        return len(seen) == 2

    board.hold(enough=enough)
    assert seen == [{"ort": 1, "lite": 1}, {"ort": 2, "lite": 2}]
    assert len(board.turns) == 4
