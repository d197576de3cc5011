"""What is known of a model, as values: the file, its nodes, and what a lint has to say.

Nothing here imports an ONNX library, so plans, reports and the command line can use these
values without one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from edgesdk.tensors import TensorInfo

__all__ = [
    "Finding",
    "ModelFormat",
    "NodeFacts",
    "Origin",
    "Severity",
    "SourceModel",
    "model_name",
]

ModelFormat = Literal["onnx", "tflite"]
Severity = Literal["info", "warning", "error"]

_MAX_NAME = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceModel:
    """A model file as it was opened.

    ``sha256`` covers the file and, where there is any, its external data; ``bytes`` is the
    size of both. ``opset`` is the version of ONNX's own operators, ``opsets`` those of all
    domains (``""`` is ONNX's own); a TFLite file has neither and says 0. ``origin`` is there
    where the file was made by an importer. ``op_counts`` counts
    nodes in bodies of control flow too; operators of another domain carry it as a prefix.
    """

    path: Path
    name: str
    format: ModelFormat
    sha256: str
    bytes: int
    ir_version: int
    opset: int
    opsets: Mapping[str, int]
    producer: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    op_counts: Mapping[str, int]
    initializer_bytes: int
    external_data: bool
    origin: Origin | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a model was imported from, and how well the import agrees with it.

    Attributes:
        format: Code of the source's format, as `edgesdk.model.content` names it.
        sha256: Of the source's bytes; empty for an object in a program's memory.
        versions: Of the framework and of each package that took part.
        toolchain: Name and digest of the environment; empty where the user's own was used.
        examples: How many sets of inputs were compared; 0 if nothing could be.
        max_abs_error: The largest difference at any output, None if nothing was compared.
        max_rel_error: That over the largest reference value of its output.
        trusted: Whether the user let code in the source run.
        notes: What the exporter had to say.
    """

    format: str
    sha256: str
    versions: Mapping[str, str]
    toolchain: str = ""
    examples: int = 0
    max_abs_error: float | None = None
    max_rel_error: float | None = None
    trusted: bool = False
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Give it as plain data, as manifest and report hold it."""
        return {**asdict(self), "versions": dict(self.versions), "notes": list(self.notes)}


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What a backend may ask about one node before it takes or refuses it.

    ``index`` is the node's position in the top level of the source graph; names may be missing
    or repeat. ``inputs`` and ``outputs`` hold ``""`` where an optional one is left out, and
    ``input_types``, ``output_types`` and ``constant_inputs`` run beside them. ``ints`` and
    ``floats`` hold single attributes as tuples of one. ``subgraph_ops`` are the operators in
    the node's bodies, sorted, each once; ``captures`` is what bodies read from around them.
    """

    index: int
    name: str
    op: str
    domain: str
    since_version: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    input_types: tuple[TensorInfo | None, ...]
    output_types: tuple[TensorInfo | None, ...]
    ints: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    floats: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    strings: Mapping[str, str] = field(default_factory=dict)
    constant_inputs: tuple[bool, ...] = ()
    subgraph_ops: tuple[str, ...] = ()
    captures: tuple[str, ...] = ()

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of the tensors it takes that are no constants, bodies' included, each once."""
        flags = zip(self.inputs, self.constant_inputs, strict=False)
        known = {name for name, fixed in flags if fixed}
        names = dict.fromkeys((*self.inputs, *self.captures))
        return tuple(name for name in names if name and name not in known)

    @property
    def label(self) -> str:
        """How an error or a table names the node: its position, name and operator."""
        return (
            f"node {self.index} {self.name!r} ({self.op})"
            if self.name
            else (f"node {self.index} ({self.op})")
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing a lint noticed.

    ``code`` is stable, ``subject`` the tensor, node or operator it is about.
    """

    code: str
    severity: Severity
    message: str
    hint: str = ""
    subject: str = ""


def model_name(path: Path) -> str:
    """Make a name for people out of a file's name: letters, digits, dot, dash, underscore."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).lstrip("._-")[:_MAX_NAME]
    return name.rstrip("._-") or "model"
