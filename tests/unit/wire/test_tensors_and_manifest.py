"""Specs and manifests from a peer are checked before a byte of theirs is used."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesdk.errors import ProtocolError
from edgesdk.tensors import pack_tensors, unpack_tensors
from edgesdk.wire.manifest import (
    ManifestError,
    bundle_id,
    canonical_bytes,
    deployed_blobs,
    load_manifest,
    part_file_name,
    part_files,
)
from edgesdk.wire.tensors import TensorError, check_specs

DIGEST = "a" * 64
SPEC = {"name": "x", "dtype": "float32", "shape": [2, 3], "offset": 0, "nbytes": 24}
VALUE = {"name": "x", "dtype": "float32", "shape": [2, 3]}
MANIFEST: dict[str, Any] = {
    "schema": "edgesdk.bundle/1",
    "name": "m",
    "precision": "int8",
    "model": {},
    "target": {"name": "t"},
    "inputs": [VALUE],
    "outputs": [VALUE],
    "parts": [
        {
            "backend": "b",
            "runtime": "r",
            "format": "onnx",
            "precision": "int8",
            "files": [{"role": "model", "sha256": DIGEST, "bytes": 5}],
            "inputs": [VALUE],
            "outputs": [VALUE],
            "options": {},
        }
    ],
    "checks": [
        {
            "blob": {"sha256": "b" * 64, "bytes": 24},
            "inputs": [SPEC],
            "expected": [SPEC],
            "reference": [],
            "tolerance": [],
        }
    ],
    "attachments": [{"role": "plan", "sha256": "c" * 64, "bytes": 1}],
}


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["float32", "float16", "int8", "uint8", "int64", "bool"]),
            st.lists(st.integers(0, 4), max_size=4),
        ),
        max_size=4,
    )
)
def test_tensors_survive_packing(entries: list[tuple[str, list[int]]]) -> None:
    arrays = {
        f"t{i}": np.arange(int(np.prod(shape))).reshape(shape).astype(dtype)
        for i, (dtype, shape) in enumerate(entries)
    }
    specs, body = pack_tensors(arrays)
    back = unpack_tensors(specs, body)
    assert list(back) == list(arrays)
    for name, array in arrays.items():
        assert back[name].dtype == array.dtype
        np.testing.assert_array_equal(back[name], array)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": "object"}, "has dtype 'object'"),
        ({"dtype": ["float32"]}, "has dtype"),
        ({"shape": [2, -3]}, "has shape"),
        ({"shape": [True, 6]}, "has shape"),
        ({"shape": [1] * 33}, "has shape"),
        ({"shape": [1 << 48, 1 << 48]}, "has shape"),
        ({"nbytes": 23}, "cannot have 23 bytes"),
        ({"offset": -1}, "has no place"),
        ({"offset": 1}, "ends at byte 25 of 24"),
        ({"name": 7}, "has no name"),
    ],
)
def test_a_spec_that_lies_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(TensorError, match=message):
        check_specs([SPEC | change], 24)
    with pytest.raises(ProtocolError, match="cannot read tensors from the device"):
        unpack_tensors([SPEC | change], bytes(24))


def test_strings_cannot_be_sent() -> None:
    with pytest.raises(TypeError, match="cannot be sent"):
        pack_tensors({"x": np.array(["a"], dtype=object)})


def test_a_manifest_reads_back_and_names_its_blobs() -> None:
    data = canonical_bytes(MANIFEST)
    assert load_manifest(data) == MANIFEST
    assert bundle_id(load_manifest(data)) == bundle_id(MANIFEST)
    assert list(deployed_blobs(MANIFEST)) == [(DIGEST, 5), ("b" * 64, 24)]


def put(manifest: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    changed = copy.deepcopy(manifest)
    *steps, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    place: Any = changed
    for step in steps:
        place = place[step]
    place[last] = value
    return changed


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("schema", "edgesdk.bundle/2", "its schema is"),
        ("name", "..", "its name is"),
        ("parts", [], "it has 0 parts"),
        ("checks", [], "it has no check vectors"),
        ("parts.0.files", [], "have the roles"),
        ("parts.0.files.0.role", "../model", "have the roles"),
        ("parts.0.files.0.bytes", -1, "bytes is -1"),
        ("parts.0.files.0.bytes", True, "bytes is True"),
        ("parts.0.files.0.bytes", 2**63, "bytes is"),
        ("parts.0.files.0.sha256", "../x", "sha256 is"),
        ("parts.0.format", "pickle", "format is 'pickle'"),
        ("parts.0.runtime", "../../bin/sh", "has the name"),
        ("parts.0.precision", "x/../../out", "has the name 'x/../../out'"),
        ("parts.0.precision", "int8\0", "has the name"),
        ("parts.0.precision", None, "parts.0..precision is None"),
        ("precision", "../int8", "its precision is '../int8'"),
        ("target", {}, "target.name is None"),
        ("target.name", 7, "target.name is 7"),
        ("checks.0.inputs.0.offset", 10, "ends at byte"),
        ("attachments.0.sha256", DIGEST, "has two sizes"),
        ("inputs", {}, "manifest.inputs is"),
        ("name", "\ud800", "not text|not JSON"),
    ],
)
def test_a_manifest_that_lies_is_refused(path: str, value: object, message: str) -> None:
    import json

    changed = put(MANIFEST, path, value)
    data = json.dumps(changed, sort_keys=True, separators=(",", ":")).encode()
    with pytest.raises(ManifestError, match=message):
        load_manifest(data)


SPARE = {"format": "tflite", "files": [{"role": "model", "sha256": "d" * 64, "bytes": 7}]}
WAY = {"backend": "c", "runtime": "s", "options": {}, "spare": True}


def with_spare(spare: object = SPARE, way: object = WAY) -> dict[str, Any]:
    changed = put(MANIFEST, "parts.0.spare", spare)
    return put(changed, "parts.0.fallbacks", [way])


def test_a_spare_file_is_sent_and_named_like_the_others() -> None:
    manifest = with_spare()
    assert load_manifest(canonical_bytes(manifest)) == manifest
    assert ("d" * 64, 7) in list(deployed_blobs(manifest))
    assert [name for name, _, _ in part_files(manifest)] == ["part-0.onnx", "part-0.tflite"]


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        (with_spare({**SPARE, "format": "onnx"}), "spare.format is 'onnx'"),
        (with_spare({**SPARE, "format": "pickle"}), "spare.format is 'pickle'"),
        (with_spare({**SPARE, "files": []}), "have the roles"),
        (with_spare({**SPARE, "files": ["x"]}), "is not an object"),
        (with_spare([]), "spare is not an object"),
        (with_spare(way={**WAY, "spare": "yes"}), "spare is 'yes'"),
        (put(MANIFEST, "parts.0.fallbacks", [WAY]), "spare is True"),
    ],
)
def test_a_spare_file_that_lies_is_refused(manifest: dict[str, Any], message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        load_manifest(canonical_bytes(manifest))


@given(st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x, max_size=3)))
def test_no_value_in_any_place_makes_the_check_crash(value: object) -> None:
    for path in (
        "parts",
        "checks",
        "parts.0",
        "parts.0.spare",
        "checks.0.blob",
        "attachments.0",
        "inputs.0",
    ):
        changed = put(MANIFEST, path, value)
        try:
            data = canonical_bytes(changed)
        except ValueError:
            continue
        with contextlib.suppress(ManifestError):
            load_manifest(data)


@pytest.mark.parametrize(
    ("formats", "roles", "name"),
    [
        (("openvino", "bytes"), (["model", "data"], ["model"]), "part-0.bin"),
        (("onnx", "tflite"), (["model", "data"], ["model", "data"]), "part-0.data"),
        (("onnx", "tflite"), (["model", "calibration"],) * 2, "part-0.calib"),
    ],
)
def test_two_files_of_a_part_never_share_a_name(
    formats: tuple[str, str], roles: tuple[list[str], list[str]], name: str
) -> None:
    own, spare = (
        [{"role": role, "sha256": digit * 64, "bytes": 7} for role in each]
        for digit, each in zip("de", roles, strict=True)
    )
    changed = put(MANIFEST, "parts.0.format", formats[0])
    changed = put(changed, "parts.0.files", own)
    changed = put(changed, "parts.0.spare", {"format": formats[1], "files": spare})
    with pytest.raises(ManifestError, match=f"parts.0..spare has a second file for {name}"):
        load_manifest(canonical_bytes(changed))


def test_the_file_of_a_part_is_named_by_us() -> None:
    assert part_file_name(3, "model", "onnx") == "part-3.onnx"
    assert part_file_name(0, "data", "onnx") == "part-0.data"
