"""What a Keras file holds, read before Keras is let near it.

A ``.keras`` archive and a whole-model ``.h5`` describe the model as JSON that names Python
classes, and Keras makes them. Its safe mode forbids the code of a `Lambda`; in ``.h5`` files it
long did nothing (CVE-2025-9905), and a ``.keras`` file once could name any function of any
module (CVE-2025-1550), a helper of Keras that downloads (CVE-2025-8747) or the very switch of
the safe mode (CVE-2025-9906). So the JSON is read here first, and only what a model is made of
passes: classes of Keras' own modelling modules, none that loads further code or files.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgesdk.importers.archives import ZIP_ERRORS
from edgesdk.importers.job import CannotExport

__all__ = [
    "KerasFile",
    "check_classes",
    "check_weights",
    "read_h5",
    "read_keras",
    "without_old_words",
]

_MOST_JSON = 256 * 2**20  # a large transformer's is under 1 MiB
_MOST_BYTES = 64 * 2**30
_MOST_MEMBERS = 10_000
_MOST_EXPANSION = 64  # Keras stores members as they are; someone may have packed them again
_DEEPEST = 200
_OLD_FALSE = ("time_major", "softmax_robust_masking")
_OLD_SEEN = ("query_shape", "key_shape", "value_shape")

# Of `keras.X` and `keras.src.X`: the modules that hold what a model is made of.
_MODELLING = frozenset(
    (
        "activations",
        "constraints",
        "dtype_policies",
        "initializers",
        "layers",
        "losses",
        "metrics",
        "models",
        "ops",
        "optimizers",
        "quantizers",
        "random",
        "regularizers",
        "trainers",
    )
)
_RUNS_CODE = {
    "Lambda": "it holds Python code",
    "__lambda__": "it is Python code",
    "TorchModuleWrapper": "it holds a pickle, and loading one runs code",
    "FlaxLayer": "it calls a function of another program",
    "JaxLayer": "it calls a function of another program",
    "TFSMLayer": "it loads a SavedModel from another place",
}
_NO_PLACE = {
    "StringLookup": "it works on strings, and may read a file",
    "TextVectorization": "it works on strings, and may read a file",
    "IntegerLookup": "it is a table, and may read a file",
    "Hashing": "it works on strings",
    "HashedCrossing": "it works on strings",
}


@dataclass(frozen=True, slots=True)
class KerasFile:
    """The description in a Keras file.

    Attributes:
        config: The JSON that describes the model.
        version: Version of Keras that wrote it, "" where the file does not say.
    """

    config: Mapping[str, Any]
    version: str = ""


def read_keras(path: Path) -> KerasFile:
    """Read the description in a ``.keras`` archive; nothing is unpacked.

    Raises:
        CannotExport: It is no archive of Keras, is damaged, or would not fit in memory.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_members(path.name, members)
            names = {one.filename for one in members}
            if "config.json" not in names:
                raise CannotExport(
                    f"cannot read {path.name} as a Keras model: no config.json in the archive",
                    hint="save the whole model with model.save('model.keras')",
                    members=sorted(names)[:20],
                )
            config = _json(path.name, archive.read("config.json"))
            meta = archive.read("metadata.json") if "metadata.json" in names else b"{}"
            version = str(_json(path.name, meta).get("keras_version", ""))
    except ZIP_ERRORS as error:
        raise CannotExport(
            f"cannot read {path.name} as a Keras archive: {error}",
            hint="is the file whole? copy it again, or save the model again",
        ) from error
    if not names & {"model.weights.h5", "model.weights.npz"}:
        raise CannotExport(
            f"cannot read {path.name} as a Keras model: it holds no weights",
            hint="save the whole model with model.save('model.keras')",
        )
    return KerasFile(config, version)


def _check_members(name: str, members: list[zipfile.ZipInfo]) -> None:
    """Refuse an archive that would leave its folder, fill the memory, or mean two things."""
    seen: set[str] = set()
    for one in members:
        parts = one.filename.replace("\\", "/").split("/")
        if one.filename.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
            raise CannotExport(
                f"cannot read {name}: its member {one.filename[:80]!r} points out of it",
                hint="this is no file that Keras wrote; do not load it",
            )
        if one.filename in seen:
            raise CannotExport(
                f"cannot read {name}: it holds {one.filename[:80]!r} twice",
                hint="this is no file that Keras wrote; do not load it",
            )
        seen.add(one.filename)
        most = _MOST_JSON if one.filename.endswith(".json") else _MOST_BYTES
        packed = max(one.compress_size, 2**20)
        if one.file_size > most or one.file_size > _MOST_EXPANSION * packed:
            raise CannotExport(
                f"cannot read {name}: its member {one.filename[:80]!r} unpacks to "
                f"{one.file_size} bytes from {one.compress_size}",
                hint="this is no file that Keras wrote; do not load it",
            )
    if len(members) > _MOST_MEMBERS:
        raise CannotExport(
            f"cannot read {name}: {len(members)} members, at most {_MOST_MEMBERS} are read",
            hint="save the model again with model.save('model.keras')",
        )


def _json(name: str, text: bytes | str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CannotExport(
            f"cannot read the description in {name}: {str(error)[:120]}",
            hint="is the file whole? copy it again, or save the model again",
        ) from error
    if not isinstance(value, dict):
        raise CannotExport(
            f"cannot read the description in {name}: it is no JSON object",
            hint="save the model again with model.save('model.keras')",
        )
    return value


def read_h5(path: Path) -> KerasFile:
    """Read the description in a whole-model ``.h5`` file.

    Raises:
        CannotExport: It is damaged, holds weights only, or reaches outside itself.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            text, version = file.attrs.get("model_config"), file.attrs.get("keras_version", "")
            if text is None:
                raise _weights_only(path.name, list(file))
            _check_datasets(path.name, file)
    except (OSError, RuntimeError, KeyError, ValueError, UnicodeError) as error:
        raise CannotExport(
            f"cannot read {path.name} as an HDF5 file: {str(error)[:200]}",
            hint="is the file whole? copy it again, or save the model again",
        ) from error
    if isinstance(version, bytes):
        version = version.decode("utf-8", "replace")
    if not isinstance(text, (str, bytes)) or len(text) > _MOST_JSON:
        raise CannotExport(
            f"cannot read the description in {path.name}: it is no text of usual length",
            hint="save the model again with model.save('model.keras')",
        )
    return KerasFile(_json(path.name, text), str(version))


def check_weights(path: Path) -> None:
    """Check the weights in a ``.keras`` archive as those of an ``.h5`` file are.

    Raises:
        CannotExport: They are damaged, or reach outside the file.
    """
    import h5py

    try:
        with zipfile.ZipFile(path) as archive:
            if "model.weights.h5" in archive.namelist():
                with archive.open("model.weights.h5") as member, h5py.File(member, "r") as file:
                    _check_datasets(path.name, file)
    except ZIP_ERRORS as error:
        raise CannotExport(
            f"cannot read the weights in {path.name}: {str(error)[:200]}",
            hint="is the file whole? copy it again, or save the model again",
        ) from error


def without_old_words(config: Mapping[str, Any]) -> str:
    """The description as Keras 3 reads it: without words of Keras 2 that change nothing.

    Recurrent layers said that time is not the first extent, and attention what shapes it had
    seen. Other values of these words are left to be refused.
    """

    def cleaned(value: Any) -> Any:
        if isinstance(value, list):
            return [cleaned(one) for one in value]
        if not isinstance(value, dict):
            return value
        return {
            key: cleaned(one)
            for key, one in value.items()
            if not (key in _OLD_FALSE and one is False) and key not in _OLD_SEEN
        }

    return json.dumps(cleaned(config))


def _weights_only(name: str, groups: list[str]) -> CannotExport:
    return CannotExport(
        f"cannot import {name}: it holds weights and no model (no model_config in it)",
        hint="load the weights into the model that they belong to, then save the whole of it: "
        "model.load_weights(...), model.save('model.keras')",
        groups=groups[:20],
    )


def _check_datasets(name: str, file: Any) -> None:
    """Refuse links and data outside the file, and arrays that are larger than it could hold."""
    import h5py

    left = [(file, "/", 0)]
    count = 0
    while left:
        group, at, depth = left.pop()
        for key in group:
            count += 1
            where = f"{at}{key}"[:120]
            link = group.get(key, getlink=True)
            if not isinstance(link, h5py.HardLink) or depth > _DEEPEST or count > 1_000_000:
                raise CannotExport(
                    f"cannot read {name}: {where} is a link, or nested without end",
                    hint="this is no file that Keras wrote; do not load it",
                )
            item = group[key]
            if isinstance(item, h5py.Group):
                left.append((item, f"{where}/", depth + 1))
            elif isinstance(item, h5py.Dataset):
                _check_dataset(name, where, item)


def _check_dataset(name: str, where: str, item: Any) -> None:
    if item.external or item.is_virtual:
        raise CannotExport(
            f"cannot read {name}: the data of {where} lie in another file",
            hint="this is no file that Keras wrote; do not load it",
        )
    stored = item.id.get_storage_size()
    if item.nbytes > _MOST_EXPANSION * max(stored, 2**20):
        raise CannotExport(
            f"cannot read {name}: {where} says it is {item.nbytes} bytes long, and the file "
            f"holds {stored} of them",
            hint="this is no file that Keras wrote; do not load it",
        )


def check_classes(name: str, file: KerasFile, *, trust: bool) -> tuple[str, ...]:
    """Refuse what runs code, reaches out of the file, or has no place on a board.

    Returns the classes and functions that are not Keras' own, by name: those the file needs
    from the program that wrote it.

    Raises:
        CannotExport: A layer holds code and the user did not say ``--trust``, or is one
            that nothing here can carry over.
    """
    foreign: dict[str, None] = {}
    for layer, value in _objects(file.config):
        kind, module = str(value.get("class_name")), value.get("module")
        named = f"{kind} {layer!r}" if layer else kind
        if kind in _RUNS_CODE and not trust:
            raise CannotExport(
                f"cannot import {name}: {named} is refused unread, for {_RUNS_CODE[kind]}",
                hint="write it as layers or keras.ops and save again; from the program that "
                "made it, export a SavedModel (model.export('folder')) or use "
                "edgesdk.from_keras(model); --trust runs the code in this file as you, so "
                "only where you know who wrote it",
                layer=layer,
                kind=kind,
            )
        if kind in _NO_PLACE:
            raise CannotExport(
                f"cannot import {name}: {named} has no place on a board: {_NO_PLACE[kind]}",
                hint="leave it in front of the model: save a model that begins with numbers",
                layer=layer,
                kind=kind,
            )
        if isinstance(module, str):
            if not _is_modelling(module, kind):
                foreign[f"{module}.{kind}"] = None
        elif ">" in kind:
            foreign[kind.replace(">", ".")] = None
        elif "module" in value:  # written as null: a class of the user's
            foreign[str(value.get("registered_name") or kind).replace(">", ".")] = None
    return tuple(foreign)


def _is_modelling(module: str, kind: str) -> bool:
    if module == "builtins":
        return kind == "function"  # Keras' own, by name; the loader looks it up and misses
    parts = module.split(".")
    if parts[0] != "keras":
        return False
    rest = [one for one in parts[1:] if one not in ("src", "_tf_keras", "api")]
    return not rest or rest[0] in _MODELLING


def _objects(config: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every object that the description makes, with the name of the layer it belongs to."""
    waiting: list[tuple[str, Any]] = [("", config)]
    while waiting:
        layer, value = waiting.pop()
        if isinstance(value, dict):
            inner = value.get("config")
            if "class_name" in value and "config" in value:
                own = inner.get("name") if isinstance(inner, dict) else None
                layer = str(own) if isinstance(own, str) else layer
                yield layer, value
            waiting.extend((layer, one) for one in reversed(list(value.values())))
        elif isinstance(value, list):
            waiting.extend((layer, one) for one in reversed(value))
