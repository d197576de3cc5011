"""Find the external data of an ONNX model without following anything out of its folder.

The model file names files, offsets and lengths, and all three are hostile. A location must be
a plain relative path; every step of it is opened without following links; the target must be a
regular file with one name; offset and length must lie inside it and agree with the tensor's
dtype and shape. onnx-ir maps the same files later and repeats the checks on links.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edgesdk.errors import ModelError

if TYPE_CHECKING:
    import onnx
    import onnx_ir

__all__ = ["ExternalFiles", "bring_in", "every_tensor"]

_KEYS = {"location", "offset", "length", "checksum", "basepath"}
_MAX_DIGITS = 19
_PIECE_BYTES = 1 << 22


@dataclass(slots=True)
class ExternalFiles:
    """The files beside one model that its tensors live in, with their sizes."""

    model: Path
    sizes: dict[str, int] = field(default_factory=dict)

    def accept(self, tensor: onnx.TensorProto, expected_bytes: int) -> None:
        """Check one external tensor and write its place back in a plain form.

        Raises:
            ModelError: The place is not one inside a plain file beside the model.
        """
        entries = {}
        for entry in tensor.external_data:
            if entry.key not in _KEYS or entry.key in entries:
                raise self._refuse(
                    tensor, f"it says {entry.key!r}", "location, offset and length, once each"
                )
            entries[entry.key] = entry.value
        location = entries.get("location", "")
        size = self._size_of(tensor, location)
        offset = self._number(tensor, entries.get("offset", "0"), "offset")
        length = self._number(tensor, entries.get("length", str(expected_bytes)), "length")
        if length != expected_bytes:
            raise self._refuse(
                tensor, f"its length is {length}", f"{expected_bytes} for its shape and dtype"
            )
        if offset + length > size:
            raise ModelError(
                f"cannot read tensor {tensor.name!r} of {self.model}: it ends at byte "
                f"{offset + length} of {location!r} (which has {size})",
                hint="the data file is cut short or belongs to another model; copy it again",
                tensor=tensor.name,
                location=location,
            )
        del tensor.external_data[:]
        for key, value in (("location", location), ("offset", offset), ("length", length)):
            tensor.external_data.add(key=key, value=str(value))

    def digest(self, model_sha256: str) -> str:
        """Hash the model's hash and the name and content of every file, in order of name."""
        whole = hashlib.sha256(f"{model_sha256}\n".encode())
        for location in sorted(self.sizes):
            content = hashlib.sha256()
            with os.fdopen(self._open(location), "rb") as stream:
                while piece := stream.read(_PIECE_BYTES):
                    content.update(piece)
            name = location.encode("utf-8", "surrogatepass").hex()
            whole.update(f"{name} {content.hexdigest()}\n".encode())
        return whole.hexdigest()

    def _number(self, tensor: onnx.TensorProto, text: str, what: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS):
            raise self._refuse(tensor, f"its {what} is {text[:40]!r}", "a number of bytes")
        return int(text)

    def _refuse(self, tensor: onnx.TensorProto, seen: str, expected: str) -> ModelError:
        return ModelError(
            f"cannot read tensor {tensor.name!r} of {self.model}: {seen} (expected {expected})",
            hint="save the model again; if you did not make it yourself, do not trust it",
            tensor=tensor.name,
        )

    def _size_of(self, tensor: onnx.TensorProto, location: str) -> int:
        if location in self.sizes:
            return self.sizes[location]
        parts = location.split("/")
        if (
            not location
            or "\\" in location
            or "\0" in location
            or any(part in ("", ".", "..") for part in parts)
        ):
            raise self._refuse(
                tensor,
                f"its data lies at {location[:200]!r}",
                "a plain name in the model's folder",
            )
        try:
            descriptor = self._open(location)
        except FileNotFoundError as exc:
            raise ModelError(
                f"cannot read tensor {tensor.name!r} of {self.model}: its data file "
                f"{location!r} is missing",
                hint="copy the data file into the model's folder, under that name",
                tensor=tensor.name,
                location=location,
            ) from exc
        except (OSError, ValueError) as exc:
            text = getattr(exc, "strerror", None) or str(exc)
            raise self._refuse(
                tensor, f"its data lies at {location[:200]!r}: {text}", "a plain file, no link"
            ) from exc
        try:
            seen = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        if not stat.S_ISREG(seen.st_mode):
            raise self._refuse(tensor, f"{location!r} is not a file", "a plain file")
        if seen.st_nlink != 1:
            raise ModelError(
                f"cannot read tensor {tensor.name!r} of {self.model}: {location!r} has "
                f"{seen.st_nlink} names on this disk (expected one: a second may be a file "
                "that is none of the model's)",
                hint=f"make a copy of its own: cp {location} copy && mv copy {location}",
                tensor=tensor.name,
                location=location,
            )
        self.sizes[location] = seen.st_size
        return seen.st_size

    def _open(self, location: str) -> int:
        """Open step by step from the model's folder; no step may be a link."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        *folders, leaf = location.split("/")
        folder = os.open(self.model.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name in folders:
                inner = os.open(name, flags | os.O_DIRECTORY, dir_fd=folder)
                os.close(folder)
                folder = inner
            return os.open(leaf, flags, dir_fd=folder)
        finally:
            os.close(folder)


def every_tensor(graph: onnx.GraphProto | onnx.FunctionProto) -> Iterator[onnx.TensorProto]:
    """Give every tensor of a graph: initializers and attributes, in bodies too."""
    yield from getattr(graph, "initializer", ())
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("g"):
                yield from every_tensor(attribute.g)
            for body in attribute.graphs:
                yield from every_tensor(body)


def bring_in(model: onnx_ir.Model, *, largest_bytes: int | None = None) -> None:
    """Read tensors that lie outside the file into the graph, up to a size each; in place."""
    import onnx_ir as ir

    def is_outside(tensor: object) -> bool:
        return isinstance(tensor, ir.ExternalTensor) and (
            largest_bytes is None or tensor.nbytes <= largest_bytes
        )

    for graph in (model.graph, *model.graph.subgraphs()):
        for value in graph.initializers.values():
            if value.const_value is not None and is_outside(value.const_value):
                value.const_value = _in_memory(value.const_value)
    for node in model.graph.all_nodes():
        for name, attribute in node.attributes.items():
            if attribute.type == ir.AttributeType.TENSOR and is_outside(attribute.value):
                node.attributes[name] = ir.AttrTensor(name, _in_memory(attribute.as_tensor()))


def _in_memory(tensor: onnx_ir.TensorProtocol) -> onnx_ir.TensorProtocol:
    import onnx
    import onnx_ir as ir

    proto = onnx.TensorProto(
        name=tensor.name,
        data_type=tensor.dtype.value,
        dims=tensor.shape.numpy(),
        raw_data=tensor.tobytes(),
    )
    return ir.serde.deserialize_tensor(proto)
