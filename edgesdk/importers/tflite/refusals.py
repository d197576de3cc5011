"""Say why an operator is not converted, and what to do instead."""

from __future__ import annotations

from edgesdk.importers.tflite.held import CannotConvert
from edgesdk.model.tflite_graph import TfliteOp

__all__ = ["refusal_of"]

_FLOW = {"IF", "WHILE", "CALL_ONCE", "CALL", "STABLEHLO_WHILE", "STABLEHLO_CASE"}
_STATE = {
    "VAR_HANDLE",
    "READ_VARIABLE",
    "ASSIGN_VARIABLE",
    "SVDF",
    "RNN",
    "LSTM",
    "HASHTABLE",
    "HASHTABLE_FIND",
    "HASHTABLE_IMPORT",
    "HASHTABLE_SIZE",
}
_RANDOM = {"RANDOM_UNIFORM", "RANDOM_STANDARD_NORMAL", "MULTINOMIAL"}
_ORIGIN = "deploy the file as it is to a target with a TFLite runtime"
#: By custom operator: what it is, and what to do.
_CUSTOM = {
    "edgetpu-custom-op": (
        "it holds what a compiler made for an Edge TPU",
        "give the .tflite file that edgetpu_compiler read",
    ),
    "ethos-u": (
        "it holds what a compiler made for an Ethos-U",
        "give the .tflite file that the compiler read",
    ),
    "TFLite_Detection_PostProcess": (
        "it is a custom operator that decodes boxes and drops overlapping ones",
        "export the detector without it, and do that step on raw boxes and scores; or "
        + _ORIGIN,
    ),
}


def refusal_of(op: TfliteOp) -> CannotConvert:
    """Make the refusal of an operator that nobody converts."""
    if op.is_custom:
        return _custom(op.name)
    if op.name in _FLOW:
        return CannotConvert(
            "it runs other graphs of the file, which are not converted",
            hint="give the model that the file was made from; or " + _ORIGIN,
        )
    if op.name in _STATE:
        return CannotConvert(
            "it keeps a state from one run to the next, which an ONNX graph does not",
            hint="export the model with its state as an input and an output; or " + _ORIGIN,
        )
    if op.name in _RANDOM:
        return CannotConvert(
            "it draws random numbers", hint="take it out before you convert to TFLite"
        )
    return CannotConvert(
        "it is not converted", hint="give the model that the file was made from; or " + _ORIGIN
    )


def _custom(name: str) -> CannotConvert:
    if name in _CUSTOM:
        reason, hint = _CUSTOM[name]
        return CannotConvert(reason, hint=hint)
    if name.startswith("Flex"):
        return CannotConvert(
            f"it is TensorFlow's {name[4:]}, which runs only inside TensorFlow",
            hint="convert to TFLite again with built-in operators only (TFLITE_BUILTINS)",
        )
    return CannotConvert(
        "it is a custom operator, and the file does not say what it computes",
        hint="cut the model in front of it when you export; or " + _ORIGIN,
    )
