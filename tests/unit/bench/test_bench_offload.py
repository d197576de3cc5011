"""What a device says it ran where: judged, in shares of time."""

from __future__ import annotations

from typing import Any

import pytest

from edgesdk.bench.gate import check_cpu_time
from edgesdk.bench.judged import describe_offload
from edgesdk.bench.offload import ask_offload
from edgesdk.bench.offload_values import Offload
from edgesdk.bench.told import read_told
from edgesdk.errors import (
    ChannelClosed,
    DeviceError,
    EdgeError,
    FindingsError,
    ProtocolError,
    WorkerError,
)
from edgesdk.report.read import parse_report
from edgesdk.wire.frames import Frame
from tests.unit.bench.fixtures import ScriptedSession, make_bundle
from tests.unit.bench.offload_fixtures import CORAL, ORIN, cpu, judged, node, op, part, reply
from tests.unit.bench.test_bench_assemble import assembled

# shares of time


def test_shares_of_one_inference_are_whole() -> None:
    offload = judged(
        reply(
            part(0, op(us=60.0), cpu(us=20.0), op("u", 10.0, where="AUTO", accelerator=None)),
        ),
    )
    assert (offload.accelerator_share, offload.cpu_share) == (0.6, 0.2)
    assert offload.unknown_share == 0.1
    assert offload.between_share == pytest.approx(0.1)
    assert offload.off_accelerator_share == pytest.approx(0.4)
    assert [each.time_us for each in offload.ops] == [60.0, 20.0, 10.0]


def test_profiling_that_costs_time_is_scaled_away() -> None:
    offload = judged(reply(part(0, op(us=150.0), cpu(us=50.0), total_us=100.0)))
    assert offload.accelerator_share == pytest.approx(0.75)
    assert offload.between_share == pytest.approx(0.0)


def test_hand_over_between_parts_is_off_the_accelerator() -> None:
    parts = (part(0, op(us=100.0)), part(1, cpu(us=100.0)))
    offload = judged(reply(*parts, chain_us=250.0), backends=("tensorrt", "ort-cpu"))
    assert offload.whole_us == 250.0
    assert offload.accelerator_share == pytest.approx(0.4)
    assert offload.between_share == pytest.approx(0.2)


def test_what_a_part_takes_within_its_chain_counts() -> None:
    """By itself it took 100, in the chain 180 of 200: its op, half of the former, has 0.45."""
    parts = (part(0, op(us=50.0), share=0.9), part(1, cpu(us=100.0), share=0.1))
    offload = judged(reply(*parts, chain_us=200.0), backends=("tensorrt", "ort-cpu"))
    assert offload.accelerator_share == pytest.approx(0.45)
    assert [each.share for each in offload.parts] == pytest.approx([0.9, 0.1])


def test_times_that_a_runtime_lacks_are_spread_by_the_plan_and_marked() -> None:
    nodes = (node("a", "tensorrt", share=0.3), node("b", "ort-cpu", share=0.1))
    offload = judged(reply(part(0, op("a", None), cpu("b", None))), *nodes)
    assert [each.time_us for each in offload.ops] == pytest.approx([75.0, 25.0])
    assert all(each.derived for each in offload.ops)
    assert all(row.derived for row in offload.rows if row.ops)


def test_times_that_were_worked_out_are_their_parts_whatever_the_noise() -> None:
    ops = (op("a", 30.0, derived=True), cpu("b", 10.0, derived=True))
    offload = judged(reply(part(0, *ops, total_us=80.0)))
    assert [each.time_us for each in offload.ops] == pytest.approx([60.0, 20.0])
    assert offload.between_share == pytest.approx(0.0)


def test_a_part_without_ops_is_judged_by_what_its_runtime_says_of_itself() -> None:
    untold = part(0, why="this agent cannot ask openvino")
    said = {"detail": {"device": "NPU", "execution_devices": ["NPU"]}}
    assert judged(reply(untold, part_0=said)).accelerator_share == 1.0
    both = {"detail": {"assignment": {"CUDAExecutionProvider": 1, "CPUExecutionProvider": 9}}}
    offload = judged(reply(untold, part_0=both))
    assert (offload.accelerator_share, offload.unknown_share) == (0.0, 1.0)
    assert offload.parts[0].why == "this agent cannot ask openvino"


def test_ops_without_a_time_are_no_copies_and_no_zero() -> None:
    found = judged(reply(part(0, op("a", us=None), cpu("b", us=None))))
    assert (found.unknown_share, found.between_share) == (1.0, 0.0)
    assert [row.measured_share for row in found.rows if row.ops] == [None, None]
    assert sum_of(found) == pytest.approx(1.0)


def test_what_lies_between_ops_of_which_some_have_no_time_is_unknown() -> None:
    found = judged(reply(part(0, op("a", us=40.0), cpu("b", us=None)), chain_us=125.0))
    assert found.accelerator_share == pytest.approx(0.32)
    assert found.unknown_share == pytest.approx(0.48)
    assert found.between_share == pytest.approx(0.2)


def test_ops_without_a_time_that_all_ran_in_one_place_have_their_parts() -> None:
    found = judged(reply(part(0, op("a", us=None), op("b", us=None, count=3))))
    assert found.accelerator_share == 1.0
    assert [one.share for one in found.ops] == [0.25, 0.75]
    assert all(one.derived for one in found.ops)


def test_a_part_of_no_time_does_not_make_shares_of_more_than_one() -> None:
    frame = reply(part(0, op(us=5000.0), cpu(us=3000.0), total_us=0.0), chain_us=100.0)
    found = judged(frame)
    assert (found.accelerator_share, found.cpu_share) == (0.625, 0.375)


def sum_of(found: Offload) -> float:
    shares = (found.accelerator_share, found.cpu_share, found.unknown_share)
    return sum(share or 0.0 for share in (*shares, found.between_share))


def test_no_time_at_all_is_no_share() -> None:
    offload = judged(reply(part(0, op(us=None), total_us=None)))
    assert offload.whole_us is None
    assert offload.off_accelerator_share is None


# disagreements


def test_each_op_that_ran_elsewhere_is_named_the_longest_first() -> None:
    nodes = (node("a", "tensorrt"), node("b", "tensorrt"), node("c", "ort-cpu"))
    ops = (op("a"), cpu("b", 4.1), cpu("c", 30.0), cpu("Memcpy", 1.0))
    offload = judged(reply(part(0, *ops, total_us=100.0)), *nodes)
    assert offload.disagreements == (
        "b was planned for tensorrt and ran on the CPU in CPUExecutionProvider: 4.1% of the "
        "time",
    )
    assert [each.agrees for each in offload.ops] == [True, False, True, None]
    assert [each.predicted for each in offload.ops] == ["tensorrt", "tensorrt", "ort-cpu", None]


def test_what_a_delegate_leaves_is_the_other_backend_of_the_same_runtime() -> None:
    nodes = (node("a", "edgetpu"), node("b", "litert-cpu"), node("c", "edgetpu"))
    ops = (
        op("a", where="EDGETPU"),
        cpu("b", where="XNNPACK"),
        cpu("c", 5.0, where="XNNPACK", derived=True),
    )
    offload = judged(
        reply(part(0, *ops)),
        *nodes,
        backends=("edgetpu",),
        profile=CORAL,
        planned={"edgetpu": 2, "litert-cpu": 1},
    )
    assert [each.backend for each in offload.ops] == ["edgetpu", "litert-cpu", "litert-cpu"]
    assert [each.agrees for each in offload.ops] == [True, True, False]
    assert offload.disagreements[0].endswith(
        "ran on the CPU in XNNPACK: 5.0% of the time (derived)"
    )
    rows = {row.backend: row for row in offload.rows}
    assert rows["litert-cpu"].measured_share == pytest.approx(0.15)
    assert rows["litert-cpu"].predicted_nodes == 1


def test_layers_of_a_dla_that_ran_on_the_gpu_are_a_disagreement() -> None:
    ops = (op("a", where="DLA0"), op("b", 7.0, where="GPU"))
    nodes = (node("a", "tensorrt-dla"), node("b", "tensorrt-dla"))
    served = {"backend": "tensorrt-dla", "detail": {"device": "DLA0", "accelerator": True}}
    offload = judged(reply(part(0, *ops), part_0=served), *nodes, backends=("tensorrt-dla",))
    assert [each.backend for each in offload.ops] == ["tensorrt-dla", "tensorrt"]
    assert offload.disagreements == (
        "b was planned for tensorrt-dla and ran on GPU: 7.0% of the time",
    )


def test_a_part_that_a_fallback_serves_disagrees_also_without_a_plan() -> None:
    served = {"backend": "ort-cpu", "detail": {}}
    offload = judged(reply(part(0, cpu(us=90.0)), part_0=served))
    assert offload.parts[0].served_by == "ort-cpu"
    assert offload.ops[0].predicted == "tensorrt"
    assert offload.ops[0].agrees is False


def test_many_disagreements_are_counted_and_the_first_are_named() -> None:
    nodes = [node(f"n{i}", "tensorrt") for i in range(470)]
    ops = [cpu(f"n{i}", 1.0 + i) for i in range(470)]
    offload = judged(reply(part(0, *ops, total_us=None)), *nodes)
    assert offload.disagreeing_ops == 470
    assert len(offload.disagreements) == 100
    assert offload.disagreements[0].startswith("n469 ")


def test_a_build_that_moved_a_node_says_so() -> None:
    bundle = make_bundle("ort-cpu")
    bundle.manifest["as_built"]["placement"] = {
        "moved": [{"node": "a", "built": "ort-cpu", "reason": "too large"}, 7]
    }
    offload = describe_offload(
        read_told(reply(part(0, cpu("a"))), parts=1, device="d"),
        manifest=bundle.manifest,
        nodes=(node("a", "tensorrt"),),
        backends=ORIN.backends,
    )
    assert offload.disagreements[0].endswith("; it was built for ort-cpu: too large")


# the verdict


@pytest.mark.parametrize(
    ("ops", "verdict"),
    [
        ([op("a"), op("b")], "accelerated"),
        ([op("a"), cpu("b", 5.0)], "partly-fell-back"),
        ([op("a", 95.0), cpu("b", 0.5)], "accelerated"),
        ([cpu("a"), cpu("b")], "fell-back-to-cpu"),
        ([op("a"), op("b", where="AUTO", accelerator=None)], "placement-unknown"),
    ],
)
def test_ops_decide_the_verdict_where_they_are_told(ops: list[Any], verdict: str) -> None:
    """The runtime says of itself only what it was offered: one CUDA node of ten is enough."""
    nodes = (node("a", "tensorrt"), node("b", "tensorrt"))
    report = assembled(
        bundle=make_bundle("tensorrt"),
        accelerators={"tensorrt"},
        offload=judged(reply(part(0, *ops)), *nodes),
    )
    if verdict == "placement-unknown":  # then its own words are all there is
        verdict = "fell-back-to-cpu"
    assert report.verdict == verdict
    if "fell" in verdict and report.offload is not None and report.offload.disagreements:
        assert report.offload.disagreements[0] in report.verdict_reasons


def test_470_of_476_nodes_on_the_cpu_are_no_acceleration() -> None:
    nodes = [node(f"n{i}", "ort-cuda") for i in range(476)]
    ops = [op(f"n{i}", 1.0) for i in range(6)] + [cpu(f"n{i}", 1.0) for i in range(6, 476)]
    offload = judged(reply(part(0, *ops, total_us=476.0)), *nodes, backends=("ort-cuda",))
    report = assembled(
        bundle=make_bundle("ort-cuda"), accelerators={"ort-cuda"}, offload=offload
    )
    assert report.verdict == "partly-fell-back"
    assert report.verdict_reasons[-1] == "465 more ops ran elsewhere than planned"
    assert offload.off_accelerator_share == pytest.approx(470 / 476)


def test_the_record_survives_its_file() -> None:
    from edgesdk.report.files import encode_report

    report = assembled(
        bundle=make_bundle("tensorrt"), offload=judged(reply(part(0, op(), cpu(us=None))))
    )
    assert parse_report(encode_report(report), name="r") == report


# asking


class Refusing(ScriptedSession):
    def __init__(self, error: EdgeError) -> None:
        super().__init__()
        self._error = error

    def request(self, *args: Any, **fields: Any) -> Frame:
        raise self._error


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (ProtocolError("x", code="unknown-op"), "this agent cannot say what ran where"),
        (WorkerError("the worker ended by SIGSEGV", code="worker-died"), "SIGSEGV"),
        (DeviceError("another host", code="busy"), "another host"),
    ],
)
def test_a_device_that_refuses_is_a_reason_and_no_failure(error: EdgeError, why: str) -> None:
    offload = ask_offload(Refusing(error), make_bundle("tensorrt"), profile=ORIN)
    assert why in str(offload.why)
    assert offload.has_accelerator
    assert offload.off_accelerator_share is None
    with pytest.raises(FindingsError, match="cannot hold the time off the accelerator to 50%"):
        check_cpu_time(offload, 0.5)


def test_an_answer_without_sense_is_a_reason_too() -> None:
    session = ScriptedSession(Frame({"ok": True}, b"{}"))
    offload = ask_offload(session, make_bundle("tensorrt"), profile=ORIN, threads=3)
    assert "it has no parts" in str(offload.why)
    assert session.asked[0][1]["threads"] == 3


@pytest.mark.parametrize("error", [ChannelClosed("gone"), ProtocolError("it was closed")])
def test_a_broken_link_stays_an_error(error: EdgeError) -> None:
    with pytest.raises(type(error)):
        ask_offload(Refusing(error), make_bundle("tensorrt"), profile=ORIN)
