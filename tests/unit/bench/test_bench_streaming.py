"""Samples travel in packs, several under way, and outputs come back in the order of samples."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgesdk.bench import streaming
from edgesdk.bench.outputs import Outputs
from edgesdk.bench.streaming import stream_samples
from edgesdk.data.dataset import Dataset, open_dataset
from edgesdk.devices import Session
from edgesdk.errors import ChannelTimeout, DataError, ProtocolError, WorkerError
from edgesdk.progress import Progress
from edgesdk.tensors import TensorInfo, pack_tensors, unpack_tensors
from edgesdk.testing import FakeAgent, ScriptedChannel
from edgesdk.transport.base import LinkTraits
from edgesdk.wire import codes
from edgesdk.wire.frames import Frame, load_json

INPUTS = (TensorInfo(name="x", dtype="float32", shape=("N", 4)),)
SERIAL = LinkTraits(chunk_bytes=256, window_bytes=512, compress=True)


class Doubler:
    """A device whose model gives twice its input; it keeps the packs that it is told to keep.

    Attributes:
        kept: Bytes of packs by their hash.
        spoil: May change the frame of an answer; given the request too.
        silent_after: So many requests are answered.
    """

    def __init__(self, traits: LinkTraits | None = None) -> None:
        self.kept: dict[str, bytes] = {}
        self.spoil: Callable[[Frame, Frame], Frame] = lambda _request, answer: answer
        self.silent_after = 1 << 30
        self.agent = FakeAgent({"evaluate": self.evaluate})
        self.channel = ScriptedChannel(self.agent, traits=traits)
        self.session = Session(self.channel, device_name="bench-3", clock=self.channel.clock)

    @property
    def asked(self) -> list[Frame]:
        return self.agent.asked("evaluate")

    def evaluate(self, request: Frame) -> list[Frame]:
        meta, body = request.meta, request.body
        if len(self.asked) > self.silent_after:
            return []
        if "raw_bytes" in meta:
            body = zlib.decompress(body)
            assert len(body) == meta["raw_bytes"]
        if "pack" in meta and not body:
            if meta["pack"] not in self.kept:
                answer = {"ok": False, "code": codes.NOT_FOUND, "detail": "send it"}
                return [Frame({**answer, "facts": {}, "id": meta["id"]})]
            body = self.kept[meta["pack"]]
        elif "pack" in meta:
            assert hashlib.sha256(body).hexdigest() == meta["pack"]
            self.kept[meta["pack"]] = body
        given = unpack_tensors(meta["tensors"], body)["x"]
        assert len(given) == meta["samples"]
        specs, data = pack_tensors({"y": given * 2})
        tensors = [{**spec, "first": 0} for spec in specs]
        fields = {"ok": True, "id": meta["id"], "samples": len(given), "run_ms": 1.0}
        return [self.spoil(request, Frame({**fields, "tensors": tensors}, data))]


def dataset(folder: Path, count: int, **more: np.ndarray) -> Dataset:
    values = np.arange(4 * count, dtype=np.float32).reshape(count, 4)
    np.savez(folder / "d.npz", x=values, **more)
    return open_dataset(folder / "d.npz", INPUTS)


def doubled(count: int) -> np.ndarray:
    return np.arange(4 * count, dtype=np.float32).reshape(count, 4) * 2


def test_outputs_are_those_of_every_sample_in_order(tmp_path: Path) -> None:
    device = Doubler()
    seen: list[Progress] = []
    streamed = stream_samples(
        device.session, "a" * 64, dataset(tmp_path, 1000), on_progress=seen.append
    )
    assert np.array_equal(streamed.outputs.joined()["y"], doubled(1000))
    assert (streamed.samples, streamed.stopped) == (1000, None)
    assert streamed.run_ms == len(device.asked)
    assert (seen[-1].done, seen[-1].total, seen[-1].unit) == (1000, 1000, "samples")
    assert sum(frame.meta["samples"] for frame in device.asked) == 1000
    assert len(device.asked) < 30, "64 samples of 16 bytes fit in a pack of 1024"


def test_first_request_is_one_sample_that_loads_the_model(tmp_path: Path) -> None:
    device = Doubler()
    stream_samples(device.session, "a" * 64, dataset(tmp_path, 100))
    assert [frame.meta["samples"] for frame in device.asked][:2] == [1, 64]


def test_slow_link_gets_compressed_packs_and_is_spared_a_second_time(tmp_path: Path) -> None:
    device = Doubler(SERIAL)
    data = dataset(tmp_path, 500)
    first = stream_samples(device.session, "a" * 64, data)
    assert first.kept_samples == 0
    assert 0 < first.sent_bytes < 500 * 16
    second = stream_samples(device.session, "b" * 64, data)
    assert (second.sent_bytes, second.kept_samples) == (0, 500)
    for streamed in (first, second):
        assert np.array_equal(streamed.outputs.joined()["y"], doubled(500))


def test_packs_that_the_device_has_lost_are_sent_again(tmp_path: Path) -> None:
    device = Doubler(SERIAL)
    data = dataset(tmp_path, 500)
    stream_samples(device.session, "a" * 64, data)
    for sha256 in list(device.kept)[3::2]:
        del device.kept[sha256]
    again = stream_samples(device.session, "a" * 64, data)
    assert np.array_equal(again.outputs.joined()["y"], doubled(500))
    assert 0 < again.kept_samples < 500
    assert len(device.kept) == len({frame.meta["pack"] for frame in device.asked})


def test_link_to_this_computer_is_told_to_keep_nothing(tmp_path: Path) -> None:
    device = Doubler()
    stream_samples(device.session, "a" * 64, dataset(tmp_path, 100))
    assert device.kept == {}
    assert all("raw_bytes" not in frame.meta for frame in device.asked)


def test_device_that_goes_away_leaves_what_it_answered(tmp_path: Path) -> None:
    device = Doubler()
    device.silent_after = 3
    data = dataset(tmp_path, 1000)
    streamed = stream_samples(device.session, "a" * 64, data, partial=True)
    assert streamed.samples == 1 + 64 + 64
    assert isinstance(streamed.stopped, ChannelTimeout)
    assert np.array_equal(streamed.outputs.joined()["y"], doubled(129))


def test_who_wants_all_or_nothing_is_told_that_it_went_away(tmp_path: Path) -> None:
    device = Doubler()
    device.silent_after = 3
    with pytest.raises(ChannelTimeout, match="cannot evaluate the model on bench-3: no data"):
        stream_samples(device.session, "a" * 64, dataset(tmp_path, 1000))


def test_nothing_is_kept_of_a_device_that_never_answered(tmp_path: Path) -> None:
    device = Doubler()
    device.silent_after = 0
    with pytest.raises(ChannelTimeout):
        stream_samples(device.session, "a" * 64, dataset(tmp_path, 10), partial=True)


def test_worker_that_dies_in_the_middle_stops_it_there(tmp_path: Path) -> None:
    device = Doubler()

    def spoil(request: Frame, answer: Frame) -> Frame:
        if len(device.asked) < 4:
            return answer
        died = {"ok": False, "code": codes.WORKER_DIED, "detail": "it died", "facts": {}}
        return Frame({**died, "id": request.meta["id"]})

    device.spoil = spoil
    streamed = stream_samples(device.session, "a" * 64, dataset(tmp_path, 1000), partial=True)
    assert isinstance(streamed.stopped, WorkerError)
    assert streamed.samples == 1 + 64 + 64


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"samples": 3}, "it answered for 3 of 1 samples"),
        ({"tensors": None}, "tensors must be a list"),
        ({"tensors": []}, "they are not of 1 samples"),
        ({"raw_bytes": 10}, "its answer is damaged"),
        ({"raw_bytes": 1 << 40}, "its answer is damaged"),
        ({"raw_bytes": "x"}, "its answer is damaged"),
    ],
)
def test_answer_that_makes_no_sense_is_a_protocol_error(
    tmp_path: Path, change: dict[str, Any], text: str
) -> None:
    device = Doubler()
    device.spoil = lambda _, answer: Frame({**answer.meta, **change}, answer.body)
    with pytest.raises(ProtocolError, match=text):
        stream_samples(device.session, "a" * 64, dataset(tmp_path, 10))


def test_runs_of_outputs_may_not_leave_a_gap(tmp_path: Path) -> None:
    device = Doubler()

    def spoil(request: Frame, answer: Frame) -> Frame:
        (spec,) = answer.meta["tensors"]
        return Frame({**answer.meta, "tensors": [{**spec, "first": 1}]}, answer.body)

    device.spoil = spoil
    with pytest.raises(ProtocolError, match="have a gap"):
        stream_samples(device.session, "a" * 64, dataset(tmp_path, 10))


# -- outputs, whoever ran the model -----------------------------------------------------------


def test_only_samples_before_a_gap_count() -> None:
    outputs = Outputs(batch=1, spec="d")
    for index in (2, 0, 4):
        outputs.add_sample(index, {"y": np.full((1, 2), index)})
    assert outputs.done == 1
    outputs.add_sample(1, {"y": np.full((1, 2), 1)})
    assert outputs.done == 3
    assert outputs.joined()["y"].tolist() == [[0, 0], [1, 1], [2, 2]]


def test_outputs_without_a_batch_get_one_row_a_sample() -> None:
    outputs = Outputs(batch=1, spec="d")
    for index in range(3):
        outputs.add_sample(index, {"a": np.zeros(7), "b": np.float32(index), "c": [[index]]})
    shapes = {name: array.shape for name, array in outputs.joined().items()}
    assert shapes == {"a": (3, 7), "b": (3,), "c": (3, 1)}


def test_batch_of_the_model_is_as_many_rows() -> None:
    outputs = Outputs(batch=4, spec="d")
    for index in range(2):
        outputs.add_sample(index, {"y": np.full((4, 3), index)})
    assert outputs.joined()["y"][:, 0].tolist() == [0] * 4 + [1] * 4


def test_output_that_changes_its_shape_is_kept_by_sample_alone() -> None:
    outputs = Outputs(batch=1, spec="d")
    for index in range(3):
        outputs.add_sample(index, {"y": np.zeros((index + 1, 4)), "z": np.zeros((1, 2))})
    assert list(outputs.joined()) == ["z"]
    assert [len(each) for each in outputs.by_sample()["y"]] == [1, 2, 3]


def test_sample_cannot_come_twice() -> None:
    outputs = Outputs(batch=1, spec="d")
    outputs.add_sample(0, {"y": np.zeros(1)})
    with pytest.raises(DataError, match="sample 0 came twice"):
        outputs.add_sample(0, {"y": np.zeros(1)})


# -- blocks of a data set ----------------------------------------------------------------------


@pytest.mark.parametrize("nbytes", [1, 100, 1 << 20])
def test_blocks_hold_the_very_samples(tmp_path: Path, nbytes: int) -> None:
    for number in range(2):
        values = np.random.default_rng(number).normal(size=(37, 4)).astype(np.float16)
        np.savez_compressed(tmp_path / f"{number}.npz", x=values, labels=np.arange(37))
    data = open_dataset(tmp_path, INPUTS, limit=60)
    joined = [
        block["x"][index] for count, block in data.blocks(nbytes) for index in range(count)
    ]
    samples = [sample["x"] for sample in data.samples()]
    assert len(joined) == len(samples) == 60
    for one, two in zip(joined, samples, strict=True):
        assert (one.dtype, one.shape) == (two.dtype, two.shape)
        assert np.array_equal(one, two)


def test_blocks_of_a_model_with_a_fixed_batch_or_none_at_all(tmp_path: Path) -> None:
    values = np.arange(48, dtype=np.float32).reshape(12, 4)
    np.savez(tmp_path / "d.npz", x=values)
    for shape, expected in (((3, 4), (4, 3, 4)), ((4,), (12, 4)), ((1, 4), (12, 1, 4))):
        info = TensorInfo(name="x", dtype="float32", shape=shape)
        data = open_dataset(tmp_path / "d.npz", (info,))
        ((count, block),) = data.blocks(1 << 20)
        assert (count, block["x"].shape) == (expected[0], expected)
        assert np.array_equal(np.stack([s["x"] for s in data.samples()]), block["x"])


@pytest.mark.parametrize("odd", [b"9" * 400, b"1e999", b"1e-320", b"true", b"null"])
def test_any_time_that_a_device_names_is_survived(
    odd: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Doubler()
    run_ms = load_json(b'{"run_ms":' + odd + b"}")["run_ms"]
    taken = device.session.next_reply

    def odd_reply(**options: Any) -> Frame | None:  # what nobody of ours would encode
        frame = taken(**options)
        return None if frame is None else Frame({**frame.meta, "run_ms": run_ms}, frame.body)

    monkeypatch.setattr(device.session, "next_reply", odd_reply)
    streamed = stream_samples(device.session, "a" * 64, dataset(tmp_path, 200))
    assert streamed.samples == 200
    assert 0.0 <= streamed.run_ms < 1e-300


def test_an_event_about_no_pack_is_nothing(tmp_path: Path) -> None:
    device = Doubler()
    stream = streaming._Stream(
        session=device.session,
        release="a" * 64,
        dataset=dataset(tmp_path, 3),
        outputs=None,
        top=0,
        timeout_s=1.0,
        on_progress=lambda _: None,
        collected=Outputs(batch=1, spec="x"),
    )
    for number in ([1], {}, None, True, 7):
        stream._tell({"event": "progress", "id": number, "done": 1})


def test_a_shape_of_nothing_times_too_much_is_refused() -> None:
    shape = [1, 0, 1 << 47, 1 << 47]
    spec = {"name": "y", "dtype": "float32", "shape": shape, "offset": 0, "nbytes": 0}
    outputs = Outputs(batch=1, spec="x")
    with pytest.raises(ProtocolError, match="cannot read outputs from d: the shape of 'y'"):
        outputs.add_pack(0, 1, [{**spec, "first": 0}], b"", device="d")
