"""Labelled data is bound by the runtime: evaluating it against a bare loop over the samples."""

from __future__ import annotations

import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgesdk.bench.accuracy import judge_labelled
from edgesdk.bench.evaluation import evaluate_release
from edgesdk.bench.streaming import stream_samples
from edgesdk.bundle import Bundle
from edgesdk.data.dataset import Dataset, open_dataset
from edgesdk.deploy import deploy_bundle
from edgesdk.deploy.releases import run_on_device
from edgesdk.devices import Device, Session, connect, resolve_device
from edgesdk.tensors import TensorInfo
from edgesdk.testing import make_echo_bundle, serial_agent
from tests.perf.link_serial import line
from tests.perf.test_bare_loops import DEMO, THREADS, build, interval
from tests.perf.test_link_serial import require_calm

pytestmark = pytest.mark.perf

SAMPLES = 10_000
#: Pairs of one evaluation and one bare loop.
ROUNDS = 10
MOST = 1.3


def digits(folder: Path) -> tuple[Dataset, np.ndarray]:
    """The demo's test set, over and over up to 10,000 samples."""
    with np.load(DEMO / "test.npz") as test:
        times = -(-SAMPLES // len(test["labels"]))
        images = np.tile(test["image"], (times, 1, 1, 1))[:SAMPLES].astype(np.float32)
        labels = np.tile(test["labels"], times)[:SAMPLES]
    np.savez(folder / "digits.npz", image=images, labels=labels)
    inputs = (TensorInfo(name="image", dtype="float32", shape=("N", 1, 8, 8)),)
    return open_dataset(folder / "digits.npz", inputs), images


def bare_loop(bundle: Bundle, images: np.ndarray) -> Callable[[], list[np.ndarray]]:
    """What anybody would write: one run after the other of the very file that is deployed."""
    import onnxruntime

    (record,) = bundle.manifest["parts"][0]["files"]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(
        str(bundle.blob_path(record["sha256"])), options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name

    def loop() -> list[np.ndarray]:
        return [session.run(None, {name: images[i : i + 1]})[0] for i in range(len(images))]

    return loop


def seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


@pytest.mark.timeout(900)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_ten_thousand_digits_take_little_more_than_the_bare_loop(
    precision: str, tmp_path: Path
) -> None:
    bundle = build(tmp_path / "bundle", precision)
    data, images = digits(tmp_path)
    loop = bare_loop(bundle, images)
    device = resolve_device(f"local:?state={tmp_path / 'state'}", inventory=None)
    with connect(device, timeout_s=30) as session:
        deploy_bundle(bundle, session, device=device, profile=None)
        # start-up and imports apart: the worker has the model, and both sides are warm
        streamed = stream_samples(session, bundle.id, data)
        assert np.array_equal(streamed.outputs.joined()["logits"], np.concatenate(loop()))
        arms: dict[str, Callable[[], object]] = {
            "bare": loop,
            "other": loop,
            "evaluate": lambda: evaluate_release(session, bundle.id, data, metrics=("top1",)),
            "deploy --data": lambda: judge_labelled(
                session, bundle.id, data=data, reference=None
            ),
        }
        spent: dict[str, list[float]] = {name: [] for name in arms}
        dice = random.Random(1)
        for _ in range(ROUNDS):
            for name in dice.sample(list(arms), len(arms)):
                spent[name].append(seconds(arms[name]))
    bare = statistics.median(spent["bare"])
    sys.stdout.write(f"\n{precision}: {SAMPLES} digits, bare loop {bare:.3f} s")
    found = {}
    for name in ("evaluate", "deploy --data", "other"):
        pairs = zip(spent[name], spent["bare"], strict=True)
        found[name], low, high = interval([one / two for one, two in pairs])
        sys.stdout.write(f", {name}/bare {found[name]:.3f} [{low:.3f}, {high:.3f}]")
    sys.stdout.write(f" over {ROUNDS} rounds, load {os.getloadavg()[0]:.1f}\n")
    if abs(found["other"] - 1) > 0.1:
        pytest.skip(f"void: the bare loop against itself is {found['other']:.2f}")
    assert found["evaluate"] <= MOST
    assert found["deploy --data"] <= MOST


def one_by_one(session: Session, release: str, data: Dataset) -> None:
    for sample in data.samples():
        run_on_device(session, release, sample)


def deployed(session: Session, device: Device, folder: Path) -> str:
    bundle = make_echo_bundle(folder / "bundle")
    deploy_bundle(bundle, session, device=device)
    return bundle.id


@pytest.mark.timeout(600)
def test_a_serial_line_carries_samples_at_its_own_rate(tmp_path: Path) -> None:
    """On a line of 921,600 baud: as many bytes as the line has, not as many round trips."""
    count = 2000
    rows = np.random.default_rng(1).integers(0, 256, (count, 64)).astype(np.uint8)
    np.savez(tmp_path / "d.npz", x=rows, labels=rows.argmax(axis=1))
    inputs = (TensorInfo(name="x", dtype="uint8", shape=(64,)),)
    data = open_dataset(tmp_path / "d.npz", inputs)
    few = open_dataset(tmp_path / "d.npz", inputs, limit=100)
    require_calm(921_600)
    with (
        line(921_600, 0.0, late_s=0.0, seed=1) as link,
        serial_agent(link.device_path, tmp_path / "state", baud=921_600),
    ):
        device = resolve_device(f"serial://{link.host_path}?baud=921600&max_baud=921600")
        with connect(device, timeout_s=30) as session:
            release = deployed(session, device, tmp_path)
            slow = seconds(lambda: one_by_one(session, release, few)) / 100
            first = seconds(lambda: stream_samples(session, release, data)) / count
            again = seconds(lambda: stream_samples(session, release, data)) / count
    ideal = 64 * 10 / 921_600  # random bytes do not shrink; the answers go the other way
    sys.stdout.write(
        f"\n921,600 baud, 64 random bytes a sample: one by one {slow * 1e3:.2f} ms, in packs "
        f"{first * 1e3:.2f} ms, kept on the device {again * 1e3:.2f} ms, the line alone "
        f"{ideal * 1e3:.2f} ms\n"
    )
    assert first < slow / 3
    assert first < 2 * ideal
