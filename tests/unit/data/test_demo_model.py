"""The demo in `configs/demo`: the committed files are as good as their script says."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnxruntime
import pytest

from edgesdk.data import lint_range, open_dataset, score_outputs
from edgesdk.tensors import TensorInfo

DEMO = Path(__file__).parents[3] / "configs" / "demo"
IMAGE = TensorInfo(name="image", dtype="float32", shape=("N", 1, 8, 8))


@pytest.fixture(scope="module")
def train() -> ModuleType:
    spec = importlib.util.spec_from_file_location("demo_train", DEMO / "train.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(model: bytes, images: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"image": part})[0] for part in images])


def test_the_committed_model_reads_489_of_the_500_test_pictures():
    data = open_dataset(DEMO / "test.npz", [IMAGE])
    images = np.stack([sample["image"] for sample in data.samples()])
    logits = run((DEMO / "digits_cnn.onnx").read_bytes(), images)
    assert data.labels is not None
    name, score = score_outputs({"logits": logits}, data.labels)
    assert (name, score.metric, score.count) == ("logits", "top-1", 500)
    # One picture of slack: processors sum in different orders.
    assert score.value == pytest.approx(0.978, abs=0.0021)


def test_the_demo_data_is_clean_and_fits_the_model():
    for name, count in (("calib.npz", 100), ("test.npz", 500)):
        data = open_dataset(DEMO / name, [IMAGE])
        assert data.count == count
        assert data.findings == ()
        assert lint_range(data) == ()


def test_no_calibration_picture_is_a_test_picture():
    calib = np.load(DEMO / "calib.npz")["image"].reshape(100, -1)
    test = np.load(DEMO / "test.npz")["image"].reshape(500, -1)
    assert not (calib[:, np.newaxis] == test[np.newaxis]).all(axis=2).any()


@pytest.mark.slow
def test_the_test_pictures_are_the_last_500_of_the_digits():
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    test = np.load(DEMO / "test.npz")
    np.testing.assert_array_equal(test["image"][:, 0] * 16, digits.images[-500:])
    np.testing.assert_array_equal(test["labels"], digits.target[-500:])


def test_the_demo_stays_small():
    assert sum(path.stat().st_size for path in DEMO.iterdir() if path.is_file()) < 500_000


def test_the_demo_has_the_operators_a_build_has_to_deal_with():
    graph = onnx.load(DEMO / "digits_cnn.onnx").graph
    ops = {node.op_type for node in graph.node}
    assert ops == {
        "Add",
        "BatchNormalization",
        "Clip",
        "Conv",
        "Flatten",
        "Gemm",
        "GlobalAveragePool",
        "Resize",
    }


def test_what_is_exported_computes_what_was_trained(train, monkeypatch):
    monkeypatch.setattr(train, "STEM_CHANNELS", 8)
    monkeypatch.setattr(train, "BLOCKS", ((8, 1), (16, 2), (16, 1)))
    rng = np.random.default_rng(1)
    network = train.Network(rng)
    images = rng.random((4, 8, 8), dtype=np.float32)
    network.forward(images, training=True)
    model = train.to_onnx(network).SerializeToString()
    wanted = network.forward(images)
    made = run(model, images[:, np.newaxis, np.newaxis])
    np.testing.assert_allclose(made, wanted, rtol=1e-3, atol=1e-4)


def test_every_epoch_of_training_lowers_the_loss(train, monkeypatch, capsys):
    monkeypatch.setattr(train, "STEM_CHANNELS", 8)
    monkeypatch.setattr(train, "BLOCKS", ((8, 1),))
    rng = np.random.default_rng(1)
    labels = np.arange(320) % 2
    images = np.zeros((320, 8, 8), np.float32)
    images[labels == 1, 2:6] = 1.0
    images += rng.random(images.shape, dtype=np.float32) / 8
    train.train(images, labels, epochs=4)
    losses = [
        float(line.split()[3].rstrip(",")) for line in capsys.readouterr().out.splitlines()
    ]
    assert len(losses) == 4
    assert losses == sorted(losses, reverse=True)
