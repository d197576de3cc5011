"""OpenVINO, which reads ONNX files as they are. Options: ``device`` (default CPU), ``threads``.

On the CPU the arithmetic is held at float32 where the model is float32: recent CPUs would
otherwise take bfloat16 by themselves, and the check vectors with it.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional, Tuple

from edge_agent.runtimes.base import Part, RuntimeFailed, by_name_or_position, whole_number

__all__ = ["load", "module_file", "version", "why_missing"]


def why_missing() -> Optional[str]:
    """Say why it cannot be imported, or None."""
    try:
        import openvino

        openvino.Core  # noqa: B018 - before 2023.1 the name was elsewhere
    except Exception as exc:  # noqa: BLE001 - a broken wheel may raise anything
        return "{}: {}".format(type(exc).__name__, exc)
    return None


def version() -> str:
    """The installed version, without the build's hash."""
    import openvino

    return str(openvino.__version__).split("-")[0]


def module_file() -> str:
    """Where it is installed."""
    import openvino

    return str(openvino.__file__)


class OpenvinoPart(Part):
    """A compiled model and one infer request."""

    def __init__(self, path: str, part: Dict[str, Any], options: Dict[str, Any]) -> None:
        import openvino

        super().__init__(part)
        self._device = str(options.get("device", "CPU"))
        core = openvino.Core()
        family = self._device.split(".")[0].split(":")[0]
        available = core.available_devices
        if not any(name.split(".")[0] == family for name in available) and family != "AUTO":
            raise RuntimeFailed(
                "OpenVINO sees no device {} here (it sees {})".format(
                    self._device, ", ".join(available)
                )
            )
        settings = {"PERFORMANCE_HINT": "LATENCY"}  # type: Dict[str, Any]
        if self._device == "CPU":
            settings["INFERENCE_PRECISION_HINT"] = "f32"
            threads = whole_number(options, "threads")
            if threads:
                settings["INFERENCE_NUM_THREADS"] = threads
        self._compiled = core.compile_model(core.read_model(path), self._device, settings)
        self._request = self._compiled.create_infer_request()
        self._inputs = by_name_or_position(
            self.input_names, _all_names(self._compiled.inputs, self.input_names), "inputs"
        )
        self._outputs = by_name_or_position(
            self.output_names, _all_names(self._compiled.outputs, self.output_names), "outputs"
        )

    def prepare(self, values: Dict[str, Any]) -> Dict[int, Any]:
        """Arrays by the number of the input."""
        from edge_agent.runtimes.arrays import to_array

        return {
            number: to_array(values[name])
            for name, number in zip(self.input_names, self._inputs)
        }

    def bind(self, feeds: Any) -> Tuple[Callable[..., Any], Tuple[Any, ...]]:
        """``request.infer(feeds)``, which copies inputs in and outputs out."""
        return self._request.infer, (feeds,)

    def named(self, result: Any) -> Dict[str, Any]:
        """Outputs by their number."""
        return {name: result[number] for name, number in zip(self.output_names, self._outputs)}

    def describe(self) -> Dict[str, Any]:
        """The device asked for, the ones that run it, threads and precision where known."""
        found = {"device": self._device}  # type: Dict[str, Any]
        for key, name in (
            ("execution_devices", "EXECUTION_DEVICES"),
            ("threads", "INFERENCE_NUM_THREADS"),
            ("precision", "INFERENCE_PRECISION_HINT"),
        ):
            try:
                value = self._compiled.get_property(name)
            except Exception:  # noqa: BLE001, S112 - devices differ in what they answer
                continue
            if isinstance(value, (list, tuple)):
                found[key] = [str(item) for item in value]
            elif isinstance(value, (int, str)):
                found[key] = value
            else:
                found[key] = getattr(value, "get_type_name", lambda v=value: str(v))()
        return found


def _all_names(values: List[Any], wanted: List[str]) -> List[str]:
    """One name per value: the wanted one where a value goes by several."""
    found = []
    for value in values:
        names = value.get_names()
        hits = [name for name in wanted if name in names]
        found.append(hits[0] if hits else next(iter(sorted(names)), ""))
    return found


def load(files: List[str], part: Dict[str, Any], options: Dict[str, Any]) -> Part:
    """Read and compile the model file for the device."""
    return OpenvinoPart(files[0], part, options)
