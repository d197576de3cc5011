"""onnxruntime, from 1.14 on. Options: ``provider``, ``threads``, ``graph_optimization``."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional, Tuple

from edge_agent.runtimes.base import Part, RuntimeFailed, whole_number

__all__ = ["load", "module_file", "version", "why_missing"]

_CPU = "CPUExecutionProvider"
_ERRORS_ONLY = 3
#: https://github.com/microsoft/onnxruntime, onnxruntime_session_options_config_keys.h
_RECORD_ASSIGNMENT = "session.record_ep_graph_assignment_info"
_LEVELS = {
    "disabled": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}


def why_missing() -> Optional[str]:
    """Say why it cannot be imported, or None."""
    try:
        import onnxruntime

        onnxruntime.InferenceSession  # noqa: B018 - a half-removed wheel imports as an empty folder
    except Exception as exc:  # noqa: BLE001 - a broken wheel may raise anything
        return "{}: {}".format(type(exc).__name__, exc)
    return None


def version() -> str:
    """The installed version."""
    import onnxruntime

    return str(onnxruntime.__version__)


def module_file() -> str:
    """Where it is installed."""
    import onnxruntime

    return str(onnxruntime.__file__)


class OnnxPart(Part):
    """An inference session."""

    def __init__(self, path: str, part: Dict[str, Any], options: Dict[str, Any]) -> None:
        import onnxruntime

        super().__init__(part)
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = _ERRORS_ONLY
        self._threads = whole_number(options, "threads")
        if self._threads:
            settings.intra_op_num_threads = self._threads
        level = options.get("graph_optimization", "all")
        if level not in _LEVELS:
            raise RuntimeFailed("option graph_optimization is {!r}".format(level))
        settings.graph_optimization_level = getattr(
            onnxruntime.GraphOptimizationLevel, _LEVELS[level]
        )
        settings.add_session_config_entry(_RECORD_ASSIGNMENT, "1")
        provider = str(options.get("provider", _CPU))
        available = onnxruntime.get_available_providers()
        if provider not in available:
            raise RuntimeFailed(
                "this onnxruntime has no {} (it has {})".format(provider, ", ".join(available))
            )
        providers = [provider] if provider == _CPU else [provider, _CPU]
        self._session = onnxruntime.InferenceSession(path, settings, providers=providers)
        offered = {value.name for value in self._session.get_inputs()}
        missing = [name for name in self.input_names if name not in offered]
        if missing:
            raise RuntimeFailed("the model has no input {!r}".format(missing[0]))

    def prepare(self, values: Dict[str, Any]) -> Dict[str, Any]:
        """Named arrays."""
        from edge_agent.runtimes.arrays import to_array

        return {name: to_array(values[name]) for name in self.input_names}

    def bind(self, feeds: Any) -> Tuple[Callable[..., Any], Tuple[Any, ...]]:
        """``session.run(output_names, feeds)``, nothing around it."""
        return self._session.run, (self.output_names, feeds)

    def named(self, result: Any) -> Dict[str, Any]:
        """Outputs come in the order asked for."""
        return dict(zip(self.output_names, result))

    def _assignment(self) -> Optional[Dict[str, int]]:
        """How many nodes each provider took; None where this version does not tell."""
        try:
            found = {}  # type: Dict[str, int]
            for graph in self._session.get_provider_graph_assignment_info():
                found[graph.ep_name] = found.get(graph.ep_name, 0) + len(graph.get_nodes())
            return found
        except Exception:  # noqa: BLE001 - offered since 1.24, and not by every provider
            return None

    def describe(self) -> Dict[str, Any]:
        """Providers in order, threads (None: the runtime's choice), nodes by provider."""
        return {
            "providers": list(self._session.get_providers()),
            "threads": self._threads or None,
            "assignment": self._assignment(),
        }


def load(files: List[str], part: Dict[str, Any], options: Dict[str, Any]) -> Part:
    """Make a session from the model file; external data lies beside it."""
    return OnnxPart(files[0], part, options)
