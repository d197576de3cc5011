"""Rewrite the graph of an exported program in place: its element types, its mode."""

from __future__ import annotations

from typing import Any

__all__ = ["other_types", "switch_to_inference", "to_float32"]

#: Operators that training changes, with the place of the argument that says so.
_TRAINED = {
    "aten.dropout.default": 2,
    "aten.dropout_.default": 2,
    "aten.alpha_dropout.default": 2,
    "aten.feature_dropout.default": 2,
    "aten.batch_norm.default": 5,
}


def _graphs(module: Any) -> list[Any]:
    import torch

    return [part for part in module.modules() if isinstance(part, torch.fx.GraphModule)]


def _held_tensors(graph_module: Any) -> dict[str, Any]:
    """Give every tensor that a graph fetches, by the path it fetches it from."""
    import torch

    held = {}
    for node in graph_module.graph.nodes:
        if node.op == "get_attr":
            value: Any = graph_module
            for part in node.target.split("."):
                value = getattr(value, part, None)
            if isinstance(value, torch.Tensor):
                held[node.target] = value
    return held


def other_types(module: Any) -> set[str]:
    """Name the float types other than float32 that a module holds, takes or makes."""
    import torch
    from torch.utils import _pytree as pytree

    other = {torch.float16, torch.bfloat16, torch.float64}
    seen: set[Any] = set()
    for part in _graphs(module):
        seen.update(each.dtype for each in _held_tensors(part).values())
        for node in part.graph.nodes:
            seen.update(
                leaf
                for leaf in pytree.tree_leaves((node.args, node.kwargs))
                if isinstance(leaf, torch.dtype)
            )
            value = node.meta.get("val")
            if isinstance(value, torch.Tensor):
                seen.add(value.dtype)
    return {str(dtype).removeprefix("torch.") for dtype in seen & other}


def to_float32(module: Any) -> None:
    """Make float32 of every other float type that a graph holds or asks for."""
    import torch
    from torch.utils import _pytree as pytree

    other = {torch.float16, torch.bfloat16, torch.float64}

    def changed(leaf: Any) -> Any:
        return torch.float32 if isinstance(leaf, torch.dtype) and leaf in other else leaf

    for part in _graphs(module):
        for path, tensor in _held_tensors(part).items():
            if tensor.dtype in other:
                _replace(part, path, tensor.detach().to(torch.float32))
        for node in part.graph.nodes:
            args, kwargs = pytree.tree_map(changed, (node.args, node.kwargs))
            node.args, node.kwargs = args, kwargs
        part.recompile()


def _replace(root: Any, path: str, tensor: Any) -> None:
    """Put a tensor in the place of another, be it a parameter, a buffer or an attribute."""
    import torch

    *parents, leaf = path.split(".")
    holder = root
    for parent in parents:
        holder = getattr(holder, parent)
    if leaf in holder._parameters:
        holder._parameters[leaf] = torch.nn.Parameter(tensor, requires_grad=False)
    elif leaf in holder._buffers:
        holder._buffers[leaf] = tensor
    else:
        setattr(holder, leaf, tensor)


def switch_to_inference(module: Any) -> bool:
    """Switch dropout and batch normalisation of a program that was exported in training."""
    trained = False
    for part in _graphs(module):
        for node in list(part.graph.nodes):
            position = _TRAINED.get(str(node.target))
            if position is not None and len(node.args) > position and node.args[position]:
                args = list(node.args)
                args[position] = False
                node.args = tuple(args)
                trained = True
        if trained:
            for node in list(part.graph.nodes):
                # what is left of training: counting batches, in place
                into = node.args[0] if node.args and not node.users else None
                path = str(getattr(into, "target", ""))
                if node.op == "call_function" and path.endswith("num_batches_tracked"):
                    part.graph.erase_node(node)
            part.graph.eliminate_dead_code()
            part.recompile()
    return trained
