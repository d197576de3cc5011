"""OpenVINO: reads its own IR (.xml with .bin) and ONNX files.

Options: ``device`` (default CPU; also GPU, NPU, ``AUTO:NPU,CPU``, ``HETERO:NPU,CPU``),
``threads``, ``takes_turns`` (its threads are not tied to cores, which other parts use in
between), ``cache`` (whether to keep the compiled blob on the device; for the CPU, which
compiles in moments and whose blob is another copy of the weights, only where it is true).

On the CPU the arithmetic is held at float32 where the model is float32: recent CPUs would
otherwise take bfloat16 by themselves, and the check vectors with it. `describe` says what the
CPU would have taken.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import os
import platform
from typing import Any, Callable, Dict, List, Optional, Tuple

from edge_agent.blobcache import cache_folder, file_sha256, open_folder, seal, tidy
from edge_agent.openvinoops import collect_ops, count_places
from edge_agent.runtimes.base import (
    OpRecord,
    Part,
    Profiling,
    RuntimeFailed,
    by_name_or_position,
    whole_number,
)

__all__ = ["load", "module_file", "version", "why_missing"]

_MODES = ("AUTO", "HETERO", "MULTI")
#: Devices that take fixed shapes only:
#: https://docs.openvino.ai/2026/openvino-workflow/running-inference/inference-devices-and-modes/npu-device.html
_FIXED_SHAPES = ("NPU",)
_PINNING = "ENABLE_CPU_PINNING"
#: AUTO's own way, until another device has compiled: what is checked would not be what serves,
#: and that device's blob would come after the seal.
_STARTS_ON_CPU = "ENABLE_STARTUP_FALLBACK"
_CPU_SETTINGS = {"INFERENCE_PRECISION_HINT": "f32"}


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

    def __init__(self, files: List[str], part: Dict[str, Any], options: Dict[str, Any]) -> None:
        import openvino

        super().__init__(part)
        self._files = files
        self._device = str(options.get("device", "CPU"))
        self._core = openvino.Core()
        self._devices = _named_devices(self._device, self._core)
        _check_devices(self._core, self._device, self._devices)
        self._settings = self._make_settings(options)
        self._from_cache = None  # type: Optional[bool]
        self._rebuilt = False
        model = self._core.read_model(files[0])
        if any(_family(name) in _FIXED_SHAPES for name in self._devices):
            _fix_shapes(model, part, self._device)
        self._compiled = self._compile(model, options)
        self._assigned = count_places(self._core, model, self._device)
        self._request = self._compiled.create_infer_request()
        self._inputs = by_name_or_position(
            self.input_names, _all_names(self._compiled.inputs, self.input_names), "inputs"
        )
        self._outputs = by_name_or_position(
            self.output_names, _all_names(self._compiled.outputs, self.output_names), "outputs"
        )
        self._sharing = _sharing(self._request)  # type: Optional[Callable[..., Any]]

    def _make_settings(self, options: Dict[str, Any]) -> Dict[str, Any]:
        settings = {"PERFORMANCE_HINT": "LATENCY"}  # type: Dict[str, Any]
        if self._device == "CPU":
            settings.update(_CPU_SETTINGS)
            threads = whole_number(options, "threads")
            if threads:
                settings["INFERENCE_NUM_THREADS"] = threads
            if options.get("takes_turns") and self._knows(_PINNING, "CPU"):
                settings[_PINNING] = False
        elif "CPU" in self._devices:
            settings["DEVICE_PROPERTIES"] = {"CPU": dict(_CPU_SETTINGS)}
        mode = self._device.partition(":")[0]
        if mode == "AUTO" and self._knows(_STARTS_ON_CPU, mode):
            settings[_STARTS_ON_CPU] = False
        return settings

    def _knows(self, name: str, device: str) -> bool:
        return name in (_property(self._core, "SUPPORTED_PROPERTIES", device) or [])

    def _compile(self, model: Any, options: Dict[str, Any]) -> Any:
        """Compile, from the blob of an earlier time where nothing changed since.

        Where nothing can be kept, on a full disk say, it is compiled all the same.
        """
        root = options.get("cache_dir")
        if root is None or not options.get("cache", self._device != "CPU"):
            return self._core.compile_model(model, self._device, self._settings)
        shapes = [str(value.partial_shape) for value in model.inputs]
        fixed = [file_sha256(self._files), repr(sorted(self._settings.items())), shapes]
        try:
            folder = cache_folder(root, _made_by(self._core, self._devices), _digest(fixed))
            tidy(root, folder)
            self._rebuilt = open_folder(folder)
        except OSError:
            return self._core.compile_model(model, self._device, self._settings)
        settings = dict(self._settings, CACHE_DIR=folder)
        compiled = self._core.compile_model(model, self._device, settings)
        self._from_cache = bool(_property(compiled, "LOADED_FROM_CACHE"))
        seal(folder)
        tidy(root, folder)
        return compiled

    def prepare(self, values: Dict[str, Any]) -> Dict[int, Any]:
        """Arrays by the number of the input."""
        from edge_agent.runtimes.arrays import to_array

        return {
            number: to_array(values[name])
            for name, number in zip(self.input_names, self._inputs)
        }

    def bind(self, feeds: Any) -> Tuple[Callable[..., Any], Tuple[Any, ...]]:
        """``request.infer(feeds)``, which takes inputs and gives outputs where they lie."""
        return self._sharing or self._request.infer, (feeds,)

    def named(self, result: Any) -> Dict[str, Any]:
        """Outputs by their number; they are the request's own until its next run."""
        numbers = zip(self.output_names, self._outputs)
        if self._sharing is None:
            return {name: result[number] for name, number in numbers}
        # the same memory, without the dictionary that is made for the first one asked for
        tensor = self._request.get_output_tensor
        return {name: tensor(number).data for name, number in numbers}

    def twin(self) -> Optional[Part]:
        """The same compiled model with a request of its own."""
        other = copy.copy(self)
        other._request = self._compiled.create_infer_request()
        other._sharing = _sharing(other._request)
        return other

    def describe(self) -> Dict[str, Any]:
        """The device asked for, the ones that run it, threads and precision where known."""
        found = {"device": self._device}  # type: Dict[str, Any]
        for key, name in (
            ("execution_devices", "EXECUTION_DEVICES"),
            ("threads", "INFERENCE_NUM_THREADS"),
            ("precision", "INFERENCE_PRECISION_HINT"),
        ):
            value = _property(self._compiled, name)
            if value is not None:
                found[key] = value
        if "CPU" in self._devices:
            told = _property_of(self._compiled, "CPU", "INFERENCE_PRECISION_HINT")
            if told is not None:
                found.setdefault("precision", told)
            found["default_precision"] = _property(
                self._core, "INFERENCE_PRECISION_HINT", "CPU"
            )
        if self._assigned:
            found["assignment"] = self._assigned
        if self._from_cache is not None:
            found["from_cache"] = self._from_cache
        if self._rebuilt:
            found["cache_rebuilt"] = True
        return found

    def profile(self, asked: Profiling) -> Tuple[List[OpRecord], str]:
        """Ops of the runtime model with the counters of a second, counting compilation."""
        model = self._core.read_model(self._files[0])
        for name, value in zip(model.inputs, self._compiled.inputs):
            if value.partial_shape.is_static and not name.partial_shape.is_static:
                taken = [list(each.shape) for each in self._compiled.inputs]
                model.reshape(dict(enumerate(taken)))
                break
        settings = dict(self._settings, PERF_COUNT=True)
        compiled = self._core.compile_model(model, self._device, settings)
        return collect_ops(self._core, model, compiled, self._device, asked)


def _sharing(request: Any) -> Optional[Callable[..., Any]]:
    """``request.infer`` without copies, or None where this version cannot leave them out."""
    try:
        known = inspect.signature(request.infer).parameters
    except (TypeError, ValueError):
        return None
    if "share_inputs" not in known or "share_outputs" not in known:
        return None

    def infer(feeds: Any) -> Any:
        return request.infer(feeds, share_inputs=True, share_outputs=True)

    return infer


def _digest(values: Any) -> str:
    """Hash plain values."""
    return hashlib.sha256(repr(values).encode("utf-8")).hexdigest()


def _family(device: str) -> str:
    return device.split(".", maxsplit=1)[0].split("(", maxsplit=1)[0]


def _named_devices(device: str, core: Any) -> List[str]:
    """The devices a name stands for, best first: ``HETERO:NPU,CPU`` for two.

    A mode without a list stands for all there are but those that take fixed shapes only, which
    OpenVINO wants to be asked for by name.
    """
    mode, _, listed = device.partition(":")
    if mode not in _MODES:
        return [device]
    names = [name.strip() for name in listed.split(",") if name.strip()]
    if names:
        return names
    there = [str(name) for name in core.available_devices]
    return [name for name in there if _family(name) not in _FIXED_SHAPES]


def _check_devices(core: Any, device: str, devices: List[str]) -> None:
    available = [str(name) for name in core.available_devices]
    families = {_family(name) for name in available}
    missing = [name for name in devices if _family(name) not in families]
    if missing:
        raise RuntimeFailed(
            "OpenVINO sees no device {}{} here (it sees {})".format(
                missing[0],
                "" if missing[0] == device else " of {}".format(device),
                ", ".join(available) or "none",
            )
        )


def _fix_shapes(model: Any, part: Dict[str, Any], device: str) -> None:
    """Give every extent a number: the manifest's, else 1 for a leading one.

    Raises:
        RuntimeFailed: An extent stays unknown.
    """
    wanted = {value["name"]: value.get("shape") for value in part["inputs"]}
    names = _all_names(model.inputs, list(wanted))
    shapes = {}
    for number, (name, value) in enumerate(zip(names, model.inputs)):
        shape = value.partial_shape
        if shape.is_static:
            continue
        asked = wanted.get(name)
        extents = []
        for position, extent in enumerate(shape):
            given = asked[position] if asked and position < len(asked) else None
            if extent.is_static:
                extents.append(extent.get_length())
            elif type(given) is int and given > 0:
                extents.append(given)
            elif position == 0:
                extents.append(1)
            else:
                raise RuntimeFailed(
                    "{} takes fixed shapes only, and extent {} of input {!r} has none".format(
                        device, position, name
                    )
                )
        shapes[number] = extents
    if shapes:
        model.reshape(shapes)
    for value in model.outputs:
        if not value.partial_shape.is_static:
            raise RuntimeFailed(
                "{} takes fixed shapes only, and output {!r} has the shape {}".format(
                    device, next(iter(sorted(value.get_names())), ""), value.partial_shape
                )
            )


def _made_by(core: Any, devices: List[str]) -> Dict[str, Any]:
    """All that a compiled blob rests on beside the model: versions, devices, their drivers."""
    import openvino

    found = {
        "openvino": str(openvino.get_version()),
        "machine": platform.machine(),
    }  # type: Dict[str, Any]
    if any(_family(name) != "CPU" for name in devices):
        found["kernel"] = platform.release()  # drivers are part of it
    for device in devices:
        told = {"name": _property(core, "FULL_DEVICE_NAME", device)}
        for name in sorted(_property(core, "SUPPORTED_PROPERTIES", device) or []):
            if name.endswith(("_VERSION", "_ARCHITECTURE")) or "DRIVER" in name:
                told[name] = _property(core, name, device)
        for module in ("intel_vpu", "i915", "xe"):
            path = os.path.join("/sys/module", module, "srcversion")
            if _family(device) != "CPU" and os.path.exists(path):
                with open(path, encoding="ascii", errors="replace") as stream:
                    told[module] = stream.read(200).strip()
        found[device] = told
    return found


def _property(thing: Any, name: str, *device: str) -> Any:
    """A property as plain data, or None where it is not offered."""
    try:
        value = thing.get_property(*device, name)
    except Exception:  # noqa: BLE001 - devices differ in what they answer
        return None
    if isinstance(value, dict):
        return [str(item) for item in value]
    if isinstance(value, (list, tuple, set)):
        return [str(item) for item in value]
    if isinstance(value, (bool, int, str)):
        return value
    return getattr(value, "get_type_name", lambda: str(value))()


def _property_of(compiled: Any, device: str, name: str) -> Any:
    """What a device of several was told, as plain data, or None where it is not offered."""
    try:
        value = compiled.get_property("DEVICE_PROPERTIES")[device][name]
    except Exception:  # noqa: BLE001 - devices differ in what they answer
        return None
    return getattr(value, "get_type_name", lambda: str(value))()


def _all_names(values: List[Any], wanted: List[str]) -> List[str]:
    """One name per value: the wanted one where a value goes by several."""
    found = []
    for value in values:
        names = value.get_names()
        hits = [name for name in wanted if name in names]
        found.append(hits[0] if hits else next(iter(sorted(names)), ""))
    return found


def load(files: List[str], part: Dict[str, Any], options: Dict[str, Any]) -> Part:
    """Read and compile the model file for the device; weights lie beside it."""
    return OpenvinoPart(files, part, options)
