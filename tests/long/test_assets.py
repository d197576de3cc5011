"""Real models, all the way: inspected, built for two targets, deployed over three channels.

Each is evaluated on the device against its labels, or, for the face detector, by where it finds
the face. The three channels must agree, as they carry the same bytes to the same runtime.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgesdk.testing import LocalSshd, PtyPair, serial_agent

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

#: Model file, and the least top-1 that it has to reach as int8 (float minus one point).
LABELLED = {
    "digits/digits_mobile.onnx": 0.950,
    "speech_digits/fsdd_dscnn.onnx": 0.977,
    "speech_digits/fsdd_gru_lstm.onnx": 0.977,
    "speech_digits/fsdd_transformer.onnx": 0.983,
}
FACE = "face/ultraface_slim_320.onnx"
#: The nearest of the astronaut's face, as x and y from the upper left, relative to the picture.
FACE_BOX = np.array([179 / 512, 62 / 512, 270 / 512, 174 / 512])


def edgesdk(*arguments: str | Path, fine: tuple[int, ...] = (0,)) -> dict[str, Any]:
    """Run the command line for JSON and give its document."""
    command = [sys.executable, "-m", "edgesdk.cli", *map(str, arguments), "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in fine, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def write_data(model: str, assets: Path, folder: Path) -> tuple[Path, Path]:
    """Write calibration and labelled data for a model; give both files."""
    calib, test = folder / "calib.npz", folder / "test.npz"
    if model == FACE:
        np.savez(calib, input=faces())
        np.savez(test, input=faces()[:1])
    elif model.startswith("digits"):
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = (digits.images / 16).astype(np.float32)[..., None]
        np.savez(calib, image=images[:100])
        np.savez(test, image=images[1297:], labels=digits.target[1297:])
    else:
        with np.load(assets / "speech_digits" / "eval.npz") as arrays:
            last = (..., None) if "dscnn" in model else (...,)
            np.savez(calib, features=arrays["x_calib"].astype(np.float32)[last])
            x_test = arrays["x_test"].astype(np.float32)[last]
            np.savez(test, features=x_test, labels=arrays["y_test"])
    return calib, test


def faces() -> np.ndarray:
    """The astronaut and 40 grey faces as the detector wants them: [N, 3, 240, 320]."""
    import skimage.data
    from PIL import Image

    grey = (skimage.data.lfw_subset()[:40] * 255).astype(np.uint8)
    pictures = [skimage.data.astronaut(), *(np.stack([face] * 3, axis=-1) for face in grey)]
    resized = [np.asarray(Image.fromarray(each).resize((320, 240))) for each in pictures]
    return np.stack([((each - 127.0) / 128).transpose(2, 0, 1) for each in resized]).astype(
        "f4"
    )


@contextlib.contextmanager
def channel(name: str, folder: Path, home: Path) -> Iterator[str]:
    """Give the URL of a device of our own behind that kind of channel."""
    folder.mkdir()
    if name == "local":
        yield f"local:?state={folder / 'state'}"
    elif name == "serial":
        with PtyPair() as line, serial_agent(line.device_path, folder / "state"):
            yield f"serial://{line.host_path}?baud=921600"
    else:
        with LocalSshd(folder / "sshd") as server:
            (home / ".ssh" / "known_hosts").write_text(server.host_line())
            yield server.url(state=folder / "state", python=sys.executable)


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two boxes (left, top, right, bottom)."""
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    both = np.prod(np.clip(high - low, 0, None))
    return float(both / (np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]) - both))


def find_face(url: str, data: Path, folder: Path) -> tuple[float, float]:
    """Run the detector on the device; give the best score and its overlap with the face."""
    out = folder / "boxes.npz"
    edgesdk("run", url, "--data", data, "-o", out)
    with np.load(out) as arrays:
        scores = arrays["scores"].reshape(-1, 2)[:, 1]
        box = arrays["boxes"].reshape(-1, 4)[scores.argmax()]
    return float(scores.max()), overlap(box, FACE_BOX)


@pytest.mark.skipif(
    LocalSshd.why_not() is not None, reason="needs an SSH server: openssh-server"
)
@pytest.mark.parametrize("target", ["host", "raspberry-pi-5"])
@pytest.mark.parametrize("model", [*LABELLED, FACE])
def test_a_real_model_goes_all_the_way(
    model: str, target: str, shared_assets: Path, tmp_path: Path, home: Path
) -> None:
    path = shared_assets / model
    calib, test = write_data(model, shared_assets, tmp_path)
    facts = edgesdk("inspect", path, "--target", target, fine=(0, 1))
    assert facts["model"]["opset"] == (9 if model == FACE else 17)
    built = edgesdk(
        "build", path, "--target", target, "--calib", calib, "-o", tmp_path / "bundle"
    )
    row = [Path(model).stem, target, f"{built['bundle']['bytes']} B"]
    seen = []
    for way in ("local", "ssh", "serial"):
        with channel(way, tmp_path / way, home) as url:
            result = edgesdk(
                *("deploy", tmp_path / "bundle", "--device", url, "--force-target"),
                *("--data", test, "--runs", "60", "-o", tmp_path / f"run-{way}"),
            )
            report = result["report"]
            assert result["bundle"]["id"] == built["bundle"]["id"]
            assert report["accuracy"]["host_check"]["passed"]
            if model == FACE:
                score, found = find_face(url, test, tmp_path)
                assert score > 0.9
                assert found > 0.5
                seen.append(f"score {score:.3f}, overlap {found:.2f}")
            else:
                value = report["accuracy"]["labelled"]["value"]
                assert value >= LABELLED[model]
                seen.append(f"{value:.4f}")
            row.append(f"{way} {seen[-1]}, p50 {report['latency']['p50_ms']:.3f} ms")
    assert len(set(seen)) == 1
    if os.environ.get("ASSETS_TABLE"):
        with Path(os.environ["ASSETS_TABLE"]).open("a") as table:
            table.write(" | ".join(row) + "\n")
