"""The shape of a file of compiler rules, such as ``targets/compilers/edgetpu-16.yaml``.

Shape only, like `edgesdk.profiles.schema`, and imported where it is used for the same reason.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field

from edgesdk.profiles.compiler_values import StatusKind
from edgesdk.profiles.schema import Id, Line, ProvenanceModel, Strict, Version

__all__ = [
    "STATUS_KINDS",
    "CompilerModel",
    "Count",
    "Dtype",
    "LayoutModel",
    "LimitsModel",
    "Place",
    "Places",
    "Program",
    "TfliteOperator",
]

STATUS_KINDS: tuple[str, ...] = get_args(StatusKind)

TfliteOperator = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$", max_length=64)]
Dtype = Literal["bool", "int8", "uint8", "int16", "int32", "int64", "float16", "float32"]
Count = Annotated[int, Field(ge=1, le=1 << 48)]
Place = Annotated[int, Field(ge=0, le=63)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]
Word = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$", max_length=64)]
Places = Annotated[list[Place], Field(max_length=64)]
Program = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]


class LimitsModel(Strict):
    """What one operator has to be like; left out is no limit."""

    activations: Annotated[list[Word], Field(max_length=8)] = Field(default_factory=list)
    options: dict[Name, Annotated[list[Word | bool | int], Field(min_length=1)]] = Field(
        default_factory=dict
    )
    equal_options: Annotated[list[Name], Field(max_length=8)] = Field(default_factory=list)
    constant_inputs: Places = Field(default_factory=list)
    types: Annotated[list[Dtype], Field(max_length=8)] = Field(default_factory=list)
    type_status: StatusKind = "type"
    axis_option: Name | None = None
    axes_input: Place | None = None
    pads_input: Place | None = None
    depth_multiple: Count | None = None
    most_reduced: Count | None = None
    most_depth: Count | None = None
    most_elements: Count | None = None
    most_extent: Count | None = None
    grows_from_one: bool = True
    unit_strides_input: Place | None = None
    zero_constants: bool = False
    flat_inputs: Places = Field(default_factory=list)
    ungrouped: bool = False


class LayoutModel(Strict):
    """How a compiler lays parameters out in the accelerator's memory."""

    depth_multiple: Count
    outputs_multiple: Count
    output_bytes: Count
    channels_multiple: Count
    channel_bytes: Count
    channel_weight_bytes: Count


class CompilerModel(Strict):
    """What a compiler takes of a TFLite graph, and what its log calls the rest."""

    schema_: Literal[1] = Field(alias="schema")
    name: Id
    version: Version
    runtime: Version
    program: Program
    how_to_get: Line
    compiled_op: Line
    types: Annotated[list[Dtype], Field(min_length=1, max_length=8)]
    inner_axes: Annotated[int, Field(ge=1, le=8)]
    cache_bytes: Count
    layout: LayoutModel
    versions: Annotated[dict[TfliteOperator, Count], Field(max_length=400)]
    sized_by: Annotated[dict[TfliteOperator, Places], Field(max_length=400)]
    statuses: dict[StatusKind, Line]
    operators: Annotated[dict[TfliteOperator, LimitsModel], Field(min_length=1)]
    provenance: Annotated[list[ProvenanceModel], Field(max_length=200)]
