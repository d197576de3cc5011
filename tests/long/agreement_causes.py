"""Where 8-bit answers part: in a kernel, or by rounding that a deep graph makes more of.

A number that lies halfway between two steps falls to one side or the other by the last bit of
a float sum. One such step in an early layer changes sums behind it by fractions of steps, some
of which fall to the other side as well; in a deep graph nothing is the same at the end,
although every kernel did what the graph says. Two measurements tell this from a kernel that is
wrong:

- **Kernel by kernel** (`split_at_pairs`): every 8-bit tensor is given from outside, as
  onnxruntime has it, and what each kernel makes of it is compared. Nothing adds up.
- **Against itself** (`nudge_scales`): onnxruntime computes the graph again with each scale
  moved to the next float32, up or down. That is 6e-8 of its value; whoever sums in another
  order is no nearer. What this changes at the outputs, no runtime can be held to.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgesdk.model.shapes import with_shapes

__all__ = ["nudge_scales", "on_grids", "split_at_pairs"]

Arrays = dict[str, np.ndarray]


def on_grids(model: ir.Model, test: Sequence[Arrays]) -> list[Arrays]:
    """Round what a graph quantizes as its first deed to the steps it is quantized to.

    Args:
        model: A Q/DQ graph.
        test: Samples by input name; they stay as they are.
    """
    rounded = [dict(sample) for sample in test]
    for value in model.graph.inputs:
        readers = [node for node, _ in value.uses()]
        if not readers or any(node.op_type != "QuantizeLinear" for node in readers):
            continue
        scale, zero = (ir.convenience.get_const_tensor(v) for v in readers[0].inputs[1:3])
        if scale is None or zero is None or scale.size != 1:
            continue
        step, shift = scale.numpy(), int(zero.numpy())
        limits = np.iinfo(zero.numpy().dtype)
        for sample in rounded:
            steps = np.rint(sample[value.name] / step)
            steps = np.clip(steps, limits.min - shift, limits.max - shift)
            sample[value.name] = (steps * step).astype(np.float32)
    return rounded


def split_at_pairs(model: ir.Model) -> tuple[ir.Model, dict[str, str]]:
    """Make a graph whose 8-bit tensors are read from inputs and given as outputs.

    Args:
        model: A Q/DQ graph; it stays as it is.

    Returns:
        The graph, and by name of each 8-bit tensor, which is an output now, the input that is
        read in its place.
    """
    split = with_shapes(model.clone())
    graph = split.graph
    given: dict[str, str] = {}
    for node in list(graph):
        if node.op_type != "QuantizeLinear" or node.outputs[0].is_graph_output():
            continue
        source, made = node.inputs[0], node.outputs[0]
        if source is None or source.is_graph_input():
            continue  # samples lie on its grid already
        if ir.convenience.get_const_tensor(source) is not None:
            continue
        assert made.name is not None
        stand_in = ir.Value(name=f"{made.name}.given", shape=made.shape, type=made.type)
        made.replace_all_uses_with(stand_in)
        graph.inputs.append(stand_in)
        graph.outputs.append(made)
        given[made.name] = f"{made.name}.given"
    return split, given


def nudge_scales(model: ir.Model, seed: int) -> ir.Model:
    """Give a copy with each scale of activations and weights moved to a float32 next to it.

    Args:
        model: A Q/DQ graph; it stays as it is.
        seed: Of the directions.
    """
    nudged = model.clone()
    dice = np.random.default_rng(seed)
    done: set[str] = set()
    for node in nudged.graph:
        if node.op_type != "DequantizeLinear":
            continue
        scale = node.inputs[1]
        tensor = None if scale is None else ir.convenience.get_const_tensor(scale)
        if scale is None or tensor is None or scale.name is None or scale.name in done:
            continue
        done.add(scale.name)
        array = tensor.numpy()
        towards = np.where(dice.random(array.shape) < 0.5, 0, np.inf).astype(array.dtype)
        moved = np.nextafter(array, towards)
        scale.const_value = ir.Tensor(moved.reshape(array.shape), name=scale.name)
    return nudged
