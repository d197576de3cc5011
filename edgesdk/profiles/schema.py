"""The shape of the files: the models that read them, and the JSON Schemas that editors use.

Shape only: types, ranges, closed lists, unknown keys. What fields say to each other is checked
in `edgesdk.profiles.family` and `edgesdk.profiles.rules`. Modules that import pydantic are this
one and those that add the shape of another kind of file; they are imported where they are used.
"""

from __future__ import annotations

import re
import types
import typing
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgesdk.errors import ProfileError
from edgesdk.near import suggest
from edgesdk.profiles.values import (
    ActivationScheme,
    Precision,
    ProvenanceKind,
    QdqPlacement,
    WeightScheme,
)

__all__ = [
    "AgentChange",
    "AgentModel",
    "BackendChange",
    "BackendModel",
    "FamilyModel",
    "IdentifyModel",
    "ProvenanceModel",
    "RulesModel",
    "SchemeModel",
    "SpeedModel",
    "Strict",
    "VariantModel",
    "parse_family",
    "parse_model",
    "parse_rules",
    "profile_schema",
    "rules_schema",
]

_ID = r"^[a-z0-9]+(-[a-z0-9]+)*$"
_PRINTABLE = r"^[^\x00-\x1f\x7f]*$"

Id = Annotated[str, Field(pattern=_ID, max_length=64, description="lower case, hyphens")]
Line = Annotated[str, Field(pattern=_PRINTABLE, min_length=1, max_length=400)]
Text = Annotated[str, Field(max_length=4000)]
Version = Annotated[
    str,
    Field(pattern=r"^[0-9]+(\.[0-9A-Za-z]+)*$", max_length=32, description="a quoted string"),
]
PythonVersion = Annotated[str, Field(pattern=r"^3\.([7-9]|[1-9][0-9])$", max_length=5)]
Glob = Annotated[str, Field(pattern=_PRINTABLE, min_length=1, max_length=200)]
PciUsbGlob = Annotated[str, Field(pattern=r"^[0-9a-f*?\[\]-]{1,20}:[0-9a-f*?\[\]-]{1,20}$")]
Globs = Annotated[list[Glob], Field(max_length=32)]
Ids = Annotated[list[PciUsbGlob], Field(max_length=32)]
RamBytes = Annotated[int, Field(ge=16 << 20, le=1 << 42)]
Opset = Annotated[int, Field(ge=7, le=99)]
Ir = Annotated[int, Field(ge=3, le=99)]
Date = Annotated[str, Field(pattern=r"^20[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$")]
Option = Annotated[str, Field(pattern=_PRINTABLE, max_length=200)] | bool | int
Reach = Literal["local", "ssh", "serial"]
Operator = Annotated[
    str,
    Field(pattern=r"^[A-Z][A-Za-z0-9]*$", max_length=64, description="its name in ONNX"),
]
Operators = Annotated[list[Operator], Field(max_length=200)]
SomeOperators = Annotated[list[Operator], Field(min_length=1, max_length=200)]
Real = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
Contestants = Annotated[list[Id], Field(max_length=8)]
Interval = Annotated[list[Real], Field(min_length=2, max_length=2)]


class Strict(BaseModel):
    """A mapping without unknown keys and without conversions."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class SchemeModel(Strict):
    """How 8-bit numbers stand for real ones on a backend."""

    activations: ActivationScheme
    weights: WeightScheme
    rules: Id
    reduce_range: bool = False


class SpeedModel(Strict):
    """How fast a backend is, roughly; what the planner weighs parts with."""

    gmacs_per_s: Annotated[dict[Precision, Positive], Field(min_length=1)]
    move_mb_per_s: Positive
    copy_mb_per_s: Positive | None = None
    launch_us: Annotated[float, Field(ge=0, le=1e7, allow_inf_nan=False)]


class BackendModel(Strict):
    """One thing on the target that can run part of a graph."""

    id: Id
    kind: Id
    runtime: Id
    accelerator: bool = False
    precisions: Annotated[list[Precision], Field(min_length=1)]
    scheme: SchemeModel | None = None
    runtime_version: Version | None = None
    max_opset: Opset | None = None
    max_ir: Ir | None = None
    requirement: Line
    options: Annotated[dict[Id, Option], Field(max_length=32)] = Field(default_factory=dict)
    quirks: Annotated[list[Id], Field(max_length=32)] = Field(default_factory=list)
    compiler: Id | None = None
    limits: Id | None = None
    speed: SpeedModel | None = None


class BackendChange(Strict):
    """What differs in a family's backend on one variant; keys left out stay as they are."""

    precisions: Annotated[list[Precision], Field(min_length=1)] = Field(default_factory=list)
    scheme: SchemeModel | None = None
    runtime_version: Version | None = None
    max_opset: Opset | None = None
    max_ir: Ir | None = None
    requirement: Line = ""
    options: Annotated[dict[Id, Option], Field(max_length=32)] = Field(default_factory=dict)
    quirks: Annotated[list[Id], Field(max_length=32)] = Field(default_factory=list)
    compiler: Id | None = None
    limits: Id | None = None
    speed: SpeedModel | None = None


class AgentModel(Strict):
    """What the agent finds on a supported image; no way in means that there is no agent."""

    python: PythonVersion | None = None
    reach: list[Reach]


class AgentChange(Strict):
    """What differs for the agent on one variant."""

    python: PythonVersion = ""
    reach: Annotated[list[Reach], Field(min_length=1)] = Field(default_factory=list)


class IdentifyModel(Strict):
    """Shell globs; any in a field will do, every field named must match."""

    machine: Globs = Field(default_factory=list)
    device_tree_model: Globs = Field(default_factory=list)
    cpu_model: Globs = Field(default_factory=list)
    devices: Globs = Field(default_factory=list)
    pci: Ids = Field(default_factory=list)
    usb: Ids = Field(default_factory=list)


class ProvenanceModel(Strict):
    """Where one or more figures come from."""

    fields: Annotated[list[Line], Field(min_length=1, max_length=64)]
    kind: ProvenanceKind
    source: Line
    checked: Date


class VariantModel(Strict):
    """One target: what differs from its family."""

    name: Id
    title: Line
    default: bool = False
    notes: Text = ""
    ram_bytes: RamBytes | None = None
    agent: AgentChange = AgentChange()
    identify: IdentifyModel = IdentifyModel()
    backends: dict[Id, BackendChange] = Field(default_factory=dict)
    without_backends: list[Id] = Field(default_factory=list)
    contest: Contestants | None = Field(
        None, description="instead of the family's; an empty list for no contest"
    )
    provenance: list[ProvenanceModel] = Field(default_factory=list)


class FamilyModel(Strict):
    """One family of targets: what its variants share, and the variants."""

    schema_: Literal[1] = Field(alias="schema")
    family: Id
    vendor: Line
    notes: Text = ""
    backends: Annotated[list[BackendModel], Field(min_length=1, max_length=32)]
    contest: Contestants = Field(
        default_factory=list,
        description="backends of which a measurement on the device takes the fastest",
    )
    agent: AgentModel
    identify: IdentifyModel = IdentifyModel()
    provenance: Annotated[list[ProvenanceModel], Field(max_length=200)] = Field(
        default_factory=list
    )
    variants: Annotated[list[VariantModel], Field(min_length=1, max_length=64)]


class RulesModel(Strict):
    """What a runtime's 8-bit kernels want of a graph, operator by operator."""

    schema_: Literal[1] = Field(alias="schema")
    name: Id
    placement: QdqPlacement
    compute: SomeOperators
    elementwise: Operators = Field(default_factory=list)
    same_scale: Operators = Field(default_factory=list)
    fused_after: dict[Operator, SomeOperators] = Field(default_factory=dict)
    fixed_outputs: dict[Operator, Interval] = Field(default_factory=dict)
    per_tensor_weights: Operators = Field(default_factory=list)
    float_results: Operators = Field(default_factory=list)
    kept_float: dict[Operator, Line] = Field(default_factory=dict)
    narrow_weights: bool
    bias: Literal["int32", "float"]
    provenance: Annotated[list[ProvenanceModel], Field(max_length=200)]


def _schema(model: type[BaseModel], called: str) -> dict[str, Any]:
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": called,
        **model.model_json_schema(by_alias=True),
    }


def profile_schema() -> dict[str, Any]:
    """Give the JSON Schema of a family file, for editors and for people who write one."""
    return _schema(FamilyModel, "edgesdk.targets/1")


def rules_schema() -> dict[str, Any]:
    """Give the JSON Schema of a file of scheme rules."""
    return _schema(RulesModel, "edgesdk.schemes/1")


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """Find the models inside an annotation such as ``dict[str, Model] | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if isinstance(annotation, types.GenericAlias | types.UnionType) or typing.get_args(
        annotation
    ):
        return [model for part in typing.get_args(annotation) for model in _models_in(part)]
    return []


def _keys_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """List the keys a file of ``model`` may have where pydantic found one too many."""
    for step in location:
        field = next(
            (f for name, f in model.model_fields.items() if step in (name, f.alias)), None
        )
        inner = _models_in(field.annotation) if field is not None else []
        model = inner[0] if inner else model
    return [field.alias or name for name, field in model.model_fields.items()]


def _where(location: tuple[int | str, ...], content: Any, *, absent: bool) -> str:
    """Write a place in the file as a path, without the branches of types pydantic went through.

    ``absent`` says that the last step is a key the file does not have.
    """
    text = ""
    for step in location:
        try:
            content = content[step]
        except (KeyError, IndexError, TypeError):
            if not absent:
                break
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text


def _expected(kind: str, context: dict[str, Any], message: str) -> str:
    """Put pydantic's sentence into ours: what was expected, lower case."""
    if kind == "literal_error":
        return f"expected {context['expected']}"
    if kind == "string_type":
        return "expected text; put quotes around it"
    if kind == "string_pattern_mismatch":
        return f"expected text like {context['pattern']}"
    return f"expected otherwise: {message[:1].lower()}{message[1:]}"


def _as_profile_error(
    what: str,
    path: Path,
    model: type[BaseModel],
    content: dict[str, Any],
    exc: ValidationError,
) -> ProfileError:
    errors = exc.errors(include_url=False)
    # in a union, the complaint of the branch that came furthest is the useful one
    error = max(errors, key=lambda e: (e["type"] == "extra_forbidden", len(e["loc"])))
    location, kind = error["loc"], error["type"]
    key, hint = _where(location, content, absent=kind == "missing"), ""
    if kind == "extra_forbidden":
        known = _keys_at(model, location[:-1])
        hint = suggest(str(location[-1]), known)
        problem = f"{key} is not a known key (expected one of {', '.join(known)})"
    elif kind == "missing":
        problem = f"{key} is missing"
    else:
        context = error.get("ctx", {})
        expected = _expected(kind, context, error["msg"])
        if kind == "literal_error":
            closed_list = re.findall(r"'([^']*)'", str(context["expected"]))
            hint = suggest(str(error["input"]), closed_list)
        seen = repr(error["input"])
        seen = seen if len(seen) <= 80 else seen[:77] + "..."
        problem = f"{key} is {seen} ({expected})"
    return ProfileError(
        f"cannot use {what} {path}: {problem}", hint=hint, path=str(path), key=key
    )


ModelT = TypeVar("ModelT", bound=BaseModel)


def parse_model(
    path: Path, content: dict[str, Any], model: type[ModelT], *, what: str
) -> ModelT:
    """Check the shape of a file of another kind; ``what`` says which kind, for the error.

    Raises:
        ProfileError: As for a family file.
    """
    try:
        return model.model_validate(content)
    except ValidationError as exc:
        raise _as_profile_error(what, path, model, content, exc) from exc


def parse_family(path: Path, content: dict[str, Any]) -> FamilyModel:
    """Check the shape of a family file.

    Args:
        path: Where it was read from, for the error.
        content: What it holds, as plain data.

    Raises:
        ProfileError: A key is unknown or missing, or a value is of the wrong type or out of
            range. The text names file and key, the hint the key that may have been meant.
    """
    return parse_model(path, content, FamilyModel, what="target profile")


def parse_rules(path: Path, content: dict[str, Any]) -> RulesModel:
    """Check the shape of a file of scheme rules; arguments and errors as for a family file."""
    return parse_model(path, content, RulesModel, what="scheme rules")
