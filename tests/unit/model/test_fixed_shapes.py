"""Symbolic extents are fixed by input name, together where they share a name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgesdk.errors import ModelError
from edgesdk.model import open_model

WriteModel = Callable[..., Path]
TWO = (
    "g (float[N, 3, H, W] image, float[N, 2] extra) => (float[N, 3, a, b] y, float[N, 2] z) "
    "{ y = MaxPool<kernel_shape=[2, 2], strides=[2, 2]>(image) z = Relu(extra) }"
)


def test_fixed_extents_reach_the_outputs(write_model: WriteModel) -> None:
    source = open_model(write_model(TWO), shapes={"image": (1, 3, 32, 64)}).source
    assert [info.shape for info in source.inputs] == [(1, 3, 32, 64), (1, 2)]
    assert [info.shape for info in source.outputs] == [(1, 3, 16, 32), (1, 2)]


def test_names_of_open_extents_are_kept(write_model: WriteModel) -> None:
    source = open_model(write_model(TWO)).source
    assert source.inputs[0].shape == ("N", 3, "H", "W")
    assert source.outputs[0].shape == ("N", 3, "a", "b")
    assert source.outputs[1].shape == ("N", 2)


@pytest.mark.parametrize(
    ("shapes", "says"),
    [
        ({"imgae": (1,)}, r"no such input \(it has 'image', 'extra'\)"),
        ({"image": (1, 3, 32)}, r"1x3x32 has 3 extents \(the model has 4: Nx3xHxW\)"),
        ({"image": (1, 4, 32, 32)}, r"4 at axis 1 \(the model has Nx3xHxW\)"),
        (
            {"image": (1, 3, 32, 32), "extra": (2, 2)},
            r"extent 'N' is 2 at axis 0 \(but 1 in 'image'\)",
        ),
        ({"image": (0, 3, 32, 32)}, "0 is no extent"),
        ({"image": (1, 3, 1 << 40, 32)}, "is no extent"),
    ],
)
def test_shapes_that_contradict_the_model_are_refused(
    write_model: WriteModel, shapes: dict[str, tuple[int, ...]], says: str
) -> None:
    with pytest.raises(ModelError, match=f"cannot fix the shape of .*{says}"):
        open_model(write_model(TWO), shapes=shapes)


def test_minus_one_is_read_as_unknown(write_model: WriteModel) -> None:
    import onnx

    path = write_model("g (float[N, M] x) => (float[N, M] y) { y = Relu(x) }")
    model = onnx.load(path)
    dims = model.graph.input[0].type.tensor_type.shape.dim
    dims[0].dim_param, dims[1].dim_value = "-1", -1
    path.write_bytes(model.SerializeToString())
    assert open_model(path).source.inputs[0].shape == (None, None)
    assert open_model(path, shapes={"x": (2, 3)}).source.outputs[0].shape == (2, 3)
