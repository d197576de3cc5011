"""What a target profile says, as frozen values; reading and checking happen next door.

A `TargetProfile` is one variant of one family file with everything the family shares filled in.
Whoever holds one may trust it: `edgesdk.profiles.catalog` hands out nothing unchecked.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from edgesdk.profiles.compiler_values import CompilerRules
from edgesdk.profiles.constraint_values import ConstraintRules
from edgesdk.profiles.limits_values import DeviceLimits

__all__ = [
    "ActivationScheme",
    "AgentNeeds",
    "BackendProfile",
    "Identify",
    "Precision",
    "Provenance",
    "ProvenanceKind",
    "QdqPlacement",
    "QuantScheme",
    "SchemeRules",
    "Speed",
    "TargetProfile",
    "WeightScheme",
    "content_digest",
    "profile_content",
]

ActivationScheme = Literal[
    "uint8-asymmetric", "int8-asymmetric", "int8-symmetric", "int16-symmetric"
]
WeightScheme = Literal[
    "int8-per-channel-symmetric", "int8-per-tensor-symmetric", "uint8-per-tensor-asymmetric"
]
Precision = Literal["fp32", "fp16", "int8", "int16x8", "int8-dynamic", "int4-weights"]
QdqPlacement = Literal["operators", "inputs", "everything"]
ProvenanceKind = Literal["datasheet", "measured", "assumed"]


def _nothing() -> Mapping[str, Any]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemeRules:
    """What a runtime's 8-bit kernels want of a Q/DQ graph, operator by operator.

    Operators are ONNX names. What is in none of the lists stays in float.

    Attributes:
        name: The file under ``targets/schemes`` that says all this.
        placement: Where Q/DQ pairs stand. ``operators``: around each operator that has a
            kernel, results included (onnxruntime). ``inputs``: before each operator that has
            one, results left to the next (TensorRT, OpenVINO). ``everything``: on every tensor
            that can be 8 bits wide, the graph's own inputs and outputs included (LiteRT).
        compute: Operators that multiply and accumulate; they decide what is worth quantizing.
        elementwise: Operators with an 8-bit kernel that gives its result a scale of its own.
        same_scale: Operators that move or choose values; inputs and outputs share a scale.
        fused_after: Per operator, the activations that its kernel absorbs.
        fixed_outputs: Per operator, the half-open real interval its result spans; the steps of
            the data type divide it evenly.
        per_tensor_weights: Operators whose weights have one scale, whatever the scheme says.
        float_results: Compute operators whose kernel can leave its result in float.
        kept_float: Operators that have a kernel and are better left in float, with the reason.
        narrow_weights: Whether weights go from -127 rather than from -128.
        bias: ``int32``, with the scale of input times weight; or ``float``.
        provenance: Where each of these comes from, by ``key`` or ``key.Operator``.
    """

    name: str
    placement: QdqPlacement
    compute: tuple[str, ...]
    elementwise: tuple[str, ...] = ()
    same_scale: tuple[str, ...] = ()
    fused_after: Mapping[str, tuple[str, ...]] = field(default_factory=_nothing)
    fixed_outputs: Mapping[str, tuple[float, float]] = field(default_factory=_nothing)
    per_tensor_weights: tuple[str, ...] = ()
    float_results: tuple[str, ...] = ()
    kept_float: Mapping[str, str] = field(default_factory=_nothing)
    narrow_weights: bool = True
    bias: Literal["int32", "float"] = "int32"
    provenance: tuple[Provenance, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantScheme:
    """How 8-bit numbers stand for real ones on a backend; the quantizer obeys it.

    ``reduce_range`` keeps weights to 7 bits, for processors whose 8-bit sums saturate.
    ``rules`` say what the kernels want, operator by operator.
    """

    activations: ActivationScheme
    weights: WeightScheme
    rules: SchemeRules
    reduce_range: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """How fast a backend is, roughly: what decides whether a part is worth its boundaries.

    Attributes:
        gmacs_per_s: Billions of multiply-accumulates per second that it reaches on convolutions
            of usual size, by precision; a precision that is not given goes by the slowest one.
        move_mb_per_s: Millions of bytes per second at which it goes through tensors, for
            operators that compute little.
        copy_mb_per_s: Millions of bytes per second at which tensors reach it from the processor
            and come back; None where they need not be copied.
        launch_us: Microseconds that one call costs however little it does.
    """

    gmacs_per_s: Mapping[str, float]
    move_mb_per_s: float
    copy_mb_per_s: float | None
    launch_us: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendProfile:
    """One thing on the target that can run part of a graph.

    Attributes:
        id: Its name in plans and reports, unique within the target.
        kind: The package under ``edgesdk/backends`` that knows it. A kind without a package is
            a fact about the target that no build can use yet.
        runtime: The agent's runtime module that loads its parts.
        accelerator: Whether it is more than the main processor.
        precisions: What it computes in, best first.
        scheme: Its 8-bit scheme; None where it has no 8-bit precision.
        runtime_version: The newest release that runs on the oldest supported image; empty where
            it is whatever is installed.
        max_opset: The highest ONNX opset that release loads; None where it is not limited here.
        max_ir: The highest ONNX IR version that release loads; None likewise.
        requirement: The line a person types on the device to install the runtime. It is shown,
            never run.
        options: Settings the runtime needs to reach this backend, such as a device name.
        quirks: Names of behaviours; the code that handles one carries the same name.
        compiler: What the compiler of its parts takes; None where that is no data.
        limits: What its device takes of a graph; None where its runtime takes what it reads.
        speed: How fast it is, for the planner; None where nobody said.
    """

    id: str
    kind: str
    runtime: str
    accelerator: bool
    precisions: tuple[Precision, ...]
    scheme: QuantScheme | None
    runtime_version: str
    max_opset: int | None
    max_ir: int | None
    requirement: str
    options: Mapping[str, str | int | bool]
    quirks: tuple[str, ...]
    compiler: CompilerRules | ConstraintRules | None = None
    limits: DeviceLimits | None = None
    speed: Speed | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentNeeds:
    """What the agent finds there: the oldest Python of a supported image, and ways in.

    No way in means that no agent runs there, as on a microcontroller: bundles for it are built,
    and their files go into firmware by hand. ``python`` is empty then.
    """

    python: str
    reach: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Identify:
    """How a live device proves to be this target.

    Each field holds shell globs; an empty one is not asked. Within a field any glob will do,
    and every field that is not empty must match. So ids that a part has before and after it
    loads its firmware stand side by side in one field.
    """

    machine: tuple[str, ...] = ()
    device_tree_model: tuple[str, ...] = ()
    cpu_model: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    pci: tuple[str, ...] = ()
    usb: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where a figure comes from.

    ``field`` is the dotted path of the figure, or of something that contains it; the longest
    path that covers a figure speaks for it. ``checked`` is a date, YYYY-MM-DD.
    """

    field: str
    kind: ProvenanceKind
    source: str
    checked: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetProfile:
    """A kind of device: what can run there, in which numbers, and how to recognise one.

    ``ram_bytes`` is None where units of the same name differ. ``contest`` names backends of
    which nobody can say beforehand which is the fastest for a model: a measurement on the
    device decides, and until then the first goes before the others. ``provenance`` has one
    entry per figure, by its full path. ``digest`` is the SHA-256 of everything here except
    ``source``.
    """

    name: str
    family: str
    vendor: str
    title: str
    default: bool
    ram_bytes: int | None
    backends: tuple[BackendProfile, ...]
    agent: AgentNeeds
    identify: Identify
    provenance: tuple[Provenance, ...]
    notes: str
    source: Path
    digest: str
    contest: tuple[str, ...] = ()

    @property
    def assumed(self) -> tuple[str, ...]:
        """The figures, by path, that nobody has measured or found in a document."""
        own = [entry.field for entry in self.provenance if entry.kind == "assumed"]
        rules = [
            f"backends.{backend.id}.scheme.rules.{entry.field.split('.')[0]}"
            for backend in self.backends
            if backend.scheme is not None
            for entry in backend.scheme.rules.provenance
            if entry.kind == "assumed"
        ]
        compilers = [
            f"backends.{backend.id}.compiler"
            for backend in self.backends
            if backend.compiler is not None and backend.compiler.assumed
        ]
        limits = [
            f"backends.{backend.id}.limits"
            for backend in self.backends
            if backend.limits is not None and backend.limits.assumed
        ]
        return tuple(dict.fromkeys(own + rules + compilers + limits))


def _plain(value: object) -> Any:
    if isinstance(value, ConstraintRules):  # long, and the digest says the same
        return {"name": value.name, "version": value.version, "digest": value.digest}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def profile_content(profile: TargetProfile) -> dict[str, Any]:
    """Give a profile as plain JSON data, without where its file lies and its digest."""
    content = {
        field.name: _plain(getattr(profile, field.name))
        for field in dataclasses.fields(profile)
        if field.name not in ("source", "digest")
    }
    assert isinstance(content, dict)
    return content


def content_digest(profile: TargetProfile) -> str:
    """Name what a profile says by a SHA-256; equal digests say the same, wherever they lie."""
    canonical = json.dumps(
        profile_content(profile), sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    return hashlib.sha256(canonical.encode("utf-8")).hexdigest()


def frozen_options(
    options: Mapping[str, str | int | bool],
) -> Mapping[str, str | int | bool]:
    """Copy a mapping so that nobody can change it through the value that holds it."""
    return MappingProxyType(dict(options))
