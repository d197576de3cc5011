"""Real PyTorch models in every form, from their files to answers of a device."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgesdk.errors import ModelError
from edgesdk.importers.importing import ImportChoices, Imported, import_model, open_imported
from edgesdk.importers.toolchain_spec import find_toolchain
from edgesdk.importers.toolchains import Toolchain, Toolchains
from edgesdk.settings import resolve_settings

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

SCRIPTS = Path(__file__).parent / "importers"
#: What the models take, for forms that do not say it, and the least accuracy of training.
SHAPES = {
    "cnn": (1, 1, 8, 8),
    "efficient": (1, 1, 8, 8),
    "recurrent": (1, 61, 32),
    "transformer": (1, 8, 8),
    "words": (1, 64),
}
LEAST = {"cnn": 0.93, "efficient": 0.9, "recurrent": 0.7, "transformer": 0.9, "words": 0.85}
MAX_REL_ERROR = 1e-4


@pytest.fixture(scope="session")
def toolchain() -> Toolchain:
    return Toolchains(resolve_settings().toolchains_dir).make(find_toolchain("torch"))


def run(toolchain: Toolchain, script: str, *arguments: Path) -> None:
    command = [str(toolchain.interpreter), str(SCRIPTS / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def models(
    toolchain: Toolchain, shared_assets: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    from sklearn.datasets import load_digits

    data, out = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("models")
    digits = load_digits()
    images = (digits.images / 16).astype(np.float32)
    np.savez(
        data / "digits.npz",
        x=images[:1297],
        y=digits.target[:1297],
        test_x=images[1297:],
        test_y=digits.target[1297:],
    )
    with np.load(shared_assets / "speech_digits" / "eval.npz") as held:
        np.savez(
            data / "speech.npz",
            x=held["x_calib"].astype("f4"),
            y=held["y_calib"].astype("i8"),
            test_x=held["x_test"].astype("f4"),
            test_y=held["y_test"].astype("i8"),
        )
    run(toolchain, "torch_models.py", data, out)
    return out


@pytest.fixture(scope="module")
def imports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("imports")


def imported(
    path: Path, imports: Path, notes: list[str] | None = None, **choices: Any
) -> Imported:
    return import_model(
        path,
        toolchains=Toolchains(resolve_settings().toolchains_dir),
        imports=imports,
        choices=ImportChoices(**choices),
        on_note=(notes if notes is not None else []).append,
    )


def scores(model: Imported, models: Path, name: str) -> float:
    """Run the imported float model here on all labelled samples at once."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model.path), providers=["CPUExecutionProvider"])
    with np.load(models / f"{name}-test.npz") as held:
        given = {value.name: held[value.name] for value in session.get_inputs()}
        (logits, *_) = session.run(None, given)
        return float((logits.argmax(1) == held["labels"]).mean())


def trained(models: Path, name: str) -> float:
    accuracy: dict[str, float] = json.loads((models / "accuracy.json").read_text())
    assert accuracy[name] >= LEAST[name]
    return accuracy[name]


@pytest.mark.parametrize(
    "file",
    ["cnn.pt2", "efficient.pt2", "recurrent.pt2", "transformer.pt2",
     "cnn-traced.pt", "transformer-traced.pt", "recurrent-scripted.pt",
     "transformer-scripted.pt"],
)  # fmt: skip
def test_a_model_answers_as_pytorch_does_at_any_batch(
    file: str, models: Path, imports: Path
) -> None:
    name, path = Path(file).stem.partition("-")[0], models / file
    choices = {} if path.suffix == ".pt2" else {"shapes": {"": (None, *SHAPES[name][1:])}}
    model = imported(path, imports, **choices)
    assert model.origin.max_rel_error is not None
    assert model.origin.max_rel_error < MAX_REL_ERROR
    assert model.origin.examples == 3
    opened = open_imported(model)
    (given,), (answer,) = opened.source.inputs, opened.source.outputs
    assert (given.shape[0], answer.shape) == ("batch", ("batch", 10))
    assert list(given.shape[1:]) == list(SHAPES[name][1:])
    assert answer.name == "output"
    assert scores(model, models, name) == trained(models, name)
    if name == "recurrent":
        operators = [node.op_type for node in opened.ir.graph]
        assert operators.count("LSTM") == operators.count("GRU") == 1


def edgesdk(*arguments: str | Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "edgesdk.cli", *map(str, arguments), "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.mark.parametrize(
    "file",
    ["cnn.pt2", "recurrent.pt2", "transformer.pt2",
     "cnn-traced.pt", "recurrent-scripted.pt", "transformer-traced.pt"],
)  # fmt: skip
def test_one_command_from_the_file_to_int8_on_a_device(
    file: str, models: Path, imports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGESDK_IMPORTS_DIR", str(imports))
    name = Path(file).stem.partition("-")[0]
    # the same choices as above, so that it was imported already
    free = ",".join(["?", *map(str, SHAPES[name][1:])])
    result = edgesdk(
        *("deploy", models / file, "--target", "host"),
        *("--device", f"local:?state={tmp_path / 'state'}", "--precision", "int8"),
        *("--calib", models / f"{name}-calib.npz", "--data", models / f"{name}-test.npz"),
        *(() if file.endswith(".pt2") else ("--shape", free)),
        *("--runs", "30"),
        *("-o", tmp_path / "run"),
    )
    accuracy = result["report"]["accuracy"]
    assert accuracy["host_check"]["passed"]
    assert accuracy["labelled"]["value"] >= trained(models, name) - 0.01


def test_inputs_that_are_indices_and_outputs_in_a_dict_keep_their_names(
    models: Path, imports: Path
) -> None:
    program = imported(models / "words.pt2", imports)
    script = imported(models / "words-scripted.pt", imports, shapes={"pixels": (None, 64)})
    for model in (program, script):
        source = open_imported(model).source
        assert [(each.name, each.dtype) for each in source.inputs] == [("pixels", "int64")]
        assert [each.name for each in source.outputs] == ["logits", "seen"]
        assert scores(model, models, "words") == trained(models, "words")


@pytest.mark.parametrize(
    ("kind", "note"),
    [
        ("bfloat16", "in bfloat16 the source's answers differ"),
        ("float16", "in float16 the source's answers differ"),
        ("float64", "its float64 became float32"),
        ("training", "it was exported in training mode"),
    ],
)
def test_other_element_types_and_training_are_undone_and_noted(
    kind: str, note: str, models: Path, imports: Path
) -> None:
    notes: list[str] = []
    model = imported(models / f"cnn-{kind}.pt2", imports, notes)
    assert any(note in each for each in notes), notes
    source = open_imported(model).source
    assert [each.dtype for each in (*source.inputs, *source.outputs)] == ["float32"] * 2
    assert model.origin.max_rel_error is not None
    assert model.origin.max_rel_error < MAX_REL_ERROR


def test_shape_and_opset_are_as_asked(models: Path, imports: Path) -> None:
    model = imported(models / "cnn.pt2", imports, shapes={"image": (1, 1, 8, 8)}, opset=20)
    source = open_imported(model).source
    assert (source.inputs[0].shape, source.opset) == ((1, 1, 8, 8), 20)


@pytest.mark.parametrize(
    ("file", "choices", "seen"),
    [
        ("weights.pt", {}, "it holds weights, and no graph"),
        ("weights.pt", {"trust": True}, "it holds weights, and no graph"),
        ("whole.pt", {}, "would import __main__.Cnn"),
        ("legacy.pt", {}, "would import __main__.Cnn"),
        ("whole.pt", {"trust": True}, "Can't get attribute 'Cnn'"),
        ("cnn-traced.pt", {}, "the shape of its input 'image' is not in the file"),
        ("cnn-traced.pt", {"shapes": {"": (1, 3, 8, 8)}}, "cannot run cnn-traced"),
        ("cnn-traced.pt", {"shapes": {"picture": (1, 1, 8, 8)}}, "has 'image'"),
        ("cnn.pt2", {"shapes": {"image": (1, 3, 8, 8)}}, r"exported as \[\?, 1, 8, 8\]"),
        ("cnn-float64.pt2", {"dynamic": ("image",)}, "exported with a fixed one"),
        ("cnn.pt2", {"opset": 99}, "in opset 99"),
    ],
)  # fmt: skip
def test_what_cannot_be_imported_says_why(
    file: str, choices: dict[str, Any], seen: str, models: Path, imports: Path
) -> None:
    with pytest.raises(ModelError, match=seen) as caught:
        imported(models / file, imports, **choices)
    assert caught.value.hint


def test_a_trusted_module_is_exported_where_its_class_can_be_found(
    models: Path, imports: Path, tmp_path: Path, toolchain: Toolchain,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    save = (
        "import torch, torch_models as made\n"
        "model = made.Cnn()\n"
        f"model.load_state_dict(torch.load({str(models / 'weights.pt')!r}))\n"
        f"torch.save(model, {str(tmp_path / 'own.pt')!r})\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(SCRIPTS))
    subprocess.run([str(toolchain.interpreter), "-c", save], check=True)
    model = imported(
        tmp_path / "own.pt", imports, trust=True, shapes={"image": (None, 1, 8, 8)}
    )
    assert model.origin.trusted
    assert scores(model, models, "cnn") == trained(models, "cnn")


def attempt(file: Path, imports: Path) -> str:
    """Import a file without trust; give the error, or nothing."""
    try:
        imported(file, imports, shapes={} if file.suffix == ".pt2" else {"": (2, 2)})
    except ModelError as exc:
        return f"{exc}. {exc.hint}"
    return ""


def test_nothing_that_a_file_brings_is_run(
    toolchain: Toolchain, imports: Path, tmp_path: Path
) -> None:
    run(toolchain, "torch_attacks.py", tmp_path)
    live = set(json.loads((tmp_path / "live.json").read_text()))
    # PyTorch's own loaders run most of them
    assert {"size", "guard", "container", "weight", "constant", "sample", "script"} <= live
    said = {file.stem: attempt(file, imports) for file in sorted(tmp_path.glob("*.pt*"))}
    assert not list(tmp_path.glob("ran-*"))
    harmless = {name for name, error in said.items() if not error}
    # guards, odd containers and sample inputs are left out; the program itself is whole
    assert harmless == {"whole", "guard", "container", "sample"}
    for name in said.keys() - harmless:
        assert "safely" in said[name], said[name]


LIVE = """
import sys
sys.path += sys.argv[1:]  # behind our own packages, as if PyTorch were installed beside them
import edgesdk, torch_live_modules
torch_live_modules.check(edgesdk.from_torch)
"""


def test_live_modules_are_taken_as_they_are_and_left_so(toolchain: Toolchain) -> None:
    """In one process with PyTorch and edgesdk, as a user's program is."""
    (site,) = toolchain.folder.glob("lib/python3.*/site-packages")
    done = subprocess.run(
        [sys.executable, "-c", LIVE, str(SCRIPTS), str(site)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-2:] == ["all", "well"]
