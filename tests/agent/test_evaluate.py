"""The ``evaluate`` operation: packs of samples through a release, some of them kept."""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgesdk.wire.frames import Frame
from edgesdk.wire.limits import MAX_PACK_SAMPLES
from tests.agent.agent_driver import AgentProcess, EchoBundle, Start, push

Modules = Callable[[str], Any]


def pack_of(count: int, *, first: int = 0) -> tuple[dict[str, Any], bytes, list[list[int]]]:
    """Fields and bytes of a pack of int32[2] samples, and the samples."""
    samples = [[first + i, -i] for i in range(count)]
    body = struct.pack(f"<{2 * count}i", *[n for each in samples for n in each])
    spec = {"name": "x", "dtype": "int32", "shape": [count, 2]}
    spec |= {"offset": 0, "nbytes": len(body)}
    return {"samples": count, "tensors": [spec]}, body, samples


def answers_of(reply: Frame) -> list[list[int]]:
    body = reply.body
    if "raw_bytes" in reply.meta:
        body = zlib.decompress(body)
        assert len(body) == reply.meta["raw_bytes"]
    (run,) = reply.meta["tensors"]
    assert (run["name"], run["dtype"], run["first"]) == ("y", "int32", 0)
    found = np.frombuffer(body, "<i4").reshape(run["shape"])
    return [list(map(int, row)) for row in found]


def test_every_sample_of_a_pack_is_answered_in_order(agent: AgentProcess) -> None:
    push(agent, bundle := EchoBundle(parts=2))
    fields, body, samples = pack_of(300)
    reply = agent.ask("evaluate", body, release=bundle.id, **fields)
    assert reply.meta["ok"], reply.meta
    assert reply.meta["samples"] == 300
    assert reply.meta["run_ms"] > 0
    assert answers_of(reply) == samples


def test_packs_may_be_under_way_together_and_are_answered_in_turn(agent: AgentProcess) -> None:
    push(agent, bundle := EchoBundle())
    wanted = {}
    for number in range(10):
        fields, body, samples = pack_of(20, first=1000 * number)
        wanted[agent.talk.send("evaluate", body, release=bundle.id, **fields)] = samples
    for request_id, samples in wanted.items():
        reply = agent.talk.receive()
        assert reply.meta["id"] == request_id
        assert answers_of(reply) == samples


def test_both_directions_may_be_compressed(agent: AgentProcess) -> None:
    push(agent, bundle := EchoBundle())
    fields, body, samples = pack_of(500)
    fields |= {"raw_bytes": len(body), "squeeze": True}
    reply = agent.ask("evaluate", zlib.compress(body), release=bundle.id, **fields)
    assert reply.meta["raw_bytes"] == len(body) > len(reply.body)
    assert answers_of(reply) == samples


def test_kept_pack_need_not_come_again_even_for_another_release(
    start: Start, state: Path
) -> None:
    agent = start()
    one, two = EchoBundle(b"one"), EchoBundle(b"two")
    fields, body, samples = pack_of(40)
    fields["pack"] = hashlib.sha256(body).hexdigest()
    push(agent, one)
    missing = agent.ask("evaluate", release=one.id, **fields).meta
    assert (missing["code"], missing["facts"]["pack"]) == ("not-found", fields["pack"])
    reply = agent.ask("evaluate", body, release=one.id, **fields)
    assert reply.meta["was_here"] is False
    assert agent.hang_up() == 0
    later = start()
    push(later, two)
    reply = later.ask("evaluate", release=two.id, **fields)
    assert reply.meta["was_here"] is True
    assert answers_of(reply) == samples
    # a file that is not what its name says is no pack
    (state / "samples" / fields["pack"]).write_bytes(b"\0" * len(body))
    assert later.ask("evaluate", release=two.id, **fields).meta["code"] == "not-found"
    assert not (state / "samples" / fields["pack"]).exists()


def test_garbage_collection_frees_what_was_kept(agent: AgentProcess, state: Path) -> None:
    push(agent, bundle := EchoBundle())
    fields, body, _ = pack_of(40)
    fields["pack"] = hashlib.sha256(body).hexdigest()
    assert agent.ask("evaluate", body, release=bundle.id, **fields).meta["ok"]
    assert agent.ask("gc").meta["freed_bytes"] >= len(body)
    assert list((state / "samples").iterdir()) == []


def test_what_is_kept_stays_within_bounds_oldest_goes_first(
    agent_modules: Modules, tmp_path: Path
) -> None:
    fs, evaluating = (agent_modules(f"edge_agent.{name}") for name in ("fs", "evaluating"))
    packs = evaluating.Packs(fs.Folder.open_state(str(tmp_path / "s")), budget_bytes=250)
    data = {hashlib.sha256(bytes([i]) * 100).hexdigest(): bytes([i]) * 100 for i in range(3)}
    first, second, third = data
    for age, name in enumerate((first, second)):
        assert packs.keep(name, data[name])
        os.utime(tmp_path / "s" / "samples" / name, (1000 + age, 1000 + age))
    assert packs.read(first) == data[first]  # which makes the second the oldest
    assert packs.keep(third, data[third])
    assert [packs.read(name) == data[name] for name in data] == [True, False, True]
    assert not packs.keep("f" * 64, b"x" * 300), "larger than everything that may be kept"
    assert packs.clear() == 200
    packs.close()


def test_a_device_without_room_evaluates_and_keeps_nothing(
    agent: AgentProcess, state: Path
) -> None:
    push(agent, bundle := EchoBundle())
    (state / "samples").write_text("not a folder")
    fields, body, samples = pack_of(4)
    fields["pack"] = hashlib.sha256(body).hexdigest()
    assert answers_of(agent.ask("evaluate", body, release=bundle.id, **fields)) == samples
    assert agent.ask("evaluate", release=bundle.id, **fields).meta["code"] == "not-found"


@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        ({"samples": 3}, "bad-request", "its first axis does not count 3 samples"),
        ({"samples": 0}, "bad-request", "expected an integer from 1 to"),
        ({"samples": MAX_PACK_SAMPLES + 1}, "bad-request", "expected an integer from 1"),
        ({"tensors": []}, "bad-data", "the inputs are []"),
        ({"tensors": "x"}, "bad-request", "tensors must be a list"),
        ({"outputs": []}, "bad-request", "outputs is no list of names"),
        ({"outputs": ["z"]}, "bad-data", "there is no output 'z'"),
        ({"top": -1}, "bad-request", "top is -1"),
        ({"timeout_s": "soon"}, "bad-request", "timeout_s is 'soon'"),
        ({"pack": "0" * 64}, "bad-hash", "hash to another name"),
        ({"pack": "../../etc"}, "bad-request", "64 lower-case hexadecimal digits"),
        ({"raw_bytes": 5}, "bad-request", "cannot inflate"),
        ({"release": "f" * 64}, "not-found", "no release"),
    ],
)
def test_what_makes_no_sense_is_refused(
    agent: AgentProcess, change: dict[str, Any], code: str, text: str
) -> None:
    push(agent, bundle := EchoBundle())
    fields, body, _ = pack_of(4)
    reply = agent.ask("evaluate", body, **{"release": bundle.id, **fields, **change}).meta
    assert (reply["ok"], reply["code"]) == (False, code)
    assert text in reply["detail"]


def test_samples_of_another_kind_are_refused(agent: AgentProcess) -> None:
    push(agent, bundle := EchoBundle())
    fields, body, _ = pack_of(4)
    fields["tensors"][0]["dtype"] = "float32"
    reply = agent.ask("evaluate", body, release=bundle.id, **fields).meta
    assert reply["code"] == "bad-data"
    assert "input 'x' is float32 [2]" in reply["detail"]


def test_long_pack_shows_how_far_it_is(agent: AgentProcess) -> None:
    push(agent, bundle := EchoBundle(options={"delay_ms": 60}))
    fields, body, samples = pack_of(25)
    assert answers_of(agent.ask("evaluate", body, release=bundle.id, **fields)) == samples
    done = [e["done"] for e in agent.talk.events if e["event"] == "progress" and "done" in e]
    assert any(0 < number < 25 for number in done)
    assert all(e["total"] == 25 for e in agent.talk.events if e.get("step") == "evaluate")


def test_sample_that_kills_the_worker_costs_its_pack_alone(agent: AgentProcess) -> None:
    fields, body, samples = pack_of(8)
    push(agent, bundle := EchoBundle(options={"die_on": body[40:48].hex()}))
    reply = agent.ask("evaluate", body, release=bundle.id, **fields).meta
    assert reply["code"] == "worker-died"
    fields, body, samples = pack_of(8, first=100)
    assert answers_of(agent.ask("evaluate", body, release=bundle.id, **fields)) == samples


def test_time_limit_is_that_of_one_inference(agent: AgentProcess, tmp_path: Path) -> None:
    push(agent, bundle := EchoBundle(options={"delay_ms": 150}))
    fields, body, samples = pack_of(12)  # 1.8 s in all, where one may take a second
    reply = agent.ask("evaluate", body, release=bundle.id, timeout_s=1.0, **fields)
    assert answers_of(reply) == samples
    push(agent, stuck := EchoBundle(options={"delay_ms": 60_000}))
    reply = agent.ask("evaluate", body, release=stuck.id, timeout_s=0.2, **fields)
    assert reply.meta["code"] == "worker-timeout"


# -- what the worker makes of outputs ----------------------------------------------------------


@pytest.mark.parametrize("top", [1, 3, 7])
def test_places_are_those_of_a_stable_sort(agent_modules: Modules, top: int) -> None:
    evaluator = agent_modules("edge_agent.evaluator")
    dice = np.random.default_rng(3)
    # few values, so that there are many equals; infinities, and zeros of both signs
    values = dice.choice([-np.inf, -1.5, -0.0, 0.0, 2.0, np.inf], (50, 7)).astype(np.float16)
    for dtype in ("float16", "float32", "float64"):
        raw = values.astype(dtype)
        found = evaluator.top_places(dtype, [50, 7], raw.tobytes(), top)
        assert (found.dtype, found.shape) == ("int32", [50, top])
        places = np.frombuffer(found.data, "<i4").reshape(50, top)
        order = np.argsort(-raw.astype(np.float64), axis=1, kind="stable")
        assert np.array_equal(places, order[:, :top])


def test_row_with_a_nan_has_no_places(agent_modules: Modules) -> None:
    evaluator = agent_modules("edge_agent.evaluator")
    values = np.array([[1, np.nan, 3], [1, 2, 3]], np.float32)
    found = evaluator.top_places("float32", [2, 3], values.tobytes(), 2)
    assert np.frombuffer(found.data, "<i4").tolist() == [-1, -1, 2, 1]


@pytest.mark.parametrize(
    ("dtype", "shape"), [("int8", [1, 4]), ("float32", [4]), ("float32", [1, 2])]
)
def test_only_matrices_of_floats_have_places(
    agent_modules: Modules, dtype: str, shape: list[int]
) -> None:
    data = bytes(np.zeros(shape, dtype).nbytes)
    top_places = agent_modules("edge_agent.evaluator").top_places
    assert top_places(dtype, shape, data, 3) is None


class Growing:
    """A chain whose output gets longer every second sample."""

    def __init__(self, base: Any) -> None:
        self._base = base
        self._calls = 0

    def run(self, values: Any) -> Any:
        self._calls += 1
        array = np.full(1 + self._calls // 2, self._calls, np.int16)
        return {"y": self._base.RawTensor("int16", array.shape, array.tobytes())}, [1000]


def test_outputs_that_change_their_shape_are_told_in_runs(agent_modules: Modules) -> None:
    base = agent_modules("edge_agent.runtimes.base")
    evaluate_pack = agent_modules("edge_agent.evaluator").evaluate_pack
    meta = {"samples": 5, "tensors": [], "outputs": ["y"], "top": 0}
    reply, body = evaluate_pack(Growing(base), meta, b"", lambda *_: None)
    runs = [(run["first"], run["shape"]) for run in reply["tensors"]]
    assert runs == [(0, [1, 1]), (1, [2, 2]), (3, [2, 3])]
    assert [run["offset"] for run in reply["tensors"]] == [0, 2, 10]
    assert np.frombuffer(body, "<i2").tolist() == [1, 2, 2, 3, 3, 4, 4, 4, 5, 5, 5]


def test_outputs_too_large_for_a_reply_are_an_error(agent_modules: Modules) -> None:
    base = agent_modules("edge_agent.runtimes.base")
    evaluator = agent_modules("edge_agent.evaluator")

    class Huge:
        def run(self, values: Any) -> Any:
            return {"y": base.RawTensor("int8", [40 << 20], bytes(40 << 20))}, [1]

    meta = {"samples": 2, "tensors": [], "outputs": ["y"], "top": 0}
    with pytest.raises(base.RuntimeFailed, match="too many for one reply"):
        evaluator.evaluate_pack(Huge(), meta, b"", lambda *_: None)
