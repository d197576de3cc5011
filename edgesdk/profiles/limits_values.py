"""What a runtime takes on a device, as frozen values; `limits` reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

__all__ = ["DeviceLimits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceLimits:
    """What a device takes of a graph.

    Attributes:
        name: The file under ``targets/limits`` that says all this.
        fixed_shapes: Whether every extent has to be known when it is compiled.
        types: Types that tensors may have.
        most_rank: How many dimensions a tensor may have; None where nobody said.
        refused: ONNX operators that it does not take, with the reason.
        assumed: What of this nobody has measured or found in a document, by path.
    """

    name: str
    fixed_shapes: bool
    types: tuple[str, ...]
    most_rank: int | None = None
    refused: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    assumed: tuple[str, ...] = ()
