"""Labelled data goes to a device in packs over every way, and comes to the same numbers."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgesdk.bench.evaluation import evaluate_release
from edgesdk.bench.streaming import stream_samples
from edgesdk.data.dataset import Dataset, open_dataset
from edgesdk.deploy import deploy_bundle
from edgesdk.devices import Session
from edgesdk.errors import LinkError
from edgesdk.tensors import TensorInfo
from edgesdk.testing import make_echo_bundle
from tests.contract.conftest import Way

INPUTS = (TensorInfo(name="x", dtype="uint8", shape=(64,)),)
COUNT = 600


def digits(folder: Path, count: int = COUNT) -> tuple[Dataset, np.ndarray]:
    """Rows that an echo classifies by their largest value; one in ten has another label."""
    dice = np.random.default_rng(1)
    labels = dice.integers(0, 64, count)
    rows = dice.integers(0, 100, (count, 64)).astype(np.uint8)
    rows[np.arange(count), labels] = 200
    labels[::10] = (labels[::10] + 1) % 64
    np.savez(folder / "d.npz", x=rows, labels=labels)
    return open_dataset(folder / "d.npz", INPUTS), rows


def deployed(way: Way, session: Session, folder: Path, **options: Any) -> str:
    bundle = make_echo_bundle(folder / "bundle", options=options)
    deploy_bundle(bundle, session, device=way.device)
    return bundle.id


def test_outputs_are_those_of_the_samples_and_a_second_time_nothing_is_sent(
    way: Way, session: Session, tmp_path: Path
) -> None:
    release = deployed(way, session, tmp_path)
    data, rows = digits(tmp_path)
    first = stream_samples(session, release, data)
    assert np.array_equal(first.outputs.joined()["y"], rows)
    again, stopped = evaluate_release(session, release, data)
    assert stopped is None
    top1, top5 = again.metrics
    assert (top1.metric, top1.value, top1.rows) == ("top-1", 0.9, COUNT)
    assert top1.lower is not None
    assert top1.lower < 0.9 < (top1.upper or 0)
    assert top5.metric == "top-5"
    far = way.line is not None or way.device.url.scheme == "ssh"
    assert again.kept_samples == (COUNT if far else 0)
    assert (again.sent_bytes == 0) is far
    if session.channel.traits.compress:
        assert first.sent_bytes < 0.95 * rows.nbytes


def test_device_that_goes_in_the_middle_leaves_what_it_answered(
    way: Way, session: Session, tmp_path: Path
) -> None:
    release = deployed(way, session, tmp_path, delay_ms=1)
    # a line without a cable is silent, and the test does not wait for as long as a user would
    session.channel.traits = replace(session.channel.traits, silence_s=2.0)
    count = 4 * COUNT
    data, _ = digits(tmp_path, count)
    cut = threading.Timer(1e6, way.cut, [session])

    def tell(progress: Any) -> None:
        if progress.done >= count // 2 and not cut.finished.is_set() and not cut.is_alive():
            cut.interval = 0.0
            cut.start()

    evaluation, stopped = evaluate_release(session, release, data, on_progress=tell)
    cut.cancel()
    assert isinstance(stopped, LinkError)
    assert COUNT < evaluation.samples < count
    assert (evaluation.complete, evaluation.wanted_samples) == (False, count)
    assert evaluation.stopped == str(stopped)
    assert evaluation.metrics[0].rows == evaluation.samples
    assert evaluation.metrics[0].value == pytest.approx(0.9, abs=0.05)
