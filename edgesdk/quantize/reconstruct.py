"""Error-compensating rounding of a layer's weights, from what the layer saw in calibration."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from edgesdk.quantize.edit import is_transposed
from edgesdk.quantize.grid import Grid
from edgesdk.quantize.moments import Moments, collect_moments
from edgesdk.quantize.observers import TensorStats
from edgesdk.quantize.rounding import round_weights
from edgesdk.quantize.weights import WholeWeight

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

__all__ = ["layer_moments", "rounded_weight"]

#: Moments of fewer columns than this many times their width tell more of the samples than of
#: the data: weights rounded by them do worse on new data than weights rounded to nearest.
_COLUMNS_PER_WIDTH = 2


def layer_moments(
    model: onnx_ir.Model,
    names: Collection[str],
    samples: Sequence[dict[str, np.ndarray]],
    stats: Mapping[str, TensorStats],
) -> dict[str, Moments]:
    """Give the moments of what each named layer reads.

    From the samples that were kept; where a layer reads one place at a time and more places
    were seen while calibrating, from those.
    """
    found = dict(collect_moments(model, names, samples).moments)
    for node in model.graph:
        moments = found.get(node.name or "")
        source = node.inputs[0] if node.inputs else None
        known = stats.get((source.name or "") if source is not None else "")
        if moments is None or known is None or known.axis is None:
            continue
        rows = known.rows
        reads_places = moments.second.shape[:2] == (1, rows.shape[1])
        if reads_places and len(rows) > moments.columns:
            found[node.name or ""] = _of_rows(rows)
    return found


def rounded_weight(
    node: onnx_ir.Node,
    weight: np.ndarray,
    nearest: WholeWeight,
    grid: Grid,
    moments: Moments,
    *,
    centred: bool,
) -> WholeWeight:
    """Give ``nearest`` with integers whose errors make up for each other.

    Args:
        node: The layer, a Conv, Gemm or MatMul whose second input is the weight.
        weight: Float.
        nearest: The same rounded to nearest; its scales stay.
        grid: The integers of weights.
        moments: Of the layer's input.
        centred: Whether the mean of the error will be corrected in the bias.
    """
    import numpy as np

    lies_in_rows = node.op_type == "Conv" or is_transposed(node)
    rows = weight.reshape(weight.shape[0], -1) if lies_in_rows else weight.T
    if nearest.axis is None:
        scale: np.ndarray | float = float(nearest.scale)
    else:
        scale = nearest.scale.astype(np.float64)
    second = moments.centred if centred else moments.second
    if second.shape[1] != rows.shape[1] or moments.columns < _COLUMNS_PER_WIDTH * len(
        second[0]
    ):
        return nearest
    whole = round_weights(rows, scale, second, low=grid.low, high=grid.high).astype(grid.dtype)
    shaped = whole if lies_in_rows else np.ascontiguousarray(whole.T)
    return replace(nearest, integers=shaped.reshape(weight.shape))


def _of_rows(rows: np.ndarray) -> Moments:
    import numpy as np

    wide = rows.astype(np.float64)
    return Moments(
        second=(wide.T @ wide / len(wide))[np.newaxis],
        mean=wide.mean(axis=0)[np.newaxis],
        columns=len(wide),
    )
