"""The models that backends are compared on, with samples: ``load(name)`` gives one of `MODELS`.

Those of the quantizer's acceptance, and networks that the onnx package ships without weights.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "perf"))

import quantize_models
from quantize_models import Case, feeds

from edgesdk.model import open_model
from edgesdk.model.open import OpenedModel

__all__ = ["MODELS", "load"]

Arrays = dict[str, np.ndarray]
#: Networks of the onnx package that run here in seconds; the others differ in size only.
_DRAWN = ("squeezenet", "shufflenet", "inception_v1", "inception_v2", "resnet50", "densenet121")
_ASSETS = ("digits_mobile", "fsdd_dscnn", "fsdd_gru_lstm", "fsdd_transformer", "ultraface")
_PICTURES = ("efficientnet_lite0", "mnist_cnn", "ppocr_rec", "ppocr_cls", "ppocr_det")
_OTHERS = ("magika", "silero_vad", "silero_vad_16k", "minilm")
MODELS = (*_ASSETS, *_PICTURES, *_OTHERS, *(f"light_{name}" for name in _DRAWN))
#: Test samples of models that take long.
_FEW = {"ppocr_rec": 100, "ppocr_det": 32, "efficientnet_lite0": 100, "ultraface": 60}
#: Models whose branches take other shapes than those of the samples, so that none can be fixed.
_AS_THEY_ARE = {"silero_vad"}
_USUAL, _DRAWN_SAMPLES = 500, 24


def load(name: str) -> tuple[Case, OpenedModel, list[Arrays], list[Arrays]]:
    """Give a case with its graph at fixed shapes, samples to calibrate, and samples to test.

    Raises:
        LookupError: It cannot be had here.
    """
    drawn = name.startswith("light_")
    source = "efficientnet_lite0" if drawn else name
    (case,) = quantize_models.prepare([source])
    if case.missing:
        raise LookupError(case.missing)
    limit = _FEW.get(name, _DRAWN_SAMPLES if drawn else _USUAL)
    if case.kind == "speech":
        limit = 1 << 16  # streams are judged whole
    calib, test = (
        list(feeds(case, "calib.npz", case.calib)),
        list(feeds(case, "test.npz", limit)),
    )
    path = case.folder / "model.onnx"
    if drawn:
        case = replace(case, name=name, kind="outputs", calib=16)
        path = _with_drawn_weights(name, path.parents[1] / name)
        opened = open_model(path)
        (value,) = opened.source.inputs
        calib = [{value.name: each["input"]} for each in calib[:16]]
        test = [{value.name: each["input"]} for each in test]
    shapes = {key: array.shape for key, array in test[0].items() if array.ndim}
    if name in _AS_THEY_ARE:
        shapes = {}
    return case, open_model(path, shapes=shapes), calib, test


def _with_drawn_weights(name: str, folder: Path) -> Path:
    """Write a network of the onnx package with weights that differ from each other."""
    import onnx
    from onnx import numpy_helper

    path = folder / "drawn-3.onnx"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    data = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / f"{name}.onnx"
    model = onnx.load(data)
    dice = np.random.default_rng(len(name))
    known = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    place = {
        n: (node.op_type, i) for node in model.graph.node for i, n in enumerate(node.input)
    }
    left = []
    for node in model.graph.node:
        if node.op_type != "ConstantOfShape":
            left.append(node)
            continue
        shape = tuple(int(extent) for extent in known[node.input[0]])
        op, position = place.get(node.output[0], ("", 0))
        array = dice.standard_normal(shape) * 0.05
        if op == "BatchNormalization" and position in (1, 4):
            array = dice.uniform(0.7, 1.3, shape)
        elif len(shape) > 1:
            array = dice.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        elif op == "Mul":
            array = dice.uniform(0.7, 1.3, shape)
        made = numpy_helper.from_array(array.astype(np.float32), node.output[0])
        model.graph.initializer.append(made)
    del model.graph.node[:]
    model.graph.node.extend(left)
    _without_softmax(model)
    part = path.with_suffix(".part")
    onnx.save(model, part)
    part.rename(path)
    return path


def _without_softmax(model: Any) -> None:
    """End at the scores: of classes that are all alike a softmax leaves a step or none."""
    from onnx import TensorProto, helper

    last = model.graph.node[-1]
    if last.op_type != "Softmax":
        return
    del model.graph.output[:]
    model.graph.output.append(
        helper.make_tensor_value_info(last.input[0], TensorProto.FLOAT, None)
    )
    del model.graph.node[-1]
