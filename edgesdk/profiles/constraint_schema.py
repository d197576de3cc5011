"""The shape of a file of constraints, such as ``targets/compilers/ethos-u-vela.yaml``.

Shape only, like `edgesdk.profiles.compiler_schema`, whose words it shares.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from edgesdk.profiles.compiler_schema import (
    Count,
    Dtype,
    Place,
    Places,
    Program,
    TfliteOperator,
)
from edgesdk.profiles.constraint_values import CheckName
from edgesdk.profiles.schema import Id, Line, ProvenanceModel, Strict, Version

__all__ = ["ConstraintModel", "ConstraintsModel", "CoreModel"]

Dtypes = Annotated[list[Dtype], Field(max_length=10)]
Zero = Annotated[int, Field(ge=-(1 << 31), lt=1 << 31)]
Zeros = dict[Dtype, Annotated[list[Zero], Field(min_length=2, max_length=2)]]
Factors = Annotated[list[Count], Field(max_length=16)]


class ConstraintModel(Strict):
    """What one operator has to be like; left out is no limit."""

    types: Dtypes = Field(default_factory=list)
    result_types: Dtypes = Field(default_factory=list)
    unread: Places = Field(default_factory=list)
    same_type: bool = False
    same_inputs: bool = False
    same_sign: bool = False
    never_narrower: bool = False
    same_shape: bool = False
    same_grid: bool = False
    same_scale: bool = False
    needs_grids: bool = True
    per_axis: bool = False
    any_zero_point: bool = False
    constants: Places = Field(default_factory=list)
    constant_types: Dtypes = Field(default_factory=list)
    most_rank: Count | None = None
    weights: Place | None = None
    weight_types: Dtypes = Field(default_factory=list)
    open_types: Dtypes = Field(default_factory=list)
    most_open_extent: Count | None = None
    most_weight_sum: dict[Dtype, Count] = Field(default_factory=dict)
    bias: Place | None = None
    bias_types: Dtypes = Field(default_factory=list)
    most_bias: Count | None = None
    most_stride: Count | None = None
    far_strides: bool = False
    most_kernel_area: Count | None = None
    most_kernel_height: Count | None = None
    most_padded_side: Count | None = None
    most_rows: Count | None = None
    most_depth: Count | None = None
    most_reduced: dict[Dtype, Count] = Field(default_factory=dict)
    most_reduced_extent: Count | None = None
    scale_factors: Factors = Field(default_factory=list)
    half_pixel_factors: Factors = Field(default_factory=list)
    most_factor: Count | None = None
    most_aligned_factor: Count | None = None
    powers_only: bool = False
    checks: Annotated[list[CheckName], Field(max_length=8)] = Field(default_factory=list)


class CoreModel(Strict):
    """What one make of accelerator takes."""

    accelerators: Annotated[list[Id], Field(min_length=1, max_length=32)]
    types: Annotated[list[Dtype], Field(min_length=1, max_length=10)]
    bare_types: Dtypes = Field(default_factory=list)
    zero_points: Zeros = Field(default_factory=dict)
    result_zero_points: Zeros = Field(default_factory=dict)
    operators: Annotated[dict[TfliteOperator, ConstraintModel], Field(min_length=1)]


class ConstraintsModel(Strict):
    """What a compiler asks of the operators of a TFLite graph, by accelerator."""

    schema_: Literal[1] = Field(alias="schema")
    form: Literal["constraints"]
    name: Id
    version: Version
    program: Program
    module: Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_.]*$", max_length=64)] = ""
    how_to_get: Line
    compiled_op: Line
    cores: Annotated[dict[Id, CoreModel], Field(min_length=1, max_length=8)]
    provenance: Annotated[list[ProvenanceModel], Field(max_length=200)]
