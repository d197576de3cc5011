"""The acceptance of the quantizer: ours against its peers on real models, as one table.

    python tests/perf/quantize.py [--models a,b] [--peers nncf,...] [--only accuracy,time,...]
                                  [--quick] [--no-ours] [--json FILE] [--reuse FILE]

Every quantizer runs in a process and an environment of its own, on the same samples. What is
measured: accuracy on held-out labelled data (else the distance of the outputs to float), time,
peak memory, latency in onnxruntime, and how many evaluations an accuracy budget takes. Exits
with 1 if something promised was missed. ``make perf`` runs it through ``test_quantize.py``.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import math
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

import quantize_peer
import quantize_stats as stats
from quantize_models import CACHE, CASES, Case, Rows, prepare
from quantize_report import check_all, table

STAGES = ("accuracy", "time", "memory", "latency", "budget")
#: Few that cover pictures, a transformer, recurrence and a classifier that collapses.
QUICK = ("digits_mobile", "fsdd_dscnn", "fsdd_transformer", "magika", "silero_vad_16k")
#: Where an accuracy budget has something to save, and the input that counts the samples.
BUDGET = {"magika": "bytes", "ppocr_rec": "x"}
FEW, MANY = 8, 512
#: Where memory with many samples is taken too: small and large ones, none that takes minutes.
MEMORY = (
    "digits_mobile",
    "fsdd_dscnn",
    "efficientnet_lite0",
    "magika",
    "ppocr_cls",
    "ultraface",
)
#: Rounds of tools that are about as fast as each other; the median counts.
ROUNDS = 3
BLOCKS = 40


class Run:
    """One run of the acceptance and what it found so far.

    Args:
        cases: The models.
        peers: Names of the peers.
        ours: Whether our own quantizer takes part.
        reuse: What an earlier run found: its figures of the peers, whose files are still there,
            are taken over. For work on our own; what counts is measured in one run.
    """

    def __init__(
        self, cases: list[Case], peers: list[str], *, ours: bool, reuse: dict[str, Any]
    ) -> None:
        self.cases = [case for case in cases if not case.missing]
        self.peers = peers
        self.tools = [*peers, *(["ours"] if ours else [])]
        self.ours = ours
        self.reuse = reuse
        missing = {case.name: case.missing for case in cases if case.missing}
        self.found: dict[str, Any] = {"missing": missing, "models": {}}
        self.right: dict[tuple[str, str], np.ndarray] = {}
        for case in self.cases:
            self.found["models"][case.name] = {
                "kind": case.kind,
                "labelled": case.labelled,
                "registry": case.registry,
                "source": case.source,
                "tools": {},
            }

    def file(self, case: Case, tool: str) -> Path:
        """Where a tool's file of a model lies."""
        folder = CACHE / "quantized" / case.name
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{tool}.onnx"

    def entry(self, case: Case, tool: str) -> dict[str, Any]:
        """What is known of a tool on a model."""
        entry: dict[str, Any] = self.found["models"][case.name]["tools"].setdefault(tool, {})
        return entry

    def child(
        self, case: Case, tool: str, count: int, out: Path, *, warm: bool = False
    ) -> dict[str, Any]:
        """Run one tool once, in a fresh process; ``warm`` where the time counts."""
        earlier = self.earlier(case, tool)
        if earlier.get("quantize", {}).get("samples") == count and out.stem == tool:
            found: dict[str, Any] = earlier["quantize"]
            return found
        own = tool.startswith("ours") or tool == "float"
        python = sys.executable if own else quantize_peer.peer_python()
        script = Path(quantize_peer.__file__)
        command = [python, str(script), tool, case.name, str(count), str(out)]
        command += ["warm"] if warm else []
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = done.stdout.splitlines()
        if done.returncode or not lines:
            tail = " ".join(done.stderr.split())[-300:]
            return {"error": f"the process ended with {done.returncode}: {tail}"}
        record: dict[str, Any] = json.loads(lines[-1])
        return record

    def earlier(self, case: Case, tool: str) -> dict[str, Any]:
        """What an earlier run found of a peer."""
        model = self.reuse.get("models", {}).get(case.name, {})
        entry: dict[str, Any] = model.get("tools", {}).get(tool, {})
        return {} if tool.startswith("ours") else entry

    def say(self, case: Case, tool: str, text: str) -> None:
        """Show how far it is; the table comes at the end."""
        print(f"  {case.name:20} {tool:16} {text}", file=sys.stderr, flush=True)

    # The stages ------------------------------------------------------------------------------

    def measure_accuracy(self) -> None:
        """Quantize with every tool and score what came out against labels and float."""
        for case in self.cases:
            reference = stats.run_case(case, case.folder / "model.onnx")
            self.note_scores(case, "float", reference, reference)
            for tool in self.tools:
                out = self.file(case, tool)
                if not self.earlier(case, tool):
                    out.unlink(missing_ok=True)
                record = self.child(case, tool, case.calib, out, warm=True)
                entry = self.entry(case, tool)
                entry |= {key: record[key] for key in ("error", "findings") if key in record}
                entry["quantize"] = record
                if "error" not in record and out.exists():
                    entry["quantizers"] = stats.count_quantizers(out)
                    entry["file_bytes"] = out.stat().st_size
                    try:
                        self.note_scores(case, tool, reference, stats.run_case(case, out))
                    except Exception as exc:  # noqa: BLE001 - a file that does not run is a result
                        text = " ".join(str(exc).split())
                        entry["error"] = f"does not run in onnxruntime: {text[:240]}"
                        out.unlink(missing_ok=True)
                if entry.get("quantizers") == 0:
                    entry["error"] = "quantized nothing"
                self.say(case, tool, entry.get("error") or f"{record['seconds']:.2f} s")

    def note_scores(
        self, case: Case, tool: str, reference: dict[str, Any], outputs: dict[str, Any]
    ) -> None:
        """Enter how good the outputs are."""
        entry = self.entry(case, tool)
        right = stats.judge(case, outputs)
        entry["score"] = stats.count_right(right)
        if case.labelled:
            self.right[case.name, tool] = right
        same = stats.agreement(case, reference, outputs)
        if same is not None:
            entry["agrees"] = float(np.mean(same))
            if case.kind == "agree":
                self.right[case.name, tool] = same
        entry |= stats.extra_scores(case, reference, outputs)
        ratios = stats.sqnr_of_outputs(case, reference, outputs)
        entry["sqnr_db"] = {n: (v if math.isfinite(v) else None) for n, v in ratios.items()}
        capped = [min(max(v, -99.0), 199.0) for v in ratios.values()]
        entry["sqnr_worst_db"], entry["sqnr_mean_db"] = min(capped), statistics.mean(capped)

    def measure_time(self) -> None:
        """Time what is compared closely in rounds, each tool in turn; the slow ones once."""
        for case in self.cases:
            once = [t for t in self.tools if t in ("ort-percentile", "ort-entropy")]
            rounds = ["float", *(t for t in self.tools if t in ("nncf", "ours"))]
            scratch = self.file(case, "timed")
            for tool in once:
                self.entry(case, tool).setdefault("quantize", {})
                if "seconds" not in self.entry(case, tool)["quantize"]:
                    record = self.child(case, tool, case.calib, scratch, warm=True)
                    self.entry(case, tool)["quantize"] = record
                self.entry(case, tool)["seconds"] = self.entry(case, tool)["quantize"][
                    "seconds"
                ]
            for tool in [t for t in rounds if self.earlier(case, t).get("seconds")]:
                self.entry(case, tool)["seconds"] = self.earlier(case, tool)["seconds"]
                rounds.remove(tool)
            seconds: dict[str, list[float]] = {tool: [] for tool in rounds}
            for _ in range(ROUNDS):
                for tool in rounds:
                    record = self.child(case, tool, case.calib, scratch, warm=True)
                    self.entry(case, tool)["import_s"] = record.get("import_s")
                    if "error" in record:
                        self.entry(case, tool)["time_error"] = record["error"]
                        self.say(case, tool, record["error"])
                    else:
                        seconds[tool].append(record["seconds"])
            for tool, values in seconds.items():
                if values:
                    self.entry(case, tool)["seconds"] = statistics.median(values)
                    self.say(case, tool, f"{statistics.median(values):.2f} s")
            scratch.unlink(missing_ok=True)

    def measure_memory(self) -> None:
        """Take the peak of ours with few and many samples, of the smallest peer with few."""
        wanted = [("ort-minmax", FEW)] if "ort-minmax" in self.peers else []
        wanted += [("ours", FEW), ("ours", MANY)] if self.ours else []
        for case in self.cases:
            for tool, count in wanted:
                if count == MANY and case.name not in MEMORY:
                    continue
                scratch = self.file(case, "memory")
                before = self.earlier(case, tool).get("peak_bytes")
                if before:
                    self.entry(case, tool)["peak_bytes"] = before
                    continue
                record = self.child(case, tool, count, scratch, warm=True)
                scratch.unlink(missing_ok=True)
                memory = self.entry(case, tool).setdefault("peak_bytes", {})
                if "error" in record:
                    memory[str(count)] = None
                    self.say(case, tool, record["error"])
                else:
                    memory[str(count)] = record["peak_bytes"]
                    memory["tiny"] = record["warm_bytes"]
                    mib = record["peak_bytes"] / 2**20
                    self.say(case, tool, f"{mib:.0f} MiB with {count} samples")

    def measure_latency(self, blocks: int) -> None:
        """Time all files of a model against each other, with one thread and with all."""
        script = str(Path(__file__).with_name("quantize_latency.py"))
        for case in self.cases:
            float_file = case.folder / "model.onnx"
            files = {"float": float_file, "float-again": float_file}
            for tool in self.tools:
                file = self.file(case, tool)
                if file.exists() and "error" not in self.entry(case, tool):
                    files[tool] = file
            arms = [f"{name}={path}" for name, path in files.items()]
            found = self.found["models"][case.name]["latency"] = {}
            for threads in (1, 0):
                command = [sys.executable, script, case.name, str(threads), str(blocks), *arms]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    tail = " ".join(done.stderr.split())[-300:]
                    found["one" if threads else "all"] = {"error": tail}
                    self.say(case, "latency", tail)
                    continue
                medians = json.loads(done.stdout)
                found["one" if threads else "all"] = summarize_latency(medians)
                text = ", ".join(f"{k} {statistics.median(v):.3f}" for k, v in medians.items())
                self.say(case, "latency", text + f" ms, threads {threads or 'all'}")

    def measure_budget(self) -> None:
        """Count the evaluations that each takes to lose at most 1 %, and what it ends with."""
        for case in self.cases:
            if case.name not in BUDGET:
                continue
            reference = stats.run_case(case, case.folder / "model.onnx")
            self.note_scores(case, "float", reference, reference)
            tools = ["nncf-budget"] if "nncf" in self.peers else []
            for tool in [*tools, *(["ours-budget"] if self.ours else [])]:
                out = self.file(case, tool)
                # ours takes the labelled samples for both; nncf calibrates with the first ones
                labelled = len(Rows(case.folder / "calib.npz", BUDGET[case.name]))
                most = quantize_peer.LABELLED[case.name]
                most = case.calib if tool == "nncf-budget" else most
                count = min(labelled, most)
                entry = self.entry(case, tool)
                if self.earlier(case, tool):
                    entry |= self.earlier(case, tool)
                    continue
                record = self.child(case, tool, count, out)
                entry |= record
                if "error" not in record:
                    self.note_scores(case, tool, reference, stats.run_case(case, out))
                self.say(case, tool, str(entry.get("error") or entry.get("evaluations")))


def summarize_latency(medians: dict[str, list[float]]) -> dict[str, Any]:
    """Give the median of every arm, and ratios to float and of ours to the fastest peer."""
    arms = {name: np.array(values) for name, values in medians.items()}
    found: dict[str, Any] = {"ms": {name: float(np.median(v)) for name, v in arms.items()}}
    found["of_float"] = {
        name: stats.interval_of_ratios(values / arms["float"])
        for name, values in arms.items()
        if name != "float"
    }
    peers = [name for name in arms if name in quantize_peer.PEERS or name == "ort-prepared"]
    if "ours" in arms and peers:
        found["of_peer"] = {
            name: stats.interval_of_ratios(arms["ours"] / arms[name]) for name in peers
        }
    return found


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    names = ", ".join(CASES)
    parser.add_argument("--models", default="", help=f"some of {names}")
    peers = ", ".join((*quantize_peer.PEERS, "ort-prepared"))
    parser.add_argument(
        "--peers", default=",".join(quantize_peer.PEERS), help=f"some of {peers}"
    )
    parser.add_argument("--only", default=",".join(STAGES), help=f"some of {', '.join(STAGES)}")
    parser.add_argument("--quick", action="store_true", help="a few models, no slow peers")
    parser.add_argument("--no-ours", action="store_true", help="measure the peers alone")
    parser.add_argument("--reuse", type=Path, help="take the peers from this earlier --json")
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    return parser.parse_args(arguments)


def main() -> int:
    """Measure, print the table and say what was promised and missed."""
    wanted = parse()
    CACHE.mkdir(exist_ok=True)
    # two at once would time each other, and write the same files
    lock = (CACHE / "quantize.lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    models, peers, stages = (
        [part for part in text.split(",") if part]
        for text in (wanted.models, wanted.peers, wanted.only)
    )
    begun = time.perf_counter()
    if wanted.quick:
        models = models or list(QUICK)
        peers = [peer for peer in peers if peer not in ("ort-entropy",)]
        stages = [stage for stage in stages if stage != "budget"]
    reuse = json.loads(wanted.reuse.read_text(encoding="utf-8")) if wanted.reuse else {}
    run = Run(prepare(models), peers, ours=not wanted.no_ours, reuse=reuse)
    if "accuracy" in stages:
        run.measure_accuracy()
    if "time" in stages:
        run.measure_time()
    if "memory" in stages:
        run.measure_memory()
    if "latency" in stages:
        run.measure_latency(BLOCKS // 2 if wanted.quick else BLOCKS)
    if "budget" in stages:
        run.measure_budget()
    sound = {
        (name, tool): row
        for (name, tool), row in run.right.items()
        if "error" not in run.found["models"][name]["tools"][tool]
    }
    run.found["checks"] = check_all(run.found, sound) if run.ours else []
    run.found["seconds"] = time.perf_counter() - begun
    if wanted.json:
        wanted.json.write_text(json.dumps(run.found, indent=1), encoding="utf-8")
    print(table(run.found))
    return int(any(check["ok"] is False for check in run.found["checks"]))


if __name__ == "__main__":
    sys.exit(main())
