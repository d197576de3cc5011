"""A graph is written as one file, or with its weights beside it where one cannot hold it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgesdk.errors import OutputError
from edgesdk.model import open_model, save_model

WriteModel = Callable[..., Path]
GRAPH = "g (float[1, 64] x) => (float[1, 64] y) { t = MatMul(x, w) y = Add(t, b) }"


@pytest.fixture
def model(write_model: WriteModel) -> Any:
    held = {"w": np.eye(64, dtype=np.float32), "b": np.ones(64, np.float32)}
    return open_model(write_model(GRAPH, weights=held)).ir


def test_one_file_holds_a_small_model(model: Any, tmp_path: Path) -> None:
    [path] = save_model(model, tmp_path, "part-0")
    assert path == tmp_path / "part-0.onnx"
    assert open_model(path).source.initializer_bytes == 64 * 65 * 4


def test_weights_go_beside_a_large_one_and_the_bytes_repeat(model: Any, tmp_path: Path) -> None:
    paths = save_model(model, tmp_path, "part-0", single_file_bytes=100)
    assert [path.name for path in paths] == ["part-0.onnx", "part-0.data"]
    first = [path.read_bytes() for path in paths]
    opened = open_model(paths[0])
    assert opened.source.external_data
    assert opened.source.initializer_bytes == 64 * 65 * 4
    assert [
        p.read_bytes() for p in save_model(model, tmp_path, "part-0", single_file_bytes=100)
    ] == first


def test_a_folder_that_is_not_there_is_named(model: Any, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot write .*No such file"):
        save_model(model, tmp_path / "none", "m")
