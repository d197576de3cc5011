"""What a compiler asks of an operator before it places it, as frozen values.

For compilers that look at each operator by itself and say of every limit what it is;
`edgesdk.profiles.compilers` reads the files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

__all__ = ["CheckName", "ConstraintRules", "Core", "OperatorConstraints"]

#: What numbers in a file cannot say of an operator; `edgesdk.backends.ethos_u` has the code.
CheckName = Literal[
    "along-depth",
    "axis-is-batch",
    "batch-of-one",
    "depth-alone",
    "flat-weights",
    "forward-slice",
    "plain-gates",
    "said-splits",
    "scattered-once",
    "square-steps",
    "summed-extents",
    "transposed",
    "transposed-window",
]


def _nothing() -> Mapping[str, Any]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorConstraints:
    """What one operator has to be like; None and empty are no limit.

    Inputs are counted from 0; a map is a tensor that is known only when it runs.

    Attributes:
        types: Types of its maps.
        result_types: Types of its results, where they may be others than ``types``.
        unread: Inputs that steer and are not looked at, as the result's shape says it all.
        same_type: Its maps and results have one type.
        same_inputs: Its maps have one type.
        same_sign: Its results have signs where its first map has.
        never_narrower: Its results have no fewer bits than its first map.
        same_shape: Its results have the shape of its first map.
        same_grid: All that it works on has the grid of the first result.
        same_scale: All that it works on has the scale of the first result.
        needs_grids: All that it works on and makes has a grid.
        per_axis: Grids may have a scale per entry of an axis.
        any_zero_point: Zero points are not looked at.
        constants: Inputs whose content the file has to fix, where they are given.
        constant_types: Types of those.
        most_rank: How many axes its first map may have.
        weights: The input with weights.
        weight_types: Types of the weights, where the file fixes them.
        open_types: Types of the first map, where the weights are a map too.
        most_open_extent: The largest extent that is summed over or made, with such weights.
        most_weight_sum: By type of the first map, the largest sum of weights for a result.
        bias: The input with the bias, which the file has to fix.
        bias_types: Types of the bias.
        most_bias: The largest bias of 64 bits.
        most_stride: The largest step of a window.
        far_strides: Larger steps will do where the window is dense and nothing is padded.
        most_kernel_area: The largest product of a window's sides.
        most_kernel_height: The largest height of a window.
        most_padded_side: The largest side of a window that may lie over the edge.
        most_rows: The largest product of height and width.
        most_depth: The largest innermost extent.
        most_reduced: By type of the first map, how many elements one result may be made of.
        most_reduced_extent: The largest extent along which it reduces.
        scale_factors: By how much a resize may grow, a side at a time.
        half_pixel_factors: The same, where pixels are taken at their middles.
        most_factor: The largest factor of a resize.
        most_aligned_factor: The same where corners are aligned.
        powers_only: It grows by a power of two.
        checks: What else is looked at.
    """

    types: tuple[str, ...] = ()
    result_types: tuple[str, ...] = ()
    unread: tuple[int, ...] = ()
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
    constants: tuple[int, ...] = ()
    constant_types: tuple[str, ...] = ()
    most_rank: int | None = None
    weights: int | None = None
    weight_types: tuple[str, ...] = ()
    open_types: tuple[str, ...] = ()
    most_open_extent: int | None = None
    most_weight_sum: Mapping[str, int] = field(default_factory=_nothing)
    bias: int | None = None
    bias_types: tuple[str, ...] = ()
    most_bias: int | None = None
    most_stride: int | None = None
    far_strides: bool = False
    most_kernel_area: int | None = None
    most_kernel_height: int | None = None
    most_padded_side: int | None = None
    most_rows: int | None = None
    most_depth: int | None = None
    most_reduced: Mapping[str, int] = field(default_factory=_nothing)
    most_reduced_extent: int | None = None
    scale_factors: tuple[int, ...] = ()
    half_pixel_factors: tuple[int, ...] = ()
    most_factor: int | None = None
    most_aligned_factor: int | None = None
    powers_only: bool = False
    checks: tuple[CheckName, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Core:
    """What one make of accelerator takes.

    Attributes:
        name: What the rules call it.
        accelerators: The compiler's names for its sizes.
        types: Types of maps, where an operator does not say otherwise.
        bare_types: Types that need no grid.
        zero_points: By type, the lowest and highest zero point of what is read.
        result_zero_points: By type, the same of what is made.
        operators: By name in TFLite's schema.
    """

    name: str
    accelerators: tuple[str, ...]
    types: tuple[str, ...]
    bare_types: tuple[str, ...]
    zero_points: Mapping[str, tuple[int, int]]
    result_zero_points: Mapping[str, tuple[int, int]]
    operators: Mapping[str, OperatorConstraints]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConstraintRules:
    """What one compiler asks of operators, by accelerator.

    Attributes:
        name: The file under ``targets/compilers`` that says all this.
        digest: The SHA-256 of what the file says.
        version: Of the compiler.
        program: What the compiler is called on PATH.
        module: The Python module that is the compiler too, where pip installs it.
        how_to_get: What a person does to get it.
        compiled_op: The operator that stands in a compiled file for what it took.
        cores: What each make of accelerator takes.
        assumed: What of this nobody has measured or found in a document, by path.
    """

    name: str
    digest: str
    version: str
    program: str
    how_to_get: str
    compiled_op: str
    cores: tuple[Core, ...]
    module: str = ""
    assumed: tuple[str, ...] = ()

    def core_of(self, accelerator: str) -> Core | None:
        """Give what an accelerator takes; None if the rules do not know it."""
        for core in self.cores:
            if accelerator in core.accelerators:
                return core
        return None
