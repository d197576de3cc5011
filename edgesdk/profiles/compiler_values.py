"""What a compiler takes of a TFLite graph, as frozen values; `compilers` reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

__all__ = ["CompilerRules", "OperatorLimits", "ParameterLayout", "StatusKind"]

#: Why an operator is left out; the rules give the compiler's own words for each.
StatusKind = Literal[
    "rank", "type", "operator", "version", "strides", "precision", "limit", "subgraph"
]


def _nothing() -> Mapping[str, Any]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorLimits:
    """What one operator has to be like; None and empty are no limit.

    Inputs are counted from 0. The batch is whatever lies before the inner axes.

    Attributes:
        activations: Fused activations that will do.
        options: Options by name, with the values that will do.
        equal_options: Options that have to be the same.
        constant_inputs: Inputs whose content the file has to fix, where they are given.
        types: Types of its tensors, where they are others than the compiler's usual ones.
        type_status: What the log says of a wrong type.
        axis_option: The option that names its axis, which may not be of the batch.
        axes_input: The constant input that names its axes, none of which may be of the batch.
        pads_input: The constant input with paddings, none of them of the batch.
        depth_multiple: Working along the innermost axis, its extent is a multiple of this.
        most_reduced: How many elements one result may be made of.
        most_depth: The largest innermost extent.
        most_elements: The largest number of elements of its result.
        most_extent: The largest height or width of its result.
        grows_from_one: Whether a height or width of 1 may become a larger one.
        unit_strides_input: The constant input with strides, all of them 1.
        zero_constants: A constant among its inputs holds zeros only, and stands beside one
            other input.
        flat_inputs: Inputs of which only the innermost axis may be longer than 1.
        ungrouped: The kernel is as deep as the input.
    """

    activations: tuple[str, ...] = ()
    options: Mapping[str, tuple[str | int | bool, ...]] = field(default_factory=_nothing)
    equal_options: tuple[str, ...] = ()
    constant_inputs: tuple[int, ...] = ()
    types: tuple[str, ...] = ()
    type_status: StatusKind = "type"
    axis_option: str | None = None
    axes_input: int | None = None
    pads_input: int | None = None
    depth_multiple: int | None = None
    most_reduced: int | None = None
    most_depth: int | None = None
    most_elements: int | None = None
    most_extent: int | None = None
    grows_from_one: bool = True
    unit_strides_input: int | None = None
    zero_constants: bool = False
    flat_inputs: tuple[int, ...] = ()
    ungrouped: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterLayout:
    """What parameters take in the accelerator's memory, which pads them.

    Attributes:
        depth_multiple: The depth of a kernel grows to a multiple of this.
        outputs_multiple: Its number of outputs grows to a multiple of this.
        output_bytes: What each of those takes beside its weights (bias and scale).
        channels_multiple: The channels of a depthwise kernel grow to a multiple of this.
        channel_bytes: What each of those takes beside its weights.
        channel_weight_bytes: What each weight of a depthwise kernel takes.
    """

    depth_multiple: int
    outputs_multiple: int
    output_bytes: int
    channels_multiple: int
    channel_bytes: int
    channel_weight_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CompilerRules:
    """What one compiler takes, and what its log calls the rest.

    Attributes:
        name: The file under ``targets/compilers`` that says all this.
        version: Of the compiler.
        runtime: The oldest runtime version that loads what it makes.
        program: What the compiler is called on PATH.
        how_to_get: What a person does to get it.
        compiled_op: The operator that stands in a compiled file for what it took.
        types: Types of the tensors that operators work on.
        inner_axes: How many innermost axes may be longer than 1.
        cache_bytes: On-chip memory in which parameters stay from one run to the next.
        layout: What parameters take of it.
        versions: By operator, the last version that its reader knows; it turns down a file with
            a later one, whatever else there is in it.
        sized_by: By operator, inputs that decide on the size of what it gives; no input where
            the numbers themselves do. It turns down a file in which one of them is worked out.
        statuses: By kind, the words of its log.
        operators: By name in TFLite's schema, what each has to be like.
        assumed: What of this nobody has measured or found in a document, by path.
    """

    name: str
    version: str
    runtime: str
    program: str
    how_to_get: str
    compiled_op: str
    types: tuple[str, ...]
    inner_axes: int
    cache_bytes: int
    layout: ParameterLayout
    versions: Mapping[str, int]
    sized_by: Mapping[str, tuple[int, ...]]
    statuses: Mapping[str, str]
    operators: Mapping[str, OperatorLimits]
    assumed: tuple[str, ...] = ()
