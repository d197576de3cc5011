"""LiteRT under whichever name a board has it: ai_edge_litert, tflite_runtime or tensorflow.

Options: ``threads``, ``delegate`` (``edgetpu``, ``ethosu``, ``vx``), ``delegate_device``
(``usb``, ``pci``). Quantized inputs and outputs travel as the raw integers they are.
"""

from __future__ import annotations

import importlib
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

from edge_agent.litertops import delegated, merge_places, spread_times, work_of
from edge_agent.runtimes.base import (
    OpRecord,
    Part,
    Profiling,
    RuntimeFailed,
    by_name_or_position,
    op_record,
    whole_number,
)

__all__ = ["load", "module_file", "version", "why_missing"]

_NAMES = ("ai_edge_litert.interpreter", "tflite_runtime.interpreter", "tensorflow.lite")
#: Delegates by name; a path never comes from a bundle. Names from the vendors' own documents:
#: https://coral.ai/docs/edgetpu/tflite-python and NXP's i.MX Machine Learning User's Guide.
_DELEGATES = {
    "edgetpu": "libedgetpu.so.1",
    "ethosu": "libethosu_delegate.so",
    "vx": "libvx_delegate.so",
}


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


def _resolvers(module: Any) -> Optional[Any]:
    """The choices of op resolvers, wherever this version keeps them."""
    found = getattr(module, "OpResolverType", None)
    return found or getattr(getattr(module, "experimental", None), "OpResolverType", None)


class LitertPart(Part):
    """An interpreter; one run sets the inputs, invokes, and copies the outputs out."""

    def __init__(self, path: str, part: Dict[str, Any], options: Dict[str, Any]) -> None:
        module, _ = _find()
        assert module is not None
        super().__init__(part)
        self._module = module
        self._path = path
        self._threads = whole_number(options, "threads")
        self._delegate = options.get("delegate")
        self._delegates = []
        if self._delegate is not None:
            if self._delegate not in _DELEGATES:
                raise RuntimeFailed("option delegate is {!r}".format(self._delegate))
            device = options.get("delegate_device")
            self._delegates.append(
                module.load_delegate(
                    _DELEGATES[self._delegate],
                    {} if device is None else {"device": str(device)},
                )
            )
        self._interpreter = self._make(model_path=path)
        self._interpreter.allocate_tensors()
        taken = self._interpreter.get_input_details()
        given = self._interpreter.get_output_details()
        order = by_name_or_position(self.input_names, [t["name"] for t in taken], "inputs")
        self._inputs = [taken[i] for i in order]
        order = by_name_or_position(self.output_names, [t["name"] for t in given], "outputs")
        self._outputs = [given[i]["index"] for i in order]
        self._shapes = [tuple(int(n) for n in detail["shape"]) for detail in self._inputs]

    def _make(self, *, only_ours: bool = False, **model: Any) -> Any:
        """Make an interpreter; ``only_ours`` leaves out the delegates LiteRT adds by itself.

        Raises:
            RuntimeFailed: This version cannot leave them out.
        """
        if only_ours:
            kinds = _resolvers(self._module)
            if kinds is None:
                raise RuntimeFailed("this version cannot leave out its own delegates")
            model["experimental_op_resolver_type"] = kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        return self._module.Interpreter(
            num_threads=self._threads or None,
            experimental_delegates=self._delegates or None,
            **model,
        )

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

    def profile(self, asked: Profiling) -> Tuple[List[OpRecord], str]:
        """The model's ops by who took them; times are differences (`edge_agent.litertops`)."""
        plain = self._make(model_path=self._path, only_ours=True)
        self._size(plain, asked.feeds)
        everything = self._interpreter._get_ops_details()
        ours = plain._get_ops_details()
        ops = [op for op in everything if op["op_name"] != "DELEGATE"]
        places = merge_places(
            delegated(ours) if self._delegates else {},
            delegated(everything),
            self._delegate,
            len(ops),
        )
        tensors = {int(t["index"]): t for t in self._interpreter.get_tensor_details()}
        shapes = {index: [int(n) for n in t["shape"]] for index, t in tensors.items()}
        del plain
        whole_us = self._best_us(self._interpreter, asked.feeds, asked)
        with open(self._path, "rb") as stream:
            model = stream.read()

        def time_model(shortened: bytes) -> Optional[float]:
            try:
                interpreter = self._make(model_content=shortened)
                self._size(interpreter, asked.feeds)
                return self._best_us(interpreter, asked.feeds, asked)
            except (ValueError, RuntimeError):
                return None

        spent = spread_times(
            model,
            [where for where, _ in places],
            work=[work_of(op, shapes) for op in ops],
            whole_us=whole_us,
            time_model=time_model,
            deadline=asked.deadline,
        )
        records = []
        for op, (where, accelerator), us in zip(ops, places, spent):
            names = [tensors.get(int(t), {}).get("name", "") for t in op["outputs"]]
            taken = [tensors[int(t)] for t in op["inputs"] if int(t) in tensors]
            kind = taken[0]["dtype"] if taken else None
            records.append(
                op_record(
                    op["op_name"],
                    ",".join(names),
                    where,
                    accelerator=accelerator,
                    us=us,
                    derived=True,
                    precision=None if kind is None else getattr(kind, "__name__", str(kind)),
                )
            )
        return records, "differences between the times of the model's beginnings"

    def _size(self, interpreter: Any, arrays: List[Any]) -> None:
        """Give an interpreter of the same model the shapes and the memory for a run."""
        for detail, array in zip(self._inputs, arrays):
            if tuple(int(n) for n in detail["shape"]) != array.shape:
                interpreter.resize_tensor_input(detail["index"], array.shape)
        interpreter.allocate_tensors()

    def _best_us(self, interpreter: Any, arrays: List[Any], asked: Profiling) -> float:
        """The shortest run in microseconds: differences of medians drown in noise."""
        for detail, array in zip(self._inputs, arrays):
            interpreter.set_tensor(detail["index"], array)
        best = 0
        for number in range(1 + asked.runs):
            start = time.perf_counter_ns()
            interpreter.invoke()
            spent = time.perf_counter_ns() - start
            best = spent if number < 2 else min(best, spent)
            if time.monotonic() > asked.deadline:
                break
        return best / 1e3

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
