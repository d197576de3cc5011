"""Which source format a model is in, which exporter takes it and in which toolchain."""

from __future__ import annotations

import dataclasses
import re
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from edgesdk.importers.archives import ZIP_ERRORS
from edgesdk.model.content import identify

__all__ = ["FORMATS", "SourceFormat", "detect_format"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFormat:
    """A format that can be turned into ONNX.

    Attributes:
        code: As `edgesdk.model.content.identify` names it, and the job's ``kind``.
        label: What it is called, with its article.
        toolchain: The environment that its exporter runs in; empty for one that needs none.
        exporter: Module with an ``export``, by its full name.
    """

    code: str
    label: str
    toolchain: str
    exporter: str


_ROWS = (
    ("torch-export", "a PyTorch program of torch.export", "torch", "torch_model"),
    ("torchscript", "a TorchScript archive", "torch", "torch_model"),
    ("torch-checkpoint", "a PyTorch checkpoint", "torch", "torch_model"),
    ("keras", "a Keras archive", "tensorflow", "tensorflow_model"),
    ("keras-h5", "a Keras HDF5 file", "tensorflow", "tensorflow_model"),
    ("saved-model", "a TensorFlow SavedModel", "tensorflow", "tensorflow_model"),
    ("skops", "a skops archive of scikit-learn", "sklearn", "sklearn_model"),
    ("pickle", "a Python pickle, as scikit-learn's users write", "sklearn", "sklearn_model"),
    ("xgboost", "an XGBoost model", "boosting", "sklearn_model"),
    ("lightgbm", "a LightGBM model", "boosting", "sklearn_model"),
)
#: By code.
FORMATS: Mapping[str, SourceFormat] = {
    code: SourceFormat(
        code=code,
        label=label,
        toolchain=toolchain,
        exporter=f"edgesdk.importers.frameworks.{exporter}",
    )
    for code, label, toolchain, exporter in _ROWS
}
#: What a pickle or a skops archive of a booster names inside; both store names as plain text.
_BOOSTERS = re.compile(rb"xgboost\.|lightgbm\.")
_PIECE_BYTES = 1 << 20
_LONGEST_NAME = 16
#: Of a compressed pickle so much is looked at, and of a file that is not.
_MAX_LOOK_BYTES = 1 << 30


def detect_format(path: Path) -> SourceFormat | None:
    """Give the format of a source, by content; None for what is no source of an importer.

    Raises:
        ModelError: There is nothing, it is empty, or cannot be read.
    """
    found = FORMATS.get(identify(path).code)
    if found is None or found.toolchain != "sklearn" or not _names_a_booster(path, found):
        return found
    return dataclasses.replace(found, toolchain=FORMATS["xgboost"].toolchain)


def _names_a_booster(path: Path, found: SourceFormat) -> bool:
    """Look for a booster's package in what a file names, without loading anything."""
    try:
        if found.code == "skops":
            with zipfile.ZipFile(path) as archive, archive.open("schema.json") as stream:
                return _is_in(stream)
        with path.open("rb") as stream:
            packed = stream.read(1) != b"\x80"
            stream.seek(0)
            return _is_in(_Unpacked(stream) if packed else stream)
    except ZIP_ERRORS:
        return False  # whoever opens it says what is wrong


def _is_in(stream: IO[bytes] | _Unpacked) -> bool:
    """Search a stream in pieces; a name may lie across two."""
    kept, left = b"", _MAX_LOOK_BYTES
    while left > 0:
        piece = stream.read(_PIECE_BYTES)
        if not piece:
            return False
        if _BOOSTERS.search(kept + piece):
            return True
        kept, left = piece[-_LONGEST_NAME:], left - len(piece)
    return False


class _Unpacked:
    """Reads a zlib or gzip stream, as joblib writes, with bounded memory."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._unpacker = zlib.decompressobj(wbits=47)

    def read(self, size: int) -> bytes:
        """Give up to ``size`` bytes; none at the end."""
        while not self._unpacker.eof:
            packed = self._unpacker.unconsumed_tail or self._stream.read(size)
            if not packed:
                break
            data = self._unpacker.decompress(packed, size)
            if data:
                return data
        return b""
