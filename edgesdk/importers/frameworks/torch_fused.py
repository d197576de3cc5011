"""The layers that PyTorch fuses for speed on its own kernels, written out.

``nn.TransformerEncoderLayer`` and ``nn.MultiheadAttention`` take a short cut in inference mode:
one operator for the whole layer, which no exporter knows. Traced under ``torch.no_grad`` it is
all that is left of the layer. What it computes is public: post- or pre-norm attention and two
linear layers with ReLU or GELU (``aten/src/ATen/native/transformers/transformer.cpp``).
"""

from __future__ import annotations

from typing import Any

__all__ = ["fused_layers"]


def fused_layers() -> dict[Any, Any]:
    """Give the fused operators with the functions that do the same step by step."""
    import torch

    return {
        torch.ops.aten._transformer_encoder_layer_fwd.default: _encoder_layer,
        torch.ops.aten._native_multi_head_attention.default: _multi_head_attention,
    }


def _attend(
    query: Any,
    heads: int,
    projection: tuple[Any, Any],
    output: tuple[Any, Any],
    mask: Any,
    mask_type: int | None,
) -> Any:
    from torch.nn import functional

    batch, length, width = query.shape
    parts = functional.linear(query, *projection).chunk(3, -1)
    split = [
        part.reshape(batch, length, heads, width // heads).transpose(1, 2) for part in parts
    ]
    attended = functional.scaled_dot_product_attention(
        *split, attn_mask=_allowed(mask, mask_type)
    )
    joined = attended.transpose(1, 2).reshape(batch, length, width)
    return functional.linear(joined, *output)


def _allowed(mask: Any, mask_type: int | None) -> Any:
    """Turn a mask of what to leave out into one of what to attend to."""
    import torch

    if mask is None:
        return None
    if mask_type == 1:  # padding: one row for each sample
        mask = mask[:, None, None, :]
    return mask.logical_not() if mask.dtype == torch.bool else mask


def _encoder_layer(
    source: Any,
    embed_dim: int,
    num_heads: int,
    qkv_weight: Any,
    qkv_bias: Any,
    proj_weight: Any,
    proj_bias: Any,
    use_gelu: Any,
    norm_first: Any,
    eps: float,
    norm_weight_1: Any,
    norm_bias_1: Any,
    norm_weight_2: Any,
    norm_bias_2: Any,
    ffn_weight_1: Any,
    ffn_bias_1: Any,
    ffn_weight_2: Any,
    ffn_bias_2: Any,
    mask: Any = None,
    mask_type: int | None = None,
) -> Any:
    from torch.nn import functional

    def attention(value: Any) -> Any:
        return _attend(
            value,
            num_heads,
            (qkv_weight, qkv_bias),
            (proj_weight, proj_bias),
            mask,
            mask_type,
        )

    def feed_forward(value: Any) -> Any:
        hidden = functional.linear(value, ffn_weight_1, ffn_bias_1)
        hidden = functional.gelu(hidden) if use_gelu else functional.relu(hidden)
        return functional.linear(hidden, ffn_weight_2, ffn_bias_2)

    def first(value: Any) -> Any:
        return functional.layer_norm(value, (embed_dim,), norm_weight_1, norm_bias_1, eps)

    def second(value: Any) -> Any:
        return functional.layer_norm(value, (embed_dim,), norm_weight_2, norm_bias_2, eps)

    if norm_first:
        value = source + attention(first(source))
        return value + feed_forward(second(value))
    value = first(source + attention(source))
    return second(value + feed_forward(value))


def _multi_head_attention(
    query: Any,
    key: Any,
    value: Any,
    embed_dim: int,
    num_head: int,
    qkv_weight: Any,
    qkv_bias: Any,
    proj_weight: Any,
    proj_bias: Any,
    mask: Any = None,
    need_weights: Any = True,
    average_attn_weights: Any = True,
    mask_type: int | None = None,
) -> Any:
    import torch

    if need_weights or key is not query or value is not query:
        return NotImplemented
    attended = _attend(
        query, num_head, (qkv_weight, qkv_bias), (proj_weight, proj_bias), mask, mask_type
    )
    return attended, torch.empty(0)
