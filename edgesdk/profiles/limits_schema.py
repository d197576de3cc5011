"""The shape of a file of device limits, such as ``targets/limits/openvino-npu.yaml``.

Shape only, like `edgesdk.profiles.schema`, and imported where it is used for the same reason.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from edgesdk.profiles.schema import Id, Line, ProvenanceModel, Strict

__all__ = ["DeviceLimitsModel"]

Operator = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9]*$", max_length=64)]
Dtype = Annotated[str, Field(pattern=r"^(bool|string|(u?int|b?float|complex)[0-9]+)$")]


class DeviceLimitsModel(Strict):
    """What a device takes of a graph; what is left out is no limit."""

    schema_: Literal[1] = Field(alias="schema")
    name: Id
    fixed_shapes: bool
    types: Annotated[list[Dtype], Field(min_length=1, max_length=32)]
    most_rank: Annotated[int, Field(ge=1, le=64)] | None = None
    refused: Annotated[dict[Operator, Line], Field(max_length=500)] = Field(
        default_factory=dict
    )
    provenance: Annotated[list[ProvenanceModel], Field(max_length=200)]
