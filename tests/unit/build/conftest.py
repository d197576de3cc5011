"""The classifier and typical inputs for it, as files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.unit.build.models import classifier


@pytest.fixture
def model_path(tmp_path: Path) -> Path:
    return classifier(tmp_path / "small.onnx")


@pytest.fixture
def calib_path(tmp_path: Path) -> Path:
    random = np.random.default_rng(3)
    path = tmp_path / "calib.npz"
    np.savez(path, image=random.random((24, 3, 16, 16), dtype=np.float32))
    return path
