"""What TensorRT's ONNX parser and builder turn down, for the GPU.

Each rule is from the table of operators of https://github.com/onnx/onnx-tensorrt
(docs/operators.md, of 8.5 and of 10.15) unless it says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from edgesdk.backends.base import WhyNot
from edgesdk.backends.tensorrt.operators import support_of
from edgesdk.model.classical import why_it_stays
from edgesdk.model.values import NodeFacts
from edgesdk.profiles.values import BackendProfile
from edgesdk.tensors import TensorInfo

__all__ = ["gpu_rules", "release_of"]

_KINDS: Mapping[str, str] = {
    "float32": "F",
    "float16": "F",
    "bfloat16": "F",
    "int8": "F",
    "int32": "I",
    "int64": "I",
    "bool": "B",
}
_KIND_NAMES = {"F": "floats", "I": "integers", "B": "booleans"}
#: Operators whose first input is not what their types are about, with the input that is.
_TYPED_BY = {"Where": 1}
#: Operators whose types follow from an attribute, or from their bodies.
_UNTYPED = frozenset({"Constant", "ConstantOfShape", "OneHot", "Loop", "Scan", "If", "Shape"})
_MODES = ("nearest", "linear")
_COORDINATES = (
    "half_pixel",
    "pytorch_half_pixel",
    "tf_half_pixel_for_nn",
    "asymmetric",
    "align_corners",
)
_MOST_RANK = 8

Check = Callable[[NodeFacts, tuple[int, ...]], str | None]


def release_of(profile: BackendProfile) -> tuple[int, ...]:
    """Give the TensorRT release of a profile as numbers; the oldest where it has none."""
    pieces = profile.runtime_version.split(".") if profile.runtime_version else ["8", "5"]
    return tuple(int(piece) for piece in pieces if piece.isdigit())


def gpu_rules(profile: BackendProfile) -> tuple[WhyNot, ...]:
    """Give the rules of a release of TensorRT."""
    release = release_of(profile)
    shown = f"TensorRT {profile.runtime_version}".strip()

    def knows_the_op(node: NodeFacts) -> str | None:
        if (reason := why_it_stays(node)) is not None:
            return f"{node.op} {reason}, and {shown}'s ONNX parser has no importer for it"
        if node.domain not in ("", "ai.onnx"):
            return f"{node.op} of {node.domain} has no importer in {shown}'s ONNX parser"
        ops = [node.op, *node.subgraph_ops]
        for op in ops:
            found = support_of(op, release)
            if found.kinds:
                continue
            inside = "" if op == node.op else f" (in a body of {node.op})"
            later = f"; {found.since} is the first that has one" if found.since else ""
            return f"{op}{inside} has no importer in {shown}'s ONNX parser{later}"
        return None

    def takes_the_types(node: NodeFacts) -> str | None:
        reasons = (
            _foreign_type(value, release, shown)
            for value in (*node.input_types, *node.output_types)
            if value is not None
        )
        found = next((reason for reason in reasons if reason is not None), None)
        if found is not None or node.op == "Cast":
            return found or _cast(node)
        position = _TYPED_BY.get(node.op, 0)
        if node.op in _UNTYPED or position >= len(node.input_types):
            return None
        value = node.input_types[position]
        return None if value is None else _other_kind(node.op, value, release, shown)

    def fits_the_parameters(node: NodeFacts) -> str | None:
        check = _CHECKS.get(node.op)
        return None if check is None else check(node, release)

    return (knows_the_op, takes_the_types, fits_the_parameters)


def _foreign_type(value: TensorInfo, release: tuple[int, ...], shown: str) -> str | None:
    """Say why no layer at all takes a value."""
    if value.dtype == "float64":
        return f"{value.name} is float64, which TensorRT narrows to float32"
    if value.dtype == "bfloat16" and release[0] < 9:
        return f"{value.name} is bfloat16, which {shown} does not have"
    if len(value.shape) > _MOST_RANK:
        return f"{value.name} has {len(value.shape)} dimensions (at most {_MOST_RANK})"
    return None


def _other_kind(op: str, value: TensorInfo, release: tuple[int, ...], shown: str) -> str | None:
    """Say why an operator does not take a value by which its types go."""
    if not value.dtype:
        return None
    kind = _KINDS.get(value.dtype)
    if kind is None:
        return f"{value.name} is {value.dtype}, which no layer of TensorRT takes"
    kinds = support_of(op, release).kinds
    if kind in kinds:
        return None
    taken = ", ".join(_KIND_NAMES[each] for each in kinds)
    return f"{value.name} is {value.dtype}; {shown} takes {op} of {taken} only"


def _cast(node: NodeFacts) -> str | None:
    for value in (*node.input_types, *node.output_types):
        if value is not None and value.dtype not in (*_KINDS, "uint8", ""):
            return f"{value.name} is {value.dtype}, to or from which TensorRT does not cast"
    return None


def _is_constant(node: NodeFacts, position: int) -> bool:
    """Say whether an input is constant, or not there."""
    given = position < len(node.inputs) and node.inputs[position] != ""
    known = position < len(node.constant_inputs) and node.constant_inputs[position]
    return not given or known


def _constant(position: int, called: str, *, gone_in: tuple[int, int] = (99, 0)) -> Check:
    """Demand a constant input, up to the release that takes any."""

    def check(node: NodeFacts, release: tuple[int, ...]) -> str | None:
        if release[:2] >= gone_in or _is_constant(node, position):
            return None
        return f"its {called} have to be known when it is built"

    return check


def _window(node: NodeFacts, _: tuple[int, ...]) -> str | None:
    kernel = node.ints.get("kernel_shape", ())
    if len(kernel) not in (2, 3):
        return f"a window of {len(kernel)} dimensions (2 or 3)"
    if any(step != 1 for step in node.ints.get("dilations", ())):
        return "a dilated window"
    if node.op == "MaxPool" and len(node.outputs) > 1 and node.outputs[1]:
        return "its second output, the indices, is not supported"
    return None


def _convolution(node: NodeFacts, _: tuple[int, ...]) -> str | None:
    rank = len(node.input_types[0].shape) if node.input_types[0] is not None else 0
    if rank and not 3 <= rank <= 5:
        return f"a convolution over {rank - 2} dimensions (1 to 3)"
    return None


def _resize(node: NodeFacts, _: tuple[int, ...]) -> str | None:
    mode = node.strings.get("mode", "nearest")
    if mode not in _MODES:
        return f"mode {mode} ({', '.join(_MODES)})"
    how = node.strings.get("coordinate_transformation_mode", "half_pixel")
    if how not in _COORDINATES:
        return f"coordinate transformation {how}"
    if node.ints.get("antialias", (0,))[0]:
        return "antialiasing"
    policy = node.strings.get("keep_aspect_ratio_policy", "stretch")
    return None if policy == "stretch" else f"aspect ratio policy {policy}"


def _recurrent(node: NodeFacts, _: tuple[int, ...]) -> str | None:
    for name in ("layout", "input_forget"):
        if node.ints.get(name, (0,))[0]:
            return f"attribute {name} is not 0"
    return None


def _first_output_only(node: NodeFacts, _: tuple[int, ...]) -> str | None:
    return "only its first output is supported" if any(node.outputs[1:]) else None


def _top_k(node: NodeFacts, release: tuple[int, ...]) -> str | None:
    if not node.ints.get("sorted", (1,))[0]:
        return "attribute sorted is 0"
    return _constant(1, "number of elements", gone_in=(8, 6))(node, release)


def _reduction(node: NodeFacts, release: tuple[int, ...]) -> str | None:
    how = node.strings.get("reduction", "none")
    taken = how == "none" or (node.op == "ScatterElements" and release[0] >= 10)
    return None if taken else f"reduction {how}"


def _einsum(node: NodeFacts, release: tuple[int, ...]) -> str | None:
    terms = node.strings.get("equation", "").partition("->")[0].split(",")
    if release[0] >= 10:
        return None
    odd = any("..." in t or len(set(t.strip())) < len(t.strip()) for t in terms)
    return "an ellipsis or a diagonal in its equation" if odd else None


def _pad(node: NodeFacts, release: tuple[int, ...]) -> str | None:
    mode = node.strings.get("mode", "constant")
    if mode == "wrap" and release[0] < 10:
        return "mode wrap"
    return _constant(1, "widths")(node, release)


def _quantize(node: NodeFacts, _: tuple[int, ...]) -> str | None:
    """Take int8 only: the zero point has to be 0, and that of uint8 is in practice not."""
    ends = node.output_types if node.op == "QuantizeLinear" else node.input_types[:1]
    for value in ends:
        if value is not None and value.dtype and value.dtype != "int8":
            return f"{value.name} is {value.dtype} (int8 with zero point 0)"
    return None


def _grid(node: NodeFacts, _: tuple[int, ...]) -> str | None:
    value = node.input_types[0] if node.input_types else None
    if value is not None and len(value.shape) not in (0, 4):
        return f"an input of {len(value.shape)} dimensions (4)"
    return None


_REDUCTIONS = (
    "L1",
    "L2",
    "LogSum",
    "LogSumExp",
    "Max",
    "Mean",
    "Min",
    "Prod",
    "Sum",
    "SumSquare",
)
_CHECKS: dict[str, Check] = {
    "AveragePool": _window,
    "MaxPool": _window,
    "LpPool": _window,
    "Conv": _convolution,
    "ConvTranspose": _convolution,
    "Resize": _resize,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
    "LayerNormalization": _first_output_only,
    "TopK": _top_k,
    "ScatterND": _reduction,
    "ScatterElements": _reduction,
    "Einsum": _einsum,
    "Pad": _pad,
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _quantize,
    "GridSample": _grid,
    "CumSum": _constant(1, "axis"),
    "OneHot": _constant(1, "depth"),
    "Squeeze": _constant(1, "axes"),
    "Unsqueeze": _constant(1, "axes"),
    "Slice": _constant(3, "axes"),
    **{f"Reduce{name}": _constant(1, "axes") for name in _REDUCTIONS},
}
