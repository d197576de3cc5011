"""LiteRT under whichever name a board has it: ai_edge_litert, tflite_runtime or tensorflow.

Options: ``threads``, ``delegate`` (``edgetpu``, ``vx``), ``delegate_device`` (``usb``,
``pci``). Quantized inputs and outputs travel as the raw integers they are.
"""

from __future__ import annotations

import importlib
from typing import Any, Callable, Dict, List, Optional, Tuple

from edge_agent.runtimes.base import Part, RuntimeFailed, by_name_or_position, whole_number

__all__ = ["load", "module_file", "version", "why_missing"]

_NAMES = ("ai_edge_litert.interpreter", "tflite_runtime.interpreter", "tensorflow.lite")
#: Delegates by name; a path never comes from a bundle. Names from the vendors' own documents:
#: https://coral.ai/docs/edgetpu/tflite-python and NXP's i.MX Machine Learning User's Guide.
_DELEGATES = {"edgetpu": "libedgetpu.so.1", "vx": "libvx_delegate.so"}


def _find() -> Tuple[Optional[Any], List[str]]:
    """The first module that imports, and why those before it did not."""
    reasons = []
    for name in _NAMES:
        try:
            module = importlib.import_module(name)
        except Exception as exc:  # noqa: BLE001 - a broken wheel may raise anything
            reasons.append("{}: {}".format(type(exc).__name__, exc))
            continue
        if hasattr(module, "Interpreter"):
            return module, reasons
    return None, reasons


def why_missing() -> Optional[str]:
    """Say why none of the three can be imported, or None."""
    module, reasons = _find()
    return None if module is not None else "; ".join(reasons)


def _package() -> Any:
    module, _ = _find()
    assert module is not None
    return importlib.import_module(module.__name__.split(".")[0])


def version() -> str:
    """Package and version, for example ``ai_edge_litert 1.2.0``."""
    package = _package()
    return "{} {}".format(package.__name__, getattr(package, "__version__", "unknown"))


def module_file() -> str:
    """Where it is installed."""
    return str(_package().__file__)


class LitertPart(Part):
    """An interpreter; one run sets the inputs, invokes, and copies the outputs out."""

    def __init__(self, path: str, part: Dict[str, Any], options: Dict[str, Any]) -> None:
        module, _ = _find()
        assert module is not None
        super().__init__(part)
        self._threads = whole_number(options, "threads")
        self._delegate = options.get("delegate")
        delegates = []
        if self._delegate is not None:
            if self._delegate not in _DELEGATES:
                raise RuntimeFailed("option delegate is {!r}".format(self._delegate))
            device = options.get("delegate_device")
            delegates.append(
                module.load_delegate(
                    _DELEGATES[self._delegate],
                    {} if device is None else {"device": str(device)},
                )
            )
        self._interpreter = module.Interpreter(
            model_path=path,
            num_threads=self._threads or None,
            experimental_delegates=delegates or None,
        )
        self._interpreter.allocate_tensors()
        taken = self._interpreter.get_input_details()
        given = self._interpreter.get_output_details()
        order = by_name_or_position(self.input_names, [t["name"] for t in taken], "inputs")
        self._inputs = [taken[i] for i in order]
        order = by_name_or_position(self.output_names, [t["name"] for t in given], "outputs")
        self._outputs = [given[i]["index"] for i in order]
        self._shapes = [tuple(int(n) for n in detail["shape"]) for detail in self._inputs]

    def prepare(self, values: Dict[str, Any]) -> List[Any]:
        """Arrays in the order of the inputs; other shapes than before resize the model."""
        from edge_agent.runtimes.arrays import to_array

        arrays = [to_array(values[name]) for name in self.input_names]
        shapes = [array.shape for array in arrays]
        if shapes != self._shapes:
            for detail, shape in zip(self._inputs, shapes):
                self._interpreter.resize_tensor_input(detail["index"], shape)
            self._interpreter.allocate_tensors()
            self._shapes = shapes
        return arrays

    def bind(self, feeds: Any) -> Tuple[Callable[..., Any], Tuple[Any, ...]]:
        """Set, invoke, get."""
        return self._call, (feeds,)

    def _call(self, arrays: List[Any]) -> List[Any]:
        interpreter = self._interpreter
        for detail, array in zip(self._inputs, arrays):
            interpreter.set_tensor(detail["index"], array)
        interpreter.invoke()
        return [interpreter.get_tensor(index) for index in self._outputs]

    def named(self, result: Any) -> Dict[str, Any]:
        """Outputs come in the order of their names."""
        return dict(zip(self.output_names, result))

    def _ops(self) -> Optional[Dict[str, int]]:
        """Ops by name as they will run: ``DELEGATE`` stands for what a delegate took."""
        try:
            found = {}  # type: Dict[str, int]
            for op in self._interpreter._get_ops_details():
                found[op["op_name"]] = found.get(op["op_name"], 0) + 1
            return found
        except Exception:  # noqa: BLE001 - not in every version
            return None

    def describe(self) -> Dict[str, Any]:
        """Delegate, threads (None: the runtime's choice), ops as they will run."""
        return {
            "delegate": self._delegate,
            "threads": self._threads or None,
            "ops": self._ops(),
        }


def load(files: List[str], part: Dict[str, Any], options: Dict[str, Any]) -> Part:
    """Make an interpreter from the model file."""
    return LitertPart(files[0], part, options)
