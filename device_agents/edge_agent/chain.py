"""The parts of a bundle in their order, as one thing to run and to measure. Worker only."""

from __future__ import annotations

import array
import gc
import os
import time
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from edge_agent import runtimes
from edge_agent.runtimes.base import Part, RawTensor, RuntimeFailed
from edgesdk.wire.manifest import part_file_name

__all__ = ["Chain", "Measurement", "RuntimeGone", "find_runtime", "options_of"]

_BLOCK = 1 << 16
_REPORT_NS = 500_000_000
_MAX_REASON = 600
#: One reply holds eight bytes for each run.
MAX_SAMPLES = 4 << 20


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


class Measurement:
    """What one benchmark collected: nanoseconds per run, and per run and part.

    ``parts`` is what the runtimes' own calls took; ``samples`` are with all hand-over.
    """

    def __init__(self, limit: int, parts: int) -> None:
        first = min(limit, _BLOCK) if limit else _BLOCK
        self.samples = array.array("Q", bytes(8 * first))
        self.parts = [array.array("Q", bytes(8 * first)) for _ in range(parts)]
        self.runs = 0
        self.wall_ns = 0

    def grow(self) -> None:
        """Make room for another block."""
        for samples in [self.samples] + self.parts:
            samples.frombytes(bytes(8 * _BLOCK))

    def cut(self) -> None:
        """Drop what was not used."""
        for samples in [self.samples] + self.parts:
            del samples[self.runs :]


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

    def _feeds(self, part: Part, values: Dict[str, Any]) -> Any:
        missing = [name for name in part.input_names if name not in values]
        if missing:
            raise RuntimeFailed("nothing gives the tensor {!r}".format(missing[0]))
        return part.prepare(values)

    def run(self, inputs: Dict[str, RawTensor]) -> Tuple[Dict[str, Any], List[int]]:
        """Run every part once; give the bundle's outputs and nanoseconds per part."""
        values = dict(inputs)  # type: Dict[str, Any]
        spent = []
        for part in self.parts:
            feeds = self._feeds(part, values)
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
        report: Callable[[str, int, Optional[int]], None],
    ) -> Measurement:
        """Run the vectors in turn until ``runs`` or ``duration_s`` is reached.

        The clock is read right before and right after the runtime's own call (one part), or
        around all parts with their hand-over (several). Garbage collection is off meanwhile.
        """
        loop = self._measure_one if len(self.parts) == 1 else self._measure_all
        gc.collect()
        gc.disable()
        try:
            if warmup_runs:
                warm = Measurement(warmup_runs, len(self.parts))
                loop(vectors, warm, warmup_runs, 0, report=report, step="warm up")
            found = Measurement(runs, len(self.parts))
            stop_ns = int(duration_s * 1e9)
            limit = min(runs or MAX_SAMPLES, MAX_SAMPLES)
            loop(vectors, found, limit, stop_ns, report=report, step="run")
        finally:
            gc.enable()
        found.cut()
        if len(self.parts) == 1:
            found.parts = [found.samples]
        return found

    def _measure_one(
        self,
        vectors: List[Dict[str, RawTensor]],
        found: Measurement,
        limit: int,
        duration_ns: int,
        *,
        report: Callable[[str, int, Optional[int]], None],
        step: str,
    ) -> None:
        part = self.parts[0]
        bound = [part.bind(self._feeds(part, values)) for values in vectors]
        count = len(bound)
        clock = time.perf_counter_ns
        samples = found.samples
        total = limit if not duration_ns else None
        index = 0
        began = clock()
        stop = began + duration_ns if duration_ns else began + (1 << 62)
        tick = min(stop, began + _REPORT_NS)
        while index < limit:
            function, arguments = bound[index % count]
            if index == len(samples):
                found.grow()
            start = clock()
            function(*arguments)
            end = clock()
            samples[index] = end - start
            index += 1
            if end >= tick:
                if end >= stop:
                    break
                report(step, index, total)
                tick = min(stop, clock() + _REPORT_NS)
        found.runs = index
        found.wall_ns = clock() - began

    def _measure_all(
        self,
        vectors: List[Dict[str, RawTensor]],
        found: Measurement,
        limit: int,
        duration_ns: int,
        *,
        report: Callable[[str, int, Optional[int]], None],
        step: str,
    ) -> None:
        parts = self.parts
        first = [self._feeds(parts[0], values) for values in vectors]
        count = len(vectors)
        clock = time.perf_counter_ns
        total = limit if not duration_ns else None
        index = 0
        began = clock()
        stop = began + duration_ns if duration_ns else began + (1 << 62)
        tick = min(stop, began + _REPORT_NS)
        while index < limit:
            if index == len(found.samples):
                found.grow()
            values = dict(vectors[index % count])  # type: Dict[str, Any]
            feeds = first[index % count]
            start = clock()
            for number, part in enumerate(parts):
                if number:
                    feeds = part.prepare(values)
                function, arguments = part.bind(feeds)
                called = clock()
                result = function(*arguments)
                found.parts[number][index] = clock() - called
                values.update(part.named(result))
            last = clock()
            found.samples[index] = last - start
            index += 1
            if last >= tick:
                if last >= stop:
                    break
                report(step, index, total)
                tick = min(stop, clock() + _REPORT_NS)
        found.runs = index
        found.wall_ns = clock() - began
