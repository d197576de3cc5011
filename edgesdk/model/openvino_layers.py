"""Read how OpenVINO's runtime model names what a primitive was made of."""

from __future__ import annotations

__all__ = ["layers_of"]

_SPLIT = "/WithoutBiases"


def layers_of(names: str) -> set[str]:
    """Give the layers, by the names they have in the ONNX graph, that became one primitive.

    Args:
        names: ``originalLayersNames`` of the primitive. A layer with a bias goes by two names,
            as the bias is added on its own at first.
    """
    found: set[str] = set()
    for layer in names.split(","):
        found.update((layer, layer.partition(_SPLIT)[0]))
    return found
