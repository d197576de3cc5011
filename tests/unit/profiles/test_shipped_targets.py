"""The shipped profiles say what the boards of this world can load."""

from __future__ import annotations

import pytest

from edgesdk.profiles import TargetProfile, find_target, load_catalog
from edgesdk.profiles.constraint_values import ConstraintRules

NAMES = {
    "host",
    "raspberry-pi-4",
    "raspberry-pi-5",
    "imx8m-plus",
    "generic-aarch64",
    "generic-armv7",
    "jetson-orin-nano",
    "jetson-orin-nx",
    "jetson-agx-orin",
    "jetson-xavier-nx",
    "jetson-agx-thor",
    "intel-npu-core-ultra-1",
    "intel-npu-core-ultra-2",
    "coral-dev-board",
    "coral-dev-board-mini",
    "coral-usb",
    "coral-m2",
    "imx93",
    *(f"ethos-u55-{macs}" for macs in (32, 64, 128, 256)),
    *(f"ethos-u65-{macs}" for macs in (256, 512)),
    *(f"ethos-u85-{macs}" for macs in (128, 256, 512, 1024, 2048)),
}
#: What each onnxruntime loads at most (opset, IR), found by loading models in that release.
ORT_CEILINGS = {
    "1.14.1": (18, 8),
    "1.17.1": (20, 9),
    "1.19.2": (21, 10),
    "1.23.2": (23, 11),
    "1.32.0": (28, 14),
}
#: The newest onnxruntime with wheels for each Python; later Pythons have later ones.
ORT_FOR_PYTHON = {"3.7": "1.14.1", "3.8": "1.19.2", "3.9": "1.19.2", "3.10": "1.23.2"}
PROFILES = list(load_catalog().values())


def named(profile: TargetProfile) -> str:
    return profile.name


def test_every_promised_target_is_there() -> None:
    assert set(load_catalog()) >= NAMES


def test_further_targets_are_memory_sizes_of_promised_ones() -> None:
    for name in set(load_catalog()) - NAMES:
        assert name.endswith("gb")
        assert name.rsplit("-", 1)[0] in NAMES


@pytest.mark.parametrize("profile", PROFILES, ids=named)
def test_onnxruntime_ceilings_are_those_of_the_release_named(profile: TargetProfile) -> None:
    for backend in profile.backends:
        if backend.kind == "onnxruntime" and backend.runtime_version:
            ceiling = (backend.max_opset, backend.max_ir)
            assert ceiling == ORT_CEILINGS[backend.runtime_version]


@pytest.mark.parametrize("profile", PROFILES, ids=named)
def test_onnxruntime_is_one_the_oldest_image_can_install(profile: TargetProfile) -> None:
    for backend in profile.backends:
        newest = ORT_FOR_PYTHON.get(profile.agent.python)
        if backend.kind == "onnxruntime" and backend.runtime_version and newest:
            assert backend.runtime_version == newest


@pytest.mark.parametrize("profile", PROFILES, ids=named)
def test_every_profile_says_where_its_figures_come_from(profile: TargetProfile) -> None:
    fields = [entry.field for entry in profile.provenance]
    assert len(fields) == len(set(fields))
    assert ("agent.python" in fields) == bool(profile.agent.reach)
    for backend in profile.backends:
        assert f"backends.{backend.id}.precisions" in fields
    assert {figure.split(".scheme.rules.")[0] for figure in profile.assumed} <= {
        *fields,
        *(f"backends.{backend.id}" for backend in profile.backends),
        *(f"backends.{b.id}.compiler" for b in profile.backends if b.compiler is not None),
        *(f"backends.{b.id}.limits" for b in profile.backends if b.limits is not None),
    }


@pytest.mark.parametrize("profile", PROFILES, ids=named)
def test_every_profile_but_of_accelerators_has_a_backend_that_builds(
    profile: TargetProfile,
) -> None:
    kinds = [backend.kind for backend in profile.backends]
    # firmware has TensorFlow Lite Micro and nothing else
    assert "onnxruntime" in kinds or kinds in (["litert"], ["ethos-u", "litert"])
    accelerators = [backend.accelerator for backend in profile.backends]
    assert accelerators == sorted(accelerators, reverse=True), "accelerators come first"


@pytest.mark.parametrize("profile", PROFILES, ids=named)
def test_precisions_are_those_the_runtime_has(profile: TargetProfile) -> None:
    for backend in profile.backends:
        assert backend.scheme is not None
        assert backend.precisions[0] == "int8", "best first"
        if backend.kind == "onnxruntime":
            version = tuple(map(int, (backend.runtime_version or "9.9").split(".")[:2]))
            assert ("int4-weights" in backend.precisions) == (version >= (1, 19))
            assert ("fp16" in backend.precisions) == (version >= (1, 17))
            assert backend.max_opset is None or version < (1, 19) or backend.max_opset >= 21
        else:
            assert "int4-weights" not in backend.precisions


RULES_OF = {
    "onnxruntime": "onnxruntime-cpu",
    "openvino": "openvino",
    "tensorrt": "tensorrt",
    "litert": "litert-int8",
    "vx": "litert-int8",
    "edgetpu": "edgetpu",
    "ethos-u": "litert-int8",
}


@pytest.mark.parametrize("profile", PROFILES, ids=named)
def test_a_backend_has_the_rules_of_its_runtime(profile: TargetProfile) -> None:
    for backend in profile.backends:
        assert backend.scheme is not None
        assert backend.scheme.rules.name == RULES_OF[backend.kind]


def test_this_computer_has_no_ceilings() -> None:
    host = find_target("host")
    assert [backend.id for backend in host.backends] == [
        "ort-cpu",
        "openvino-cpu",
        "litert-cpu",
    ]
    assert all(b.max_opset is None and b.max_ir is None for b in host.backends)
    scheme = host.backends[0].scheme
    assert scheme is not None
    assert (scheme.activations, scheme.weights) == (
        "uint8-asymmetric",
        "int8-per-channel-symmetric",
    )


def test_32_bit_arm_has_no_onnxruntime() -> None:
    assert [b.kind for b in find_target("generic-armv7").backends] == ["litert"]


@pytest.mark.parametrize(
    ("name", "kind", "activations"),
    [
        ("jetson-orin-nano", "tensorrt", "int8-symmetric"),
        ("jetson-xavier-nx", "tensorrt", "int8-symmetric"),
        ("coral-usb", "edgetpu", "int8-asymmetric"),
        ("intel-npu-core-ultra-1", "openvino", "uint8-asymmetric"),
        ("imx8m-plus", "vx", "int8-asymmetric"),
    ],
)
def test_accelerators_come_first_with_their_scheme(
    name: str, kind: str, activations: str
) -> None:
    first = find_target(name).backends[0]
    assert first.accelerator
    assert first.kind == kind
    assert first.scheme is not None
    assert first.scheme.activations == activations


@pytest.mark.parametrize("profile", PROFILES, ids=named)
def test_a_contest_is_between_runtimes_of_the_processor(profile: TargetProfile) -> None:
    by_id = {backend.id: backend for backend in profile.backends}
    assert not any(by_id[name].accelerator for name in profile.contest)
    kinds = [by_id[name].kind for name in profile.contest]
    assert len(kinds) == len(set(kinds))


@pytest.mark.parametrize(
    "name", ["raspberry-pi-4", "raspberry-pi-5", "generic-aarch64", "imx8m-plus"]
)
def test_arm_processors_let_their_two_runtimes_compete(name: str) -> None:
    assert find_target(name).contest == ("ort-cpu", "litert-cpu")


@pytest.mark.parametrize("profile", PROFILES, ids=named)
def test_an_ethos_u_is_one_that_its_compiler_knows(profile: TargetProfile) -> None:
    for backend in profile.backends:
        if isinstance(backend.compiler, ConstraintRules):
            accelerator = str(backend.options["accelerator"])
            assert backend.compiler.core_of(accelerator) is not None


def test_what_the_linux_board_has_of_arm_is_assumed_throughout() -> None:
    board = find_target("imx93")
    assert {"backends.ethos-u.precisions", "identify.device_tree_model"} <= set(board.assumed)
    assert board.agent.reach
    assert board.backends[0].options["delegate"] == "ethosu"
