"""Bundles for older images load and run in what those images have, on their interpreters.

The agent and its worker both run on the older interpreter, reached through a real SSH server,
and check vectors made with this computer's newest runtime have to pass in the older one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgesdk.backends.fallbacks import ceilings_of
from edgesdk.build import build_bundle
from edgesdk.bundle import Bundle
from edgesdk.data.dataset import open_dataset
from edgesdk.deploy import Deployment, deploy_bundle
from edgesdk.devices import connect, resolve_device
from edgesdk.model.open import OpenedModel, open_model
from edgesdk.model.tflite import OpenedTflite, open_tflite
from edgesdk.plan import load_recipe, model_facts, plan_build
from edgesdk.profiles.catalog import find_target
from edgesdk.testing import LocalSshd
from tests.unit.build.models import CLASSIFIER, classifier

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

DEMO = Path(__file__).parents[2] / "configs" / "demo"
#: A target of that class of image, the Python it has, and the newest runtime for that Python.
IMAGES = [
    pytest.param("coral-dev-board", "3.7", "onnxruntime==1.14.1", id="mendel-class"),
    pytest.param("jetson-xavier-nx", "3.8", "onnxruntime==1.19.2", id="jetpack-5-class"),
]
#: Backends whose runtime such an environment does not have, by what it has.
MISSING = {"onnxruntime": ("edgetpu", "litert-cpu"), "tflite-runtime": ("edgetpu", "ort-cpu")}


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSshd]:
    if (reason := LocalSshd.why_not()) is not None:
        pytest.skip(f"needs an SSH server: {reason}")
    with LocalSshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


Build = Callable[..., Bundle]
Send = Callable[[Bundle, str], Deployment]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    def make(
        opened: OpenedModel | OpenedTflite,
        target: str,
        calib: Path | None = None,
        has: str = "",
    ) -> Bundle:
        profile = find_target(target)
        data = open_dataset(calib, opened.source.inputs) if calib else None
        lacks = {each.id for each in profile.backends} & {*MISSING.get(has, ())}
        recipe = load_recipe(None).resolve(calibrated=data is not None)
        recipe = replace(recipe, avoid=tuple(sorted(lacks)))
        plan = plan_build(model_facts(opened), profile, recipe)
        out = tmp_path / f"{target}-bundle"
        return build_bundle(opened, profile, recipe, plan, calib=data, out=out)

    return make


@pytest.fixture
def send(sshd: LocalSshd, home: Path, tmp_path: Path) -> Send:
    (home / ".ssh" / "known_hosts").write_text(sshd.host_line())

    def deploy(bundle: Bundle, python: str) -> Deployment:
        device = resolve_device(sshd.url(state=tmp_path / "state", python=python))
        with connect(device) as session:
            profile = find_target(bundle.manifest["target"]["name"])
            return deploy_bundle(
                bundle, session, device=device, profile=profile, force_target=True
            )

    return deploy


@pytest.mark.parametrize(
    ("target", "version", "requirement"),
    [
        *IMAGES,
        pytest.param("coral-dev-board", "3.7", "tflite-runtime==2.11.0", id="mendel-litert"),
    ],
)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_bundle_runs_in_the_runtime_an_older_image_has(
    target: str,
    version: str,
    requirement: str,
    precision: str,
    build: Build,
    send: Send,
    older_python: Callable[..., str],
) -> None:
    calib = DEMO / "calib.npz" if precision == "int8" else None
    has, _, release = requirement.partition("==")
    bundle = build(open_model(DEMO / "digits_cnn.onnx"), target, calib, has)
    receipt = send(bundle, older_python(version, requirement))
    assert receipt.self_check.passed
    assert receipt.slot == "current"
    (runtime,) = receipt.self_check.runtimes
    assert runtime.version.split()[-1] == release


@pytest.mark.parametrize(("target", "version", "requirement"), IMAGES)
def test_a_model_newer_than_the_runtime_is_lowered_to_what_it_loads(
    target: str,
    version: str,
    requirement: str,
    tmp_path: Path,
    build: Build,
    send: Send,
    older_python: Callable[..., str],
) -> None:
    newest = CLASSIFIER.replace("ir_version: 8", "ir_version: 12").replace(": 17]", ": 24]")
    path = classifier(tmp_path / "newest.onnx", newest)
    assert onnx.load(path).opset_import[0].version == 24
    bundle = build(open_model(path), target, has=requirement.partition("==")[0])
    part, profile = bundle.manifest["parts"][0], find_target(target)
    backend = next(each for each in profile.backends if each.id == part["backend"])
    # where another runtime may have to serve the part, its ceilings hold too
    max_opset, max_ir = ceilings_of(profile, backend)
    assert part["requires"]["opset"] == max_opset
    assert part["requires"]["ir_version"] <= (max_ir or 0)
    assert send(bundle, older_python(version, requirement)).self_check.passed


def test_a_tflite_file_runs_in_tflite_runtime(
    shared_assets: Path, build: Build, send: Send, older_python: Callable[..., str]
) -> None:
    opened = open_tflite(shared_assets / "edgetpu" / "mobilenet_v1_0.25_128_quant.tflite")
    bundle = build(opened, "coral-dev-board")
    part = bundle.manifest["parts"][0]
    assert (part["runtime"], part["format"]) == ("litert", "tflite")
    receipt = send(bundle, older_python("3.9", "tflite-runtime==2.14.0", "numpy<2"))
    assert receipt.self_check.passed
    (runtime,) = receipt.self_check.runtimes
    assert runtime.version == "tflite_runtime 2.14.0"
    assert np.prod(part["inputs"][0]["shape"]) == 128 * 128 * 3
