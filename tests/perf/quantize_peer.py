"""One quantizer, one model, in a process of its own: how long, how much memory, what came out.

    python quantize_peer.py TOOL MODEL_NAME SAMPLES OUT.onnx [warm]

Runs in the environment of the tool, so it needs numpy and the tool, nothing else. Prints one
JSON line; a tool that fails is a line with ``error``. The memory is the most the process had
resident, which includes what importing the tool takes; that share is given too. With ``warm``
the tool does a tiny model first, so that what it imports on the way is not timed: some import
everything at the start, some where it is needed.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from quantize_models import CACHE, Case, feeds, load_case

__all__ = ["LABELLED", "PEERS", "TOOLS", "peer_python"]

#: What the peers' environment is made of; they are compared at these versions.
REQUIREMENTS = ("onnxruntime==1.32.0", "nncf==3.4.0", "onnx==1.23.2")
#: What a tool may take; one that wants more fails alone and not with all that runs beside it.
MOST_BYTES = 16 * 2**30
#: Most labelled samples that an accuracy budget is kept on.
LABELLED = {"magika": 400, "ppocr_rec": 100}
#: How long nncf may look for what to keep in float; it starts the whole ranking anew each time.
BUDGET_S = 150
#: What warms a tool up: the smallest model, with two samples.
WARM_UP = "digits_mobile"
#: The tools we are measured against; ort-prepared is the best that onnxruntime can do by hand.
PEERS = ("ort-minmax", "ort-percentile", "ort-entropy", "nncf")

Sample = dict[str, np.ndarray]
Work = Callable[[Case, int, Path], dict[str, Any]]


def peer_python() -> str:
    """Give the interpreter of the peers' environment, made once."""
    folder = CACHE / "peers" / "venv"
    python = folder / "bin" / "python"
    stamp = folder / "requirements"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != " ".join(REQUIREMENTS):
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        command = [
            str(python),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ]
        subprocess.run([*command, *REQUIREMENTS], check=True)
        stamp.write_text(" ".join(REQUIREMENTS), encoding="utf-8")
    return str(python)


def samples(case: Case, count: int) -> Iterator[Sample]:
    """Give that many samples to calibrate with; from the first again where they are fewer."""
    # cycle() would hold on to every sample
    again = itertools.chain.from_iterable(itertools.repeat(_Again(case)))
    return itertools.islice(again, count)


class _Again:
    def __init__(self, case: Case) -> None:
        self.case = case

    def __iter__(self) -> Iterator[Sample]:
        return feeds(self.case, "calib.npz")


def peak_bytes() -> int:
    """Give the most memory that this process has had resident."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


# The tools. Each imports first; what it returns does the work that is timed. --------


def _ort(method: str, *, prepared: bool = False) -> Callable[[], Work]:
    def load() -> Work:
        from onnxruntime.quantization import CalibrationMethod, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

        class Reader:
            def __init__(self, case: Case, count: int) -> None:
                self.rows = samples(case, count)

            def get_next(self) -> Sample | None:
                return next(self.rows, None)

        def work(case: Case, count: int, out: Path) -> dict[str, Any]:
            source = case.folder / "model.onnx"
            if prepared:
                source = _raise_opset(source, out.with_suffix(".raised.onnx"))
                ready = out.with_suffix(".prepared.onnx")
                quant_pre_process(source, ready, skip_symbolic_shape=True)
                source = ready
            quantize_static(
                source,
                out,
                Reader(case, count),
                per_channel=True,
                calibrate_method=CalibrationMethod[method],
            )
            return {}

        return work

    return load


def _raise_opset(source: Path, out: Path) -> Path:
    import onnx

    model = onnx.load(source)
    if model.opset_import[0].version < 13:
        model = onnx.version_converter.convert_version(model, 13)
    onnx.save(model, out)
    return out


def _nncf() -> Work:
    import nncf  # type: ignore[import-not-found]  # in its own venv
    import onnx

    def work(case: Case, count: int, out: Path) -> dict[str, Any]:
        model = onnx.load(case.folder / "model.onnx")
        data = nncf.Dataset(list(range(count)), _Pick(case, count))
        onnx.save(nncf.quantize(model, data, subset_size=count), out)
        return {}

    return work


class _Pick:
    """Give a sample by number, reading on from the one before."""

    def __init__(self, case: Case, count: int) -> None:
        self.case, self.count = case, count
        self.rows, self.at = samples(case, count), 0

    def __call__(self, index: int) -> Sample:
        if index < self.at:
            self.rows, self.at = samples(self.case, self.count), 0
        for row in itertools.islice(self.rows, index - self.at, None):
            self.at = index + 1
            return row
        raise IndexError(index)


def _nncf_accuracy() -> Work:
    import nncf
    import onnx
    import quantize_stats

    def work(case: Case, count: int, out: Path) -> dict[str, Any]:
        calls: list[float] = []
        scratch = out.with_suffix(".try.onnx")
        deadline = time.monotonic() + BUDGET_S

        def validate(model: Any, data: Any) -> tuple[float, list[float]]:
            if time.monotonic() > deadline:
                raise TimeoutError
            onnx.save(model, scratch)
            rows = list(data)
            outputs = quantize_stats.run_case(case, scratch, file="calib.npz", rows=rows)
            right = quantize_stats.judge(case, outputs, file="calib_labels.npz", rows=rows)
            if len(rows) > 1:  # one row is only a look at what this function returns
                calls.append(float(right.mean()))
            # a value for each sample: without, it calls this for every one of them
            return float(right.mean()), [float(each) for each in right]

        model = onnx.load(case.folder / "model.onnx")
        first = list(itertools.islice(feeds(case, "calib.npz"), LABELLED[case.name]))
        data = nncf.Dataset(list(range(count)), first.__getitem__)
        rows = nncf.Dataset(list(range(len(first))), first.__getitem__)
        try:
            done = nncf.quantize_with_accuracy_control(
                model, data, rows, validate, subset_size=count, max_drop=0.01
            )
        except TimeoutError:
            text = f"not done after {BUDGET_S} s and {len(calls)} evaluations"
            return {"evaluations": len(calls), "scores": calls, "error": text}
        finally:
            scratch.unlink()
        onnx.save(done, out)
        return {"evaluations": len(calls), "scores": calls}

    return work


def _float() -> Work:
    """Nothing but the float model over the same samples: the floor of any calibration."""
    import onnxruntime

    def work(case: Case, count: int, out: Path) -> dict[str, Any]:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        model = str(case.folder / "model.onnx")
        session = onnxruntime.InferenceSession(model, options)
        for sample in samples(case, count):
            session.run(None, sample)
        return {}

    return work


class _Samples:
    """Samples that start anew at every pass and need not fit into memory."""

    def __init__(self, case: Case, count: int) -> None:
        self._case, self._count = case, count

    def __iter__(self) -> Iterator[Sample]:
        return samples(self._case, self._count)

    def __len__(self) -> int:
        return self._count


def _ours(*, max_drop: float | None = None) -> Callable[[], Work]:
    """The one place that knows the signature of our own quantizer."""

    def load() -> Work:
        import edgesdk

        def work(case: Case, count: int, out: Path) -> dict[str, Any]:
            asked: dict[str, Any] = {}
            calls: list[float] = []
            if max_drop is not None:
                import quantize_stats

                def metric(outputs: dict[str, np.ndarray], _: np.ndarray) -> float:
                    singly = {name: value[:, None] for name, value in outputs.items()}
                    right = quantize_stats.judge(
                        case, singly, file="calib_labels.npz", rows=range(count)
                    )
                    calls.append(float(right.mean()))
                    return calls[-1]

                labels = np.zeros(count, np.int64)  # the metric knows the real ones
                asked = {"max_drop": max_drop, "labels": labels, "metric": metric}
            data = _Samples(case, count)
            result = edgesdk.quantize(case.folder / "model.onnx", data, **asked)
            result.save(out)
            record: dict[str, Any] = {"findings": [str(one) for one in result.findings]}
            record["decided"] = json.loads(json.dumps(result.to_json(), default=str))
            if result.budget is not None:
                record["evaluations"] = result.budget.evaluations
                record["probes"], record["scores"] = result.budget.probes, calls
            return record

        return work

    return load


TOOLS: dict[str, Callable[[], Work]] = {
    "ours": _ours(),
    "ours-budget": _ours(max_drop=0.01),
    "float": _float,
    "ort-minmax": _ort("MinMax"),
    "ort-percentile": _ort("Percentile"),
    "ort-entropy": _ort("Entropy"),
    "ort-prepared": _ort("MinMax", prepared=True),
    "nncf": _nncf,
    "nncf-budget": _nncf_accuracy,
}


def main() -> None:
    """Do what the command line asks and print one line."""
    tool, name, count, path, *warm = sys.argv[1:]
    case, out = load_case(name), Path(path)
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # some tools draw bars on the standard output
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_BYTES, MOST_BYTES))
    record: dict[str, Any] = {"tool": tool, "model": name, "samples": int(count)}
    begun = time.perf_counter()
    try:
        work = TOOLS[tool]()
        imported = time.perf_counter()
        record |= {"import_s": imported - begun, "import_bytes": peak_bytes()}
        if warm:
            tiny = out.with_suffix(".tiny.onnx")
            work(load_case(WARM_UP), 2, tiny)
            tiny.unlink(missing_ok=True)
            record["warm_bytes"] = peak_bytes()
            imported = time.perf_counter()
        record |= work(case, int(count), out)
        record["seconds"] = time.perf_counter() - imported
    except Exception as exc:  # noqa: BLE001 - how a tool fails is a result
        record["error"] = f"{type(exc).__name__}: {' '.join(str(exc).split())[:300]}"
        record["seconds"] = time.perf_counter() - begun
    record["peak_bytes"] = peak_bytes()
    answer.write(json.dumps(record) + "\n")
    answer.flush()


if __name__ == "__main__":
    main()
