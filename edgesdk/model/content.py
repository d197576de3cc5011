"""Say what a file or folder is by its content, and refuse what no reader of ours opens.

Most of these formats run code when the library they belong to loads them, so they are told by
their first bytes and the names in their directory, never by suffix and never by loading.
"""

from __future__ import annotations

import os
import stat
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgesdk.errors import ModelError

__all__ = ["Content", "identify", "read_model_file", "sniff_format"]

#: The protobuf library parses no message of 2 GiB or more; weights above it are external data.
MAX_MODEL_BYTES = (1 << 31) - 1
_HEAD_BYTES = 4096

_TORCH_HINT = (
    "load it in the program that made it, then torch.export.save(...) and give that file"
)
_IMPORT_HINT = "edgesdk import makes an ONNX file of it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What a path holds.

    ``code`` is stable: ``onnx`` and ``tflite`` are what we read, those of `edgesdk.importers`
    can be turned into ONNX, and ``other`` is the rest. ``label`` goes after "it is".
    """

    code: str
    label: str
    hint: str = ""


def identify(path: Path) -> Content:
    """Say what ``path`` is; what no other format claims counts as ONNX, whose reader judges it.

    Raises:
        ModelError: There is nothing, it is empty, or cannot be read.
    """
    mode = _mode(path)
    if stat.S_ISDIR(mode):
        return _folder(path)
    if not stat.S_ISREG(mode):
        raise ModelError(
            f"cannot open {path}: it is neither a file nor a folder (expected a model)",
            hint="name the model's file, or the folder of a SavedModel",
            path=str(path),
        )
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
    except OSError as exc:
        raise _unreadable(path, exc) from exc
    if not head:
        raise ModelError(
            f"cannot open {path}: the file is empty (expected a model)",
            hint="was the export or the download interrupted?",
            path=str(path),
        )
    if head[4:8] == b"TFL3":
        return Content(code="tflite", label="a TFLite file")
    return _foreign(head, path) or Content(code="onnx", label="an ONNX file")


def sniff_format(path: Path) -> Literal["onnx", "tflite"]:
    """Say which reader a file is for.

    Raises:
        ModelError: There is no such file, it is empty, or its content is another format.
    """
    content = identify(path)
    if content.code == "tflite":
        return "tflite"
    if content.code == "onnx":
        return "onnx"
    raise ModelError(
        f"cannot open {path}: it is {content.label} (expected an ONNX file)",
        hint=content.hint,
        path=str(path),
        seen=content.label,
    )


def read_model_file(path: Path) -> bytes:
    """Read a whole file that must fit one protobuf message.

    Raises:
        ModelError: It cannot be read, or has 2 GiB or more.
    """
    try:
        size = path.stat().st_size
        if size <= MAX_MODEL_BYTES:
            with path.open("rb") as stream:
                data = stream.read(MAX_MODEL_BYTES + 1)
            size = len(data)
    except OSError as exc:
        raise _unreadable(path, exc) from exc
    if size > MAX_MODEL_BYTES:
        raise ModelError(
            f"cannot open {path}: it has {size} bytes (an ONNX file has less than 2 GiB)",
            hint="save the weights as external data: onnx.save(model, path, "
            "save_as_external_data=True)",
            path=str(path),
            bytes=size,
        )
    return data


def _mode(path: Path) -> int:
    try:
        return os.stat(path).st_mode  # noqa: PTH116  (a NUL in a path raises ValueError here)
    except FileNotFoundError as exc:
        raise ModelError(
            f"cannot open {path}: no such file (expected a model)",
            hint="check the path",
            path=str(path),
        ) from exc
    except (OSError, ValueError) as exc:
        text = exc.strerror if isinstance(exc, OSError) else str(exc)
        raise ModelError(f"cannot open {path}: {text}", path=str(path)) from exc


def _unreadable(path: Path, exc: OSError) -> ModelError:
    return ModelError(
        f"cannot read {path}: {exc.strerror}",
        hint="may your user read it, and is its disk well?",
        path=str(path),
    )


def _folder(path: Path) -> Content:
    try:
        names = {entry.name for entry in os.scandir(path)}
    except OSError as exc:
        raise _unreadable(path, exc) from exc
    if names & {"saved_model.pb", "saved_model.pbtxt"}:
        return Content(code="saved-model", label="a TensorFlow SavedModel", hint=_IMPORT_HINT)
    found = sorted(name for name in names if name.endswith(".onnx"))[:5]
    hint = f"give one of its files: {', '.join(found)}" if found else "give the file itself"
    return Content(code="other", label="a folder", hint=hint)


def _foreign(head: bytes, path: Path) -> Content | None:
    """Name another format by its first bytes; None if there is none."""
    if head.startswith(b"PK\x03\x04"):
        return _zip_kind(head, path)
    for magic, code, label, hint in _MAGICS:
        if head.startswith(magic):
            return Content(code=code, label=label, hint=hint)
    if head.startswith(_COMPRESSED) and _unpacks_to_pickle(head):
        return _PICKLE_CONTENT
    for magic, label in _PACKED:
        if head.startswith(magic):
            return Content(
                code="other", label=label, hint="unpack it and give the model file inside"
            )
    return _plain_kind(head)


def _plain_kind(head: bytes) -> Content | None:
    """Name what has no magic number: pages, weights behind a JSON header, text."""
    start = head.lstrip()
    if start[:1] == b"<":
        return Content(
            code="other",
            label="an HTML or XML page",
            hint="was a web page saved instead of the download?",
        )
    if _is_safetensors(head):
        return Content(
            code="other",
            label="a safetensors file, which holds weights but no graph",
            hint=_TORCH_HINT,
        )
    return _text_kind(start) if _is_text(head) else None


def _text_kind(start: bytes) -> Content:
    if start.startswith(b"tree\n") and b"\nnum_class=" in start:
        return Content(code="lightgbm", label="a LightGBM model", hint=_IMPORT_HINT)
    if start.startswith(b"{") and b'"learner"' in start[:200]:
        return Content(code="xgboost", label="an XGBoost model", hint=_IMPORT_HINT)
    return Content(code="other", label="text", hint="give the binary .onnx file")


_PICKLE_CONTENT = Content(
    code="pickle", label="a Python pickle, which runs code when loaded", hint=_IMPORT_HINT
)
_DATA_HINT = "that is data: pass it with --calib or --data"
#: First bytes, code, what it is, what to do.
_MAGICS = (
    (
        # torch.save before 1.6: a pickled magic number, then more pickles
        b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.",
        "torch-checkpoint",
        "a PyTorch checkpoint of before 1.6, which runs code when loaded",
        _IMPORT_HINT,
    ),
    *(
        (bytes([0x80, version]), "pickle", _PICKLE_CONTENT.label, _IMPORT_HINT)
        for version in range(1, 6)
    ),
    (b"\x89HDF\r\n\x1a\n", "keras-h5", "an HDF5 file, as Keras writes", _IMPORT_HINT),
    (b"{L\0\0\0\0\0\0\0\x07learner", "xgboost", "an XGBoost model", _IMPORT_HINT),
    (
        b"version https://git-lfs",
        "other",
        "a Git LFS pointer, not the file itself",
        "run git lfs pull in that repository",
    ),
    (b"PK\x05\x06", "other", "an empty zip archive", "give the model file itself"),
    (b"\x93NUMPY", "other", "a NumPy array", _DATA_HINT),
    (b"GGUF", "other", "a GGUF file", "export the model to ONNX with the program that made it"),
    (b"\x7fELF", "other", "a program", "give the model file"),
    (b"%PDF", "other", "a PDF document", "give the model file"),
    (b"ORTM", "other", "an ORT format file", "give the .onnx file that it was made from"),
)
_PACKED = (
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ\0", "an xz archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-zip archive"),
    (b"\x28\xb5\x2f\xfd", "a zstandard archive"),
)
#: What joblib compresses with by default, and what it calls gzip.
_COMPRESSED = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda", b"\x1f\x8b")


def _unpacks_to_pickle(head: bytes) -> bool:
    """Unpack the first two bytes of a zlib or gzip stream and look for a pickle's protocol."""
    try:
        start = zlib.decompressobj(wbits=47).decompress(head, 2)
    except zlib.error:
        return False
    return len(start) == 2 and start[0] == 0x80 and 1 <= start[1] <= 5


def _zip_kind(head: bytes, path: Path) -> Content:
    """Tell the zip archives apart by the names in their directory; nothing is unpacked."""
    import zipfile

    names: list[str] = []
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError):
        names = [head[30:94].split(b"\0")[0].decode("utf-8", "replace")]
    below = {name.partition("/")[2] for name in names}  # a folder around all, as PyTorch has
    plain = set(names)
    for wanted, code, label, hint in _ZIP_KINDS:
        if wanted <= plain or wanted <= below:
            return Content(code=code, label=label, hint=hint)
    for suffix, label, hint in _ZIP_SUFFIXES:
        if any(name.endswith(suffix) for name in names):
            return Content(code="other", label=label, hint=hint)
    return Content(
        code="other", label="a zip archive", hint="unpack it and give the model file inside"
    )


#: Members that have to be there, code, what it is, what to do.
_ZIP_KINDS: tuple[tuple[frozenset[str], str, str, str], ...] = (
    (
        frozenset({"archive_format", "models/model.json"}),
        "torch-export",
        "a PyTorch program of torch.export",
        _IMPORT_HINT,
    ),
    (
        frozenset({"serialized_exported_program.json"}),
        "torch-export",
        "a PyTorch program of torch.export",
        _IMPORT_HINT,
    ),
    (
        frozenset({"constants.pkl", "data.pkl"}),
        "torchscript",
        "a TorchScript archive",
        _IMPORT_HINT,
    ),
    (
        frozenset({"data.pkl"}),
        "torch-checkpoint",
        "a PyTorch checkpoint, which runs code when loaded",
        _IMPORT_HINT,
    ),
    (frozenset({"config.json", "model.weights.h5"}), "keras", "a Keras archive", _IMPORT_HINT),
    (frozenset({"schema.json"}), "skops", "a skops archive", _IMPORT_HINT),
)
_ZIP_SUFFIXES = (
    (".pkl", "a PyTorch archive, which runs code when loaded", _TORCH_HINT),
    (".npy", "an .npz of arrays", _DATA_HINT),
    ("saved_model.pb", "a zipped TensorFlow SavedModel", "unpack it and give the folder"),
    (".onnx", "a zip archive with an .onnx file in it", "unpack it and give the file inside"),
)


def _is_safetensors(head: bytes) -> bool:
    return (
        len(head) > 9 and head[8:10] == b'{"' and int.from_bytes(head[:8], "little") < 1 << 27
    )


def _is_text(head: bytes) -> bool:
    sample = head[:512]
    return len(sample) >= 4 and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in sample)
