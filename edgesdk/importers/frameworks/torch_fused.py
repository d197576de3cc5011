"""Operators that stand for PyTorch's own kernels, written as those that stand for layers.

``nn.TransformerEncoderLayer`` and ``nn.MultiheadAttention`` take a short cut in inference mode:
one operator for the whole layer, which no exporter knows. Traced under ``torch.no_grad`` it is
all that is left of the layer. What it computes is public: post- or pre-norm attention and two
linear layers with ReLU or GELU (``aten/src/ATen/native/transformers/transformer.cpp``).
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

__all__ = ["fused_layers"]

_CONVOLUTION_ARGUMENTS = 9


def fused_layers() -> dict[Any, Any]:
    """Give such operators with functions that do the same by usual ones."""
    import torch

    return {
        torch.ops.aten._transformer_encoder_layer_fwd.default: _encoder_layer,
        torch.ops.aten._native_multi_head_attention.default: _multi_head_attention,
        # what tracing records of a convolution; the rest of its arguments choose a kernel
        torch.ops.aten._convolution.default: _convolution,
        torch.ops.aten._convolution.deprecated: _convolution,
    }


def _convolution(*given: Any) -> Any:
    import torch

    return torch.ops.aten.convolution.default(*given[:_CONVOLUTION_ARGUMENTS])


def _encoder_layer(*given: Any, **named: Any) -> Any:
    import torch
    from torch.nn import functional

    # by the names of the operator's own schema
    at = _by_name(torch.ops.aten._transformer_encoder_layer_fwd.default, given, named)

    def feed_forward(value: Any) -> Any:
        hidden = functional.linear(value, at.ffn_weight_1, at.ffn_bias_1)
        hidden = functional.gelu(hidden) if at.use_gelu else functional.relu(hidden)
        return functional.linear(hidden, at.ffn_weight_2, at.ffn_bias_2)

    def normalized(value: Any, weight: Any, bias: Any) -> Any:
        return functional.layer_norm(value, (at.embed_dim,), weight, bias, at.eps)

    def first(value: Any) -> Any:
        return normalized(value, at.norm_weight_1, at.norm_bias_1)

    def second(value: Any) -> Any:
        return normalized(value, at.norm_weight_2, at.norm_bias_2)

    if at.norm_first:
        value = at.src + _attend(first(at.src), at.num_heads, at)
        return value + feed_forward(second(value))
    value = first(at.src + _attend(at.src, at.num_heads, at))
    return second(value + feed_forward(value))


def _multi_head_attention(*given: Any, **named: Any) -> Any:
    import torch

    at = _by_name(torch.ops.aten._native_multi_head_attention.default, given, named)
    if at.need_weights or at.key is not at.query or at.value is not at.query:
        return NotImplemented
    return _attend(at.query, at.num_head, at), torch.empty(0)


def _by_name(operator: Any, given: tuple[Any, ...], named: dict[str, Any]) -> SimpleNamespace:
    schema = operator._schema.arguments
    values = {each.name: each.default_value for each in schema}
    values.update(zip((each.name for each in schema), given, strict=False))
    return SimpleNamespace(**{**values, **named})


def _attend(value: Any, heads: int, at: SimpleNamespace) -> Any:
    from torch.nn import functional

    batch, length, width = value.shape
    parts = functional.linear(value, at.qkv_weight, at.qkv_bias).chunk(3, -1)
    split = [
        part.reshape(batch, length, heads, width // heads).transpose(1, 2) for part in parts
    ]
    attended = functional.scaled_dot_product_attention(
        *split, attn_mask=_allowed(at.mask, at.mask_type)
    )
    joined = attended.transpose(1, 2).reshape(batch, length, width)
    return functional.linear(joined, at.proj_weight, at.proj_bias)


def _allowed(mask: Any, mask_type: int | None) -> Any:
    """Turn a mask of what to leave out into one of what to attend to."""
    import torch

    if mask is None:
        return None
    if mask_type == 1:  # padding: one row for each sample
        mask = mask[:, None, None, :]
    return mask.logical_not() if mask.dtype == torch.bool else mask
