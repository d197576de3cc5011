"""Say what a file is by its first bytes, and refuse what is not a model we open.

Most refused formats run code when they are loaded, so they are named by content, not suffix,
and never opened with the library they belong to.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Literal

from edgesdk.errors import ModelError

__all__ = ["read_model_file", "sniff_format"]

#: The protobuf library parses no message of 2 GiB or more; weights above it are external data.
MAX_MODEL_BYTES = (1 << 31) - 1
_HEAD_BYTES = 4096

_TORCH_HINT = (
    "load it in the program that made it, then torch.onnx.export(...) and give that file"
)
_KERAS_HINT = "convert it with tf2onnx, or model.export(..., format='onnx'), and give that file"


def sniff_format(path: Path) -> Literal["onnx", "tflite"]:
    """Say which reader a file is for.

    Raises:
        ModelError: There is no such file, it is empty, or its content is another format.
    """
    mode = _mode(path)
    if stat.S_ISDIR(mode):
        raise _refuse_folder(path)
    if not stat.S_ISREG(mode):
        raise ModelError(
            f"cannot open {path}: it is neither a file nor a folder (expected an ONNX file)",
            path=str(path),
        )
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
    except OSError as exc:
        raise ModelError(f"cannot read {path}: {exc.strerror}", path=str(path)) from exc
    if not head:
        raise ModelError(
            f"cannot open {path}: the file is empty (expected an ONNX file)",
            hint="was the export or the download interrupted?",
            path=str(path),
        )
    if head[4:8] == b"TFL3":
        return "tflite"
    kind, hint = _foreign(head, path)
    if kind:
        raise ModelError(
            f"cannot open {path}: it is {kind} (expected an ONNX file)",
            hint=hint,
            path=str(path),
            seen=kind,
        )
    return "onnx"


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
        raise ModelError(f"cannot read {path}: {exc.strerror}", path=str(path)) from exc
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
            f"cannot open {path}: no such file (expected an ONNX file)",
            hint="check the path",
            path=str(path),
        ) from exc
    except (OSError, ValueError) as exc:
        text = exc.strerror if isinstance(exc, OSError) else str(exc)
        raise ModelError(f"cannot open {path}: {text}", path=str(path)) from exc


def _refuse_folder(path: Path) -> ModelError:
    if any((path / name).is_file() for name in ("saved_model.pb", "saved_model.pbtxt")):
        return ModelError(
            f"cannot open {path}: it is a TensorFlow SavedModel (expected an ONNX file)",
            hint="convert it: python -m tf2onnx.convert --saved-model DIR --output model.onnx",
            path=str(path),
        )
    found = sorted(entry.name for entry in path.glob("*.onnx"))[:5]
    return ModelError(
        f"cannot open {path}: it is a folder (expected an ONNX file)",
        hint=f"give one of its files: {', '.join(found)}" if found else "give the file itself",
        path=str(path),
    )


def _foreign(head: bytes, path: Path) -> tuple[str, str]:
    """Name another format by its first bytes, and say what to do; empty if there is none."""
    if head.startswith(b"PK\x03\x04"):
        return _zip_kind(head, path)
    for magic, kind, hint in _MAGICS:
        if head.startswith(magic):
            return kind, hint
    if head.lstrip()[:1] == b"<":
        return "an HTML or XML page", "was a web page saved instead of the download?"
    if _is_safetensors(head):
        return "a safetensors file, which holds weights but no graph", _TORCH_HINT
    if _is_text(head):
        return "text", "give the binary .onnx file"
    return "", ""


_PICKLE = "a Python pickle, which runs code when loaded"
_MAGICS = (
    *((bytes([0x80, version]), _PICKLE, _TORCH_HINT) for version in range(1, 6)),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes", _KERAS_HINT),
    (
        b"version https://git-lfs",
        "a Git LFS pointer, not the file itself",
        "run git lfs pull in that repository",
    ),
    (b"PK\x05\x06", "an empty zip archive", "give the .onnx file itself"),
    (b"\x1f\x8b", "a gzip archive", "unpack it and give the .onnx file inside"),
    (b"BZh", "a bzip2 archive", "unpack it and give the .onnx file inside"),
    (b"\xfd7zXZ\0", "an xz archive", "unpack it and give the .onnx file inside"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-zip archive", "unpack it and give the .onnx file inside"),
    (b"\x28\xb5\x2f\xfd", "a zstandard archive", "unpack it and give the .onnx file inside"),
    (b"\x93NUMPY", "a NumPy array", "that is data: pass it with --calib or --data"),
    (b"GGUF", "a GGUF file", "export the model to ONNX with the program that made it"),
    (b"\x7fELF", "a program", "give the .onnx file"),
    (b"%PDF", "a PDF document", "give the .onnx file"),
    (b"ORTM", "an ORT format file", "give the .onnx file that it was made from"),
)


def _zip_kind(head: bytes, path: Path) -> tuple[str, str]:
    """Tell the zip archives apart by the names in their directory; nothing is unpacked."""
    import zipfile

    names: list[str] = []
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()[:1000]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError):
        names = [head[30:94].split(b"\0")[0].decode("utf-8", "replace")]
    for suffix, kind, hint in _ZIP_KINDS:
        if any(name.endswith(suffix) for name in names):
            return kind, hint
    return "a zip archive", "unpack it and give the .onnx file inside"


_ZIP_KINDS = (
    (".pkl", "a PyTorch archive, which runs code when loaded", _TORCH_HINT),
    ("model.weights.h5", "a Keras archive, which can run code when loaded", _KERAS_HINT),
    (".npy", "an .npz of arrays", "that is data: pass it with --calib or --data"),
    (
        "saved_model.pb",
        "a zipped TensorFlow SavedModel",
        "unpack it and convert it with tf2onnx",
    ),
    (".onnx", "a zip archive with an .onnx file in it", "unpack it and give the file inside"),
)


def _is_safetensors(head: bytes) -> bool:
    return (
        len(head) > 9 and head[8:10] == b'{"' and int.from_bytes(head[:8], "little") < 1 << 27
    )


def _is_text(head: bytes) -> bool:
    sample = head[:512]
    return len(sample) >= 4 and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in sample)
