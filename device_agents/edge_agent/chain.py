"""The parts of a bundle in their order, as one thing to run and to measure. Worker only."""

from __future__ import annotations

import os
import time
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from edge_agent import runtimes
from edge_agent.loops import Call, Measurement, measure_one_stream
from edge_agent.pacing import Pace
from edge_agent.runtimes.base import Part, RawTensor, RuntimeFailed
from edgesdk.wire.limits import MAX_SAMPLES
from edgesdk.wire.manifest import part_file_name

__all__ = ["Chain", "RuntimeGone", "find_runtime", "options_of"]

_MAX_REASON = 600


class RuntimeGone(Exception):
    """A runtime that a part needs cannot be imported here."""

    def __init__(self, runtime: str, why: str) -> None:
        super().__init__(why)
        self.runtime = runtime


def find_runtime(name: str) -> Any:
    """Give the module of a runtime.

    Raises:
        RuntimeGone: This agent has none of that name, or its library is not installed.
    """
    module = runtimes.find(name)
    if module is None:
        raise RuntimeGone(name, "this agent knows no runtime {!r}".format(name))
    why = module.why_missing()
    if why is not None:
        raise RuntimeGone(name, why)
    return module


def options_of(
    record: Dict[str, Any],
    threads: Optional[int],
    cache_dir: Optional[str],
    *,
    alone: bool = True,
) -> Dict[str, Any]:
    """Give a part's options, with what the host and the agent add.

    ``takes_turns`` is set where other parts run in the same process, one after the other:
    threads that wait actively for their next call take the processor from whose turn it is.
    """
    options = dict(record["options"])
    if threads is not None:
        options["threads"] = threads
    options["takes_turns"] = not alone
    options.pop("cache_dir", None)  # ours to say, not a bundle's
    if cache_dir is not None:
        options["cache_dir"] = os.path.join(cache_dir, record["runtime"])
    return options


def _reason(way: Dict[str, Any], why: str) -> str:
    """Say in one line why a part does not run with a runtime."""
    return "{} ({}): {}".format(way.get("backend") or "?", way["runtime"], why)[:_MAX_REASON]


def _with_spare(
    way: Dict[str, Any], files: List[str], index: int
) -> Tuple[Dict[str, Any], List[str]]:
    """Give a way the files that a part has besides, which lie beside its own."""
    spare = way["spare_files"]
    folder = os.path.dirname(files[0])
    names = [part_file_name(index, role, spare["format"]) for role in spare["roles"]]
    way = dict(way, roles=spare["roles"], sha256=spare["sha256"])
    return way, [os.path.join(folder, name) for name in names]


def _nobody(way: int, runtime: str) -> None:
    """Tell nobody."""


def _is_open(record: Dict[str, Any]) -> bool:
    """Say whether a part leaves the first extent of all it takes and gives open."""
    shapes = [value.get("shape") for value in record["inputs"] + record["outputs"]]
    return all(shape and type(shape[0]) is not int for shape in shapes)


def _stacked(vectors: List[Dict[str, RawTensor]]) -> Dict[str, RawTensor]:
    """Give several vectors as one, along the first extent."""
    found = {}
    for name, first in vectors[0].items():
        values = [vector[name] for vector in vectors]
        if any(value.shape[1:] != first.shape[1:] for value in values):
            raise RuntimeFailed("the inputs {!r} are of several shapes".format(name))
        shape = [sum(value.shape[0] for value in values)] + first.shape[1:]
        found[name] = RawTensor(first.dtype, shape, b"".join(v.data for v in values))
    return found


def _each(calls: List[Call]) -> None:
    """Make several calls, one after the other."""
    for function, arguments in calls:
        function(*arguments)


class Chain:
    """Loaded parts. Values go from part to part by tensor name.

    Args:
        inputs: Names of what it takes.
        outputs: Names of what it gives.
        count: How many parts it will have.
    """

    def __init__(self, inputs: List[str], outputs: List[str], count: int = 1) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self._alone = count == 1
        self.parts = []  # type: List[Part]
        self.records = []  # type: List[Dict[str, Any]]
        self.module_files = []  # type: List[str]
        #: Whether every part takes several inferences in one call.
        self.is_open = True
        self._loads = []  # type: List[Callable[[], Part]]

    def load(
        self,
        record: Dict[str, Any],
        files: List[str],
        threads: Optional[int],
        cache_dir: Optional[str] = None,
        *,
        failed: Sequence[str] = (),
        trying: Callable[[int, str], None] = _nobody,
    ) -> None:
        """Load the next part with its own runtime, else with the first fallback that can.

        Args:
            record: What the manifest says of it.
            files: Paths of its files.
            threads: How many the host asks for.
            cache_dir: Where runtimes have their folders, if anywhere.
            failed: Why its own runtime, then its fallbacks, failed in an earlier process; as
                many are passed by.
            trying: Told before each attempt which it is, from 0, and with what runtime.

        Raises:
            RuntimeGone: Its runtime is not installed for this Python, nor one of a fallback.
            RuntimeFailed: The runtime refuses it, and so do the fallbacks.
        """
        ways = [record] + [dict(record, **way) for way in record.get("fallbacks", [])]
        reasons = [_reason(ways[i], why) for i, why in enumerate(failed[: len(ways)])]
        gone = None  # type: Optional[RuntimeGone]
        for number, way in enumerate(ways):
            if number < len(reasons):
                continue
            trying(number, way["runtime"])
            try:
                self._load_with(way, files, threads, cache_dir, reasons)
            except Exception as exc:  # whatever a library raises, a fallback may do
                if len(ways) == 1:
                    raise
                gone = gone or (exc if isinstance(exc, RuntimeGone) else None)
                text = str(exc)
                if not isinstance(exc, (RuntimeGone, RuntimeFailed)):
                    text = "{}: {}".format(type(exc).__name__, exc)
                reasons.append(_reason(way, text))
            else:
                return
        if gone is not None:
            raise RuntimeGone(gone.runtime, "; ".join(reasons))
        raise RuntimeFailed("; ".join(reasons))

    def _load_with(
        self,
        way: Dict[str, Any],
        files: List[str],
        threads: Optional[int],
        cache_dir: Optional[str],
        reasons: List[str],
    ) -> None:
        name = way["runtime"]
        module = find_runtime(name)
        if way.get("spare"):
            way, files = _with_spare(way, files, len(self.records))
        options = options_of(way, threads, cache_dir, alone=self._alone)
        part = module.load(files, way, options)
        self._loads.append(lambda: module.load(files, way, options))
        self.is_open = self.is_open and _is_open(way)
        detail = part.describe()
        if reasons:
            detail = dict(detail, fell_back=list(reasons))
        self.parts.append(part)
        self.module_files.append(module.module_file())
        self.records.append(
            {
                "part": len(self.records),
                "runtime": name,
                "backend": way.get("backend"),
                "version": module.version(),
                "detail": detail,
            }
        )

    def twin(self) -> Chain:
        """Another chain of the same parts, that may run while this one does."""
        chain = Chain(self.inputs, self.outputs, len(self.parts))
        for part, load in zip(self.parts, self._loads):
            chain.parts.append(part.twin() or load())
        chain.records, chain.module_files = self.records, self.module_files
        chain._loads, chain.is_open = self._loads, self.is_open
        return chain

    def feeds(self, part: Part, values: Dict[str, Any]) -> Any:
        """What a part takes, out of all the values there are."""
        missing = [name for name in part.input_names if name not in values]
        if missing:
            raise RuntimeFailed("nothing gives the tensor {!r}".format(missing[0]))
        return part.prepare(values)

    def calls(self, vectors: List[Dict[str, RawTensor]], batch: int = 1) -> List[Call]:
        """Give the call of each vector, with that many inferences in each.

        One part: the runtime's own call. Several inferences are one call with longer tensors
        where the parts leave their first extent open, else one call after the other.
        """
        count = len(vectors)
        if batch > 1 and self.is_open:
            groups = [[vectors[(i + j) % count] for j in range(batch)] for i in range(count)]
            return self.calls([_stacked(group) for group in groups])
        found = []  # type: List[Call]
        for values in vectors:
            feeds = self.feeds(self.parts[0], values)
            one = self.parts[0].bind(feeds)
            found.append(one if len(self.parts) == 1 else (self._through, (values, feeds)))
        if batch == 1:
            return found
        return [
            (_each, ([found[(i + j) % count] for j in range(batch)],)) for i in range(count)
        ]

    def _through(self, vector: Dict[str, RawTensor], feeds: Any) -> None:
        """Run all parts, the first on what was prepared for it."""
        values = dict(vector)  # type: Dict[str, Any]
        for number, part in enumerate(self.parts):
            if number:
                feeds = part.prepare(values)
            function, arguments = part.bind(feeds)
            values.update(part.named(function(*arguments)))

    def run(self, inputs: Dict[str, RawTensor]) -> Tuple[Dict[str, Any], List[int]]:
        """Run every part once; give the bundle's outputs and nanoseconds per part."""
        values = dict(inputs)  # type: Dict[str, Any]
        spent = []
        for part in self.parts:
            feeds = self.feeds(part, values)
            function, arguments = part.bind(feeds)
            start = time.perf_counter_ns()
            result = function(*arguments)
            spent.append(time.perf_counter_ns() - start)
            values.update(part.named(result))
        missing = [name for name in self.outputs if name not in values]
        if missing:
            raise RuntimeFailed("no part gives the output {!r}".format(missing[0]))
        return {name: values[name] for name in self.outputs}, spent

    def measure(
        self,
        vectors: List[Dict[str, RawTensor]],
        *,
        warmup_runs: int,
        runs: int,
        duration_s: float,
        report: Callable[..., None],
    ) -> Measurement:
        """Run the vectors in turn until ``runs`` or ``duration_s`` is reached.

        The clock is read right before and right after the runtime's own call (one part), or
        around all parts with their hand-over (several). Garbage collection is off meanwhile.
        """
        warm_up = Pace(
            least=warmup_runs, most=warmup_runs, duration_ns=0, report=report, step="warm up"
        )
        pace = Pace(
            least=min(runs or MAX_SAMPLES, MAX_SAMPLES),
            most=MAX_SAMPLES,
            duration_ns=int(duration_s * 1e9),
            report=report,
            step="run",
        )
        return measure_one_stream(self, vectors, warm_up if warmup_runs else None, pace)
