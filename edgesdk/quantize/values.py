"""What the precision modes give back: a converted graph and what was said about each node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgesdk.model.values import Finding

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Converted", "LeftFloat"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftFloat:
    """A node that was not quantized."""

    name: str
    op: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """A graph of another precision, made without calibration data.

    Attributes:
        model: The converted graph; the one that was given stays as it was.
        converted_nodes: How many nodes of the float graph compute, or keep their weights, in
            the new precision, those in bodies of control flow included.
        left_float: The nodes that could have been of interest and were not converted.
        findings: What a person should know of the numbers, such as values that were clipped.
    """

    model: ir.Model
    converted_nodes: int
    left_float: tuple[LeftFloat, ...] = ()
    findings: tuple[Finding, ...] = ()
