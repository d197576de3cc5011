"""Keras models and SavedModels, made by Keras, imported, quantized, deployed and judged.

The models are trained here for seconds, in the toolchain's own environment; the toolchain is
made once and kept in the checkout's cache.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgesdk.importers.exchange import read_exported
from edgesdk.importers.importing import ImportChoices, import_model
from edgesdk.importers.prove import first_difference, prove_export
from edgesdk.importers.toolchain_spec import find_toolchain
from edgesdk.importers.toolchains import Toolchain, Toolchains
from edgesdk.settings import resolve_settings

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

SCRIPTS = Path(__file__).parent / "importers"

#: Each format with a CNN, a recurrent net and a transformer at least.
CASES = [
    "mobile.keras",
    "gru.keras",
    "transformer.keras",
    "cnn.h5",
    "gru.h5",
    "transformer.h5",
    "cnn_saved",
    "lstm_saved",
    "transformer_saved",
]
#: What must not be left of a model, and what must be there instead.
RECURRENT = {"lstm": {"LSTM": 2}, "gru": {"GRU": 3}}


@pytest.fixture(scope="session")
def toolchain() -> Toolchain:
    return Toolchains(resolve_settings().toolchains_dir).make(find_toolchain("tensorflow"))


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from sklearn.datasets import load_digits

    found = load_digits()
    order = np.random.default_rng(0).permutation(len(found.target))  # writers come in turn
    x, y = (found.images / 16).astype(np.float32)[order], found.target[order]
    path = tmp_path_factory.mktemp("digits") / "digits.npz"
    np.savez(path, x_train=x[:1297], y_train=y[:1297], x_test=x[1297:], y_test=y[1297:])
    return path


@pytest.fixture(scope="session")
def models(
    toolchain: Toolchain, digits: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("keras")
    run_script(toolchain, "keras_models.py", digits, folder)
    return folder


@pytest.fixture(scope="session")
def said(toolchain: Toolchain, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the exporter says of sources that are made to be refused."""
    done = run_script(toolchain, "keras_refusals.py", tmp_path_factory.mktemp("refused"))
    found: dict[str, Any] = json.loads(done.splitlines()[-1])
    return found


def run_script(toolchain: Toolchain, script: str, *arguments: Path) -> str:
    command = [str(toolchain.interpreter), str(SCRIPTS / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def edgesdk(*arguments: str | Path) -> dict[str, Any]:
    """Run the command line for JSON and give its document."""
    command = [sys.executable, "-m", "edgesdk.cli", *map(str, arguments), "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.mark.parametrize("case", CASES)
def test_a_trained_model_goes_all_the_way_as_int8(
    case: str, models: Path, digits: Path, tmp_path: Path, home: Path
) -> None:
    import onnx

    name = case.partition(".")[0].removesuffix("_saved")
    truth = json.loads((models / "truth.json").read_text())[name]
    assert truth > 0.9
    imported = import_model(
        models / case,
        toolchains=Toolchains(resolve_settings().toolchains_dir),
        imports=tmp_path / "imports",
    )
    assert imported.origin.max_rel_error is not None
    assert imported.origin.max_rel_error < 1e-4
    graph = onnx.load(imported.path).graph
    (taken,) = (one.name for one in graph.input)
    assert taken == ("rows" if name in ("lstm", "gru", "transformer") else "image")
    counts = {
        kind: sum(node.op_type == kind for node in graph.node) for kind in ("LSTM", "GRU")
    }
    assert not any(node.op_type == "Loop" for node in graph.node)
    for kind, count in RECURRENT.get(name, {}).items():
        assert counts[kind] == count
    with np.load(digits) as arrays:
        last = (..., None) if taken == "image" else (...,)
        np.savez(tmp_path / "calib.npz", **{taken: arrays["x_train"][:100][last]})
        np.savez(
            tmp_path / "test.npz",
            **{taken: arrays["x_test"][last]},
            labels=arrays["y_test"],
        )
    result = edgesdk(
        *("deploy", imported.path, "--device", f"local:?state={tmp_path / 'state'}"),
        *("--calib", tmp_path / "calib.npz", "--data", tmp_path / "test.npz"),
        *("--runs", "20", "-o", tmp_path / "run"),
    )
    assert result["report"]["accuracy"]["labelled"]["value"] >= truth - 0.01


def test_a_batch_that_is_kept_free_takes_any(models: Path, tmp_path: Path) -> None:
    import onnxruntime as ort

    imported = import_model(
        models / "gru.keras",
        toolchains=Toolchains(resolve_settings().toolchains_dir),
        imports=tmp_path / "imports",
        choices=ImportChoices(dynamic=("rows",)),
    )
    session = ort.InferenceSession(str(imported.path), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["batch", 8, 8]
    rows = np.random.default_rng(0).standard_normal((5, 8, 8)).astype(np.float32)
    (together,) = session.run(None, {"rows": rows})
    apart = [session.run(None, {"rows": one[None]})[0][0] for one in rows]
    np.testing.assert_allclose(together, np.stack(apart), rtol=1e-4, atol=1e-5)


def test_each_kind_of_layer_gives_keras_own_numbers(
    toolchain: Toolchain, tmp_path: Path
) -> None:
    """Exported with a batch of one and with a free one, recurrent layers as such."""
    import onnx

    run_script(toolchain, "keras_layers.py", tmp_path)
    wrong: dict[str, str] = {}
    loops = set()
    folders = sorted(tmp_path.iterdir())
    for folder in folders:
        answer = json.loads((folder / "answer.json").read_text())
        if "model" not in answer:
            wrong[folder.name] = str(answer.get("error") or answer)[:500]
            continue
        exported = read_exported(answer, folder)
        seen = prove_export(exported, name=folder.name)
        if not seen.holds:
            wrong[folder.name] = str(seen)
        elif (found := first_difference(exported)) is not None:
            wrong[folder.name] = f"trace: {found}"
        if any(node.op_type == "Loop" for node in onnx.load(exported.model).graph.node):
            loops.add(folder.name.removesuffix("_free"))
    assert not wrong, json.dumps(wrong, indent=1)
    assert len(folders) > 100
    # a mask decides step by step, and a convolution in a loop has no operator
    assert loops == {"masked_lstm", "masked_gru", "conv_lstm", "rnn_cells"}


REFUSALS = {
    "lambda.keras": ("Lambda 'plus' is refused unread", "--trust"),
    "lambda.h5": ("Lambda 'plus' is refused unread", "--trust"),
    "own.keras": ("needs mine.Twice", "from_keras"),
    "own.h5": ("needs mine.Twice", "from_keras"),
    "function.keras": ("needs squared", "from_keras"),
    "function.h5": ("needs squared", "from_keras"),
    "cut.keras": ("cannot read cut.keras as a Keras archive", "copy it again"),
    "cut.h5": ("cannot read cut.h5 as an HDF5 file", "copy it again"),
    "newer.keras": ("written by Keras 9.1.0 and read by Keras", "export a SavedModel"),
    "only.weights.h5": ("it holds weights and no model", "model.load_weights"),
    "link.h5": ("is a link", "do not load it"),
    "large.h5": ("says it is 4398046511104 bytes long", "do not load it"),
    "writes": ("operator WriteFile", "--trust"),
    "reads": ("operator ReadFile", "--trust"),
    "calls": ("operator EagerPyFunc", "--trust"),
    "prints": ("operator PrintV2", "--trust"),
    "splits": ("works on strings", "in front of it"),
    "worded": ("its input words takes a string", "begins with numbers"),
    "tabled": ("works on tables", "in front of it"),
    "asseted": ("words.txt", "look-up in front of it"),
    "two": ("which of its signatures? it has first, second", "serving_default"),
    "cut_graph": ("cannot read cut_graph/saved_model.pb", "copy it again"),
    "cut_data": ("bytes are promised and", "copy it again"),
    "no_index": ("cannot read the variables of no_index", "copy it again"),
    "no_graph": ("no saved_model.pb", "model.export"),
    "live branch": ("keras_refusals.py:", "keras.ops.cond"),
    "live none": ("it is no Keras model, but of class object", "keras.Model"),
    "opset": ("cannot write opset 9", "--opset 13 to 18"),
    "open": ("without more of its shapes: ids (?, ?)", "--shape ids=1,128"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_cannot_be_imported_says_why_and_what_to_do(
    case: str, said: dict[str, Any]
) -> None:
    problem, hint = REFUSALS[case]
    assert problem in said[case]["problem"]
    assert hint in said[case]["hint"]


def test_nothing_ran_that_was_refused(said: dict[str, Any]) -> None:
    assert said["ran"] is False


@pytest.mark.parametrize(
    "case",
    [
        "double",
        "varied",
        "old_fashioned",
        "two.h5",
        "trusted lambda.keras",
        "trusted lambda.h5",
        "live own",
        "live lambda",
        "shaped",
        "repacked.keras",
    ],
)
def test_what_can_be_imported_is(case: str, said: dict[str, Any]) -> None:
    assert said[case]["problem"] == ""
