"""The bundle manifest: its canonical bytes, its id, and the checks both ends make before use.

A bundle is immutable and named by the SHA-256 of its canonical manifest. The manifest names
every blob by hash and size, so the id covers every byte that is deployed.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, Dict, Iterator, List, Optional, Tuple

from edgesdk.wire.frames import load_json
from edgesdk.wire.limits import MAX_MANIFEST_BYTES
from edgesdk.wire.tensors import TensorError, check_specs

__all__ = [
    "FORMAT_SUFFIX",
    "MANIFEST_SCHEMA",
    "NAME_PATTERN",
    "ManifestError",
    "blobs_of",
    "bundle_id",
    "canonical_bytes",
    "deployed_blobs",
    "load_manifest",
    "part_file_name",
    "part_files",
    "why_bad_limits",
]

MANIFEST_SCHEMA = "edgesdk.bundle/1"
#: Names that may be shown and stored: no separator, leading dot or dash, control character.
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_MAX_BLOB_BYTES = 1 << 40
_MAX_PARTS = 4096

#: Formats of a part, and the suffix under which a runtime is shown its file.
FORMAT_SUFFIX = {"onnx": ".onnx", "tflite": ".tflite", "openvino": ".xml", "bytes": ".bin"}
#: Suffix of the file in which a format keeps its weights, where that is not ``.data``.
_DATA_SUFFIX = {"openvino": ".bin"}
_CALIBRATION_SUFFIX = ".calib"
#: Roles of the files of a part, in the order in which a runtime is given them.
_FILE_ROLES = (
    ["model"],
    ["model", "data"],
    ["model", "calibration"],
    ["model", "data", "calibration"],
)
_MAX_FALLBACKS = 8
#: What a worker may take, with the least and the most that make sense.
_LIMITS = {"memory_bytes": (64 << 20, 1 << 50), "niceness": (0, 19), "run_s": (0.001, 86_400)}
_BARE_WORKER_BYTES = 32 << 20
#: Runtimes that reserve far more addresses than they use memory: a limit would end them.
_RESERVING = ("tensorrt",)


class ManifestError(ValueError):
    """A manifest is not one, or contradicts itself."""


def canonical_bytes(manifest: Dict[str, Any]) -> bytes:
    """Give the one byte string that stands for ``manifest``: sorted keys, no spaces, UTF-8."""
    return json.dumps(
        manifest, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode("utf-8")


def bundle_id(manifest: Dict[str, Any]) -> str:
    """Name a bundle by what it contains (64 hexadecimal digits)."""
    return hashlib.sha256(canonical_bytes(manifest)).hexdigest()


def part_file_name(index: int, role: str, part_format: str) -> str:
    """Name the file of a part on disk; derived, never taken from a peer.

    ``role`` is ``"model"``, ``"data"`` (weights that lie outside of it; an ONNX file holds the
    name of theirs) or ``"calibration"`` (scales for a compiler on the device).
    """
    suffix = FORMAT_SUFFIX[part_format]
    if role == "data":
        suffix = _DATA_SUFFIX.get(part_format, ".data")
    elif role == "calibration":
        suffix = _CALIBRATION_SUFFIX
    return "part-{}{}".format(index, suffix)


def load_manifest(data: bytes) -> Dict[str, Any]:
    """Parse and check the bytes of a manifest.

    Raises:
        ManifestError: Too large, not canonical JSON, an unknown schema, or a field is wrong.
    """
    if len(data) > MAX_MANIFEST_BYTES:
        raise ManifestError(
            "it has {} bytes (at most {})".format(len(data), MAX_MANIFEST_BYTES)
        )
    try:
        manifest = load_json(data)
    except ValueError as exc:
        raise ManifestError("it is not JSON: {}".format(exc)) from exc
    if not isinstance(manifest, dict):
        raise ManifestError("it is not a JSON object")
    if manifest.get("schema") != MANIFEST_SCHEMA:
        raise ManifestError(
            "its schema is {!r} (expected {!r})".format(manifest.get("schema"), MANIFEST_SCHEMA)
        )
    try:
        canonical = canonical_bytes(manifest)
    except ValueError as exc:  # a lone surrogate, which UTF-8 cannot hold
        raise ManifestError("it is not text: {}".format(exc)) from exc
    if canonical != data:
        raise ManifestError("it is not in canonical form")
    _check(manifest)
    return manifest


def _need(record: Any, where: str, **fields: Any) -> None:
    if not isinstance(record, dict):
        raise ManifestError("{} is not an object".format(where))
    for name, kind in fields.items():
        value = record.get(name)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise ManifestError("{}.{} is {!r}".format(where, name, value)[:300])


def _check_blob(record: Any, where: str) -> None:
    _need(record, where, sha256=str, bytes=int)
    if not _SHA256.match(record["sha256"]):
        raise ManifestError("{}.sha256 is {!r}".format(where, record["sha256"])[:300])
    if not 0 <= record["bytes"] <= _MAX_BLOB_BYTES:
        raise ManifestError("{}.bytes is {}".format(where, record["bytes"]))


def _check_values(values: List[Any], where: str) -> None:
    for value in values:
        _need(value, where, name=str, dtype=str, shape=list)


def _check_files(files: List[Any], where: str) -> None:
    roles = []
    for number, record in enumerate(files):
        _check_blob(record, "{}.files[{}]".format(where, number))
        roles.append(record.get("role"))
    if roles not in _FILE_ROLES:
        raise ManifestError("{}.files have the roles {!r}".format(where, roles)[:300])


def _check_spare(part: Dict[str, Any], where: str, index: int) -> None:
    """Check the files that a part has besides, in another format, for its fallbacks."""
    if "spare" not in part:
        return
    here = where + ".spare"
    _need(part["spare"], here, format=str, files=list)
    told = part["spare"]["format"]
    if told not in FORMAT_SUFFIX or told == part["format"]:
        raise ManifestError("{}.format is {!r}".format(here, told)[:300])
    _check_files(part["spare"]["files"], here)
    names = [name for name, _, _ in _files_of(part, index)]
    twice = [name for name in names if names.count(name) > 1]
    if twice:  # both formats have a file with this suffix
        raise ManifestError("{} has a second file for {}".format(here, twice[0]))


def _check_part(part: Any, index: int) -> None:
    where = "parts[{}]".format(index)
    _need(
        part,
        where,
        backend=str,
        runtime=str,
        format=str,
        precision=str,
        files=list,
        inputs=list,
        outputs=list,
        options=dict,
    )
    for name in (part["backend"], part["runtime"], part["precision"]):
        if not NAME_PATTERN.match(name):
            raise ManifestError("{} has the name {!r}".format(where, name)[:300])
    if part["format"] not in FORMAT_SUFFIX:
        raise ManifestError("{}.format is {!r}".format(where, part["format"])[:300])
    _check_files(part["files"], where)
    _check_spare(part, where, index)
    _check_values(part["inputs"], where + ".inputs")
    _check_values(part["outputs"], where + ".outputs")
    fallbacks = part.get("fallbacks", [])
    if not isinstance(fallbacks, list) or len(fallbacks) > _MAX_FALLBACKS:
        raise ManifestError("{}.fallbacks is {!r}".format(where, fallbacks)[:300])
    for number, record in enumerate(fallbacks):
        here = "{}.fallbacks[{}]".format(where, number)
        _need(record, here, backend=str, runtime=str, options=dict)
        for name in (record["backend"], record["runtime"]):
            if not NAME_PATTERN.match(name):
                raise ManifestError("{} has the name {!r}".format(here, name)[:300])
        wants = record.get("spare", False)
        if type(wants) is not bool or (wants and "spare" not in part):
            raise ManifestError("{}.spare is {!r}".format(here, wants)[:300])


def why_bad_limits(manifest: Dict[str, Any]) -> str:
    """Say what is wrong with ``limits``, what its worker may take; empty if nothing is.

    An unknown one is wrong: a limit that is passed over in silence is none.
    """
    limits = manifest.get("limits", {})
    if not isinstance(limits, dict):
        return "limits is {!r}".format(limits)[:300]
    for name, value in limits.items():
        if name not in _LIMITS:
            return "limits.{} is not known (only {})".format(name, ", ".join(_LIMITS))[:300]
        least, most = _LIMITS[name]
        kinds = (int, float) if name == "run_s" else (int,)
        if (
            isinstance(value, bool)
            or not isinstance(value, kinds)
            or not least <= value <= most
        ):
            text = "limits.{} is {!r} (expected {} to {})"
            return text.format(name, value, least, most)[:300]
    memory = limits.get("memory_bytes")
    if memory is not None:
        held = sum(record["bytes"] for part in manifest["parts"] for record in part["files"])
        if memory < held + _BARE_WORKER_BYTES:
            return "limits.memory_bytes is {}, and the parts alone have {} bytes".format(
                memory, held
            )
        for part in manifest["parts"]:
            if part["runtime"] in _RESERVING:
                return (
                    "limits.memory_bytes counts addresses, of which {} reserves far more than "
                    "it uses memory".format(part["runtime"])
                )
    return ""


def _check(manifest: Dict[str, Any]) -> None:
    _need(
        manifest,
        "manifest",
        name=str,
        precision=str,
        target=dict,
        model=dict,
        inputs=list,
        outputs=list,
        parts=list,
        checks=list,
        attachments=list,
    )
    if not NAME_PATTERN.match(manifest["name"]):
        raise ManifestError("its name is {!r}".format(manifest["name"])[:300])
    if not NAME_PATTERN.match(manifest["precision"]):
        raise ManifestError("its precision is {!r}".format(manifest["precision"])[:300])
    _need(manifest["target"], "target", name=str)
    _check_values(manifest["inputs"], "inputs")
    _check_values(manifest["outputs"], "outputs")
    if not 1 <= len(manifest["parts"]) <= _MAX_PARTS:
        raise ManifestError("it has {} parts".format(len(manifest["parts"])))
    for index, part in enumerate(manifest["parts"]):
        _check_part(part, index)
    why = why_bad_limits(manifest)
    if why:
        raise ManifestError(why)
    if not manifest["checks"]:
        raise ManifestError("it has no check vectors")
    for index, check in enumerate(manifest["checks"]):
        where = "checks[{}]".format(index)
        _need(
            check, where, blob=dict, inputs=list, expected=list, reference=list, tolerance=list
        )
        _check_blob(check["blob"], where + ".blob")
        for group in ("inputs", "expected", "reference"):
            try:
                check_specs(check[group], check["blob"]["bytes"])
            except TensorError as exc:
                raise ManifestError("{}.{}: {}".format(where, group, exc)) from exc
    for index, record in enumerate(manifest["attachments"]):
        where = "attachments[{}]".format(index)
        _check_blob(record, where)
        _need(record, where, role=str)
    sizes = {}  # type: Dict[str, int]
    for sha256, size in blobs_of(manifest):
        if sizes.setdefault(sha256, size) != size:
            raise ManifestError("blob {} has two sizes".format(sha256))


def part_files(manifest: Dict[str, Any]) -> Iterator[Tuple[str, str, int]]:
    """Give (file name, sha256, bytes) of every file of every part, spare ones included."""
    for index, part in enumerate(manifest["parts"]):
        for found in _files_of(part, index):
            yield found


def _files_of(part: Dict[str, Any], index: int) -> Iterator[Tuple[str, str, int]]:
    for held in [part] + [part[key] for key in ("spare",) if key in part]:
        for record in held["files"]:
            name = part_file_name(index, record["role"], held["format"])
            yield name, record["sha256"], record["bytes"]


def deployed_blobs(manifest: Dict[str, Any]) -> Iterator[Tuple[str, int]]:
    """Give (sha256, size in bytes) of each blob a device needs; one may repeat."""
    for _, sha256, size in part_files(manifest):
        yield sha256, size
    for check in manifest["checks"]:
        yield check["blob"]["sha256"], check["blob"]["bytes"]


def blobs_of(manifest: Dict[str, Any]) -> Iterator[Tuple[str, int]]:
    """Give (sha256, size in bytes) of every blob, those that stay on the host included."""
    for pair in deployed_blobs(manifest):
        yield pair
    for record in manifest["attachments"]:
        yield record["sha256"], record["bytes"]


def is_sha256(value: Any) -> bool:
    """Say whether a value from a peer is a lower-case hexadecimal SHA-256."""
    return isinstance(value, str) and _SHA256.match(value) is not None


def find_tensor(specs: List[Dict[str, Any]], name: str) -> Optional[Dict[str, Any]]:
    """Find the spec of the tensor called ``name``, or None."""
    for spec in specs:
        if spec["name"] == name:
            return spec
    return None
