"""What the tests of the static quantizer share: small float graphs, rules, schemes, samples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir as ir

from edgesdk.profiles import load_scheme_rules
from edgesdk.profiles.values import QuantScheme, SchemeRules
from edgesdk.quantize.engine import quantize_static
from edgesdk.quantize.layout import Layout, lay_out
from edgesdk.quantize.values import Quantized
from tests.unit.quantize.modes import graph

#: What runs where: activations and weights as the target profiles of these rules say.
SHIPPED = {
    "onnxruntime-cpu": ("uint8-asymmetric", "int8-per-channel-symmetric"),
    "openvino": ("uint8-asymmetric", "int8-per-channel-symmetric"),
    "tensorrt": ("int8-symmetric", "int8-per-channel-symmetric"),
    "litert-int8": ("int8-asymmetric", "int8-per-channel-symmetric"),
    "edgetpu": ("int8-asymmetric", "int8-per-channel-symmetric"),
}


def shipped(name: str, activations: str = "", weights: str = "") -> QuantScheme:
    """Give the scheme of shipped rules, with other numbers where they are given."""
    usual = SHIPPED[name]
    given: Any = {"activations": activations or usual[0], "weights": weights or usual[1]}
    return QuantScheme(rules=load_scheme_rules(name), **given)


def rules(placement: Any = "operators", **more: Any) -> SchemeRules:
    """Give rules of a runtime that does not exist."""
    return SchemeRules(
        name="acme", placement=placement, **{"compute": ("Conv", "Gemm"), **more}
    )


def named(text: str, weights: dict[str, np.ndarray] | None = None) -> ir.Model:
    """Read a graph; a node without a name gets that of its first result."""
    model = graph(text, weights)
    for node in model.graph:
        node.name = node.name or node.outputs[0].name
    return model


def laid_out(model: ir.Model, by: str | SchemeRules, **more: Any) -> Layout:
    return lay_out(model, load_scheme_rules(by) if isinstance(by, str) else by, **more)


def samples(model: ir.Model, count: int = 6, *, seed: int = 2) -> list[dict[str, np.ndarray]]:
    """Give normal numbers for every input; an open extent is 1."""
    return list(_samples(model, count, seed))


def _samples(model: ir.Model, count: int, seed: int) -> Iterator[dict[str, np.ndarray]]:
    random = np.random.default_rng(seed)
    for _ in range(count):
        sample = {}
        for value in model.graph.inputs:
            assert value.shape is not None
            assert value.dtype is not None
            shape = [extent if isinstance(extent, int) else 1 for extent in value.shape]
            array = np.asarray(random.standard_normal(shape))
            kind = value.dtype.numpy()
            if kind == np.bool_:
                sample[value.name or ""] = np.asarray(array > 0)
            else:
                sample[value.name or ""] = (
                    array if kind.kind == "f" else np.abs(array * 2)
                ).astype(kind)
        yield sample


def static(
    model: ir.Model,
    scheme: QuantScheme | str = "onnxruntime-cpu",
    data: list[dict[str, np.ndarray]] | None = None,
    **more: Any,
) -> Quantized:
    """Quantize without trying accuracy means, which have tests of their own."""
    chosen = shipped(scheme) if isinstance(scheme, str) else scheme
    given = samples(model) if data is None else data
    return quantize_static(model, given, scheme=chosen, **{"means": (), **more})


def reasons(done: Quantized | Layout) -> dict[str, str]:
    if isinstance(done, Layout):
        return done.left
    return {node.name: node.reason for node in done.left_float}


def nodes(model: ir.Model, op: str) -> list[ir.Node]:
    return [node for node in model.graph if node.op_type == op]


def array_of(value: ir.Value | None) -> np.ndarray:
    assert value is not None
    assert value.const_value is not None
    return value.const_value.numpy()
