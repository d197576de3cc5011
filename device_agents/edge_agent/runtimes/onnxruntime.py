"""onnxruntime, from 1.14 on.

Options: ``provider``, ``threads``, ``graph_optimization``, ``as_written`` (what a Q/DQ graph
leaves in float stays in float: so a graph laid out for another runtime gives its numbers here),
``takes_turns`` (its threads stop waiting for work actively once a run is over).
"""

from __future__ import annotations

import os
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

from edge_agent.onnxtrace import is_accelerator, read_trace
from edge_agent.runtimes.base import (
    OpRecord,
    Part,
    Profiling,
    RuntimeFailed,
    op_record,
    whole_number,
)

__all__ = ["load", "module_file", "version", "why_missing"]

_CPU = "CPUExecutionProvider"
_ERRORS_ONLY = 3
#: Newer releases give float weights and biases behind a DequantizeLinear 8 and 32 bits of their
#: own with it (seen in 1.32, not in 1.19), which a graph for onnxruntime's kernels never has.
_NOT_AS_WRITTEN = ["WeightBiasQuantization"]
#: An event of a node takes up to a thousand bytes of a trace.
_MAX_EVENTS = 20_000
#: https://github.com/microsoft/onnxruntime, onnxruntime_session_options_config_keys.h
_RECORD_ASSIGNMENT = "session.record_ep_graph_assignment_info"
_STOP_SPINNING = "session.force_spinning_stop"
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
        super().__init__(part)
        self._path = path
        self._options = options
        self._session = self._make_session()
        offered = {value.name for value in self._session.get_inputs()}
        missing = [name for name in self.input_names if name not in offered]
        if missing:
            raise RuntimeFailed("the model has no input {!r}".format(missing[0]))

    def _make_session(self, trace: str = "") -> Any:
        """Make a session; one that writes a trace begins its file's name with ``trace``."""
        import onnxruntime

        options = self._options
        settings = onnxruntime.SessionOptions()
        if trace:
            settings.enable_profiling = True
            settings.profile_file_prefix = trace
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
        if options.get("takes_turns"):
            settings.add_session_config_entry(_STOP_SPINNING, "1")
        provider = str(options.get("provider", _CPU))
        available = onnxruntime.get_available_providers()
        if provider not in available:
            raise RuntimeFailed(
                "this onnxruntime has no {} (it has {})".format(provider, ", ".join(available))
            )
        return onnxruntime.InferenceSession(
            self._path,
            settings,
            providers=[provider] if provider == _CPU else [provider, _CPU],
            disabled_optimizers=_NOT_AS_WRITTEN if options.get("as_written") is True else None,
        )

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

    def twin(self) -> Optional[Part]:
        """Itself: a session may be run by several threads at once."""
        return self

    def _assigned(self) -> Optional[List[Tuple[str, str, str]]]:
        """Op, name and provider of each node; None where this version does not tell."""
        try:
            return [
                (node.op_type, node.name, graph.ep_name)
                for graph in self._session.get_provider_graph_assignment_info()
                for node in graph.get_nodes()
            ]
        except Exception:  # noqa: BLE001 - offered since 1.24, and not by every provider
            return None

    def _assignment(self) -> Optional[Dict[str, int]]:
        """How many nodes each provider took."""
        assigned = self._assigned()
        if assigned is None:
            return None
        found = {}  # type: Dict[str, int]
        for _, _, provider in assigned:
            found[provider] = found.get(provider, 0) + 1
        return found

    def profile(self, asked: Profiling) -> Tuple[List[OpRecord], str]:
        """Nodes as a second session's trace has them: after fusing, with their providers."""
        assigned = self._assigned() or []
        session = self._make_session(os.path.join(asked.folder, "trace"))
        runs = max(2, min(asked.runs, _MAX_EVENTS // max(1, len(assigned))))
        for done in range(1 + runs):
            session.run(self.output_names, asked.feeds)
            if done and time.monotonic() > asked.deadline:
                break
        records = read_trace(session.end_profiling())
        if records:
            return records, "onnxruntime's profile of {} runs".format(done)
        return [
            op_record(op, name, provider, accelerator=is_accelerator(provider))
            for op, name, provider in assigned
        ], "onnxruntime's record of the graph assignment, without times"

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
