"""Deployed latency is the runtime's own: the agent against each runtime's bare loop.

Blocks of runs by the agent and by two bare loops, interleaved in random order. The two bare
loops are the same program: where they differ by more than 1 % the run is void. `make perf` runs
it; for the table alone::

    pytest -m perf -s tests/perf/test_bare_loops.py
"""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edgesdk.build import build_bundle
from edgesdk.bundle import Bundle
from edgesdk.data.dataset import open_dataset
from edgesdk.deploy import deploy_bundle
from edgesdk.devices import Session, connect, resolve_device
from edgesdk.model.open import open_model
from edgesdk.plan import load_recipe, model_facts, plan_build
from edgesdk.profiles.catalog import default_target
from edgesdk.tensors import unpack_tensors
from edgesdk.wire.manifest import part_file_name

pytestmark = pytest.mark.perf

DEMO = Path(__file__).parents[2] / "configs" / "demo"
BLOCKS = 240
BLOCK_MS = 25
THREADS = 1
Block = Callable[[int], list[int]]


#: What builds for each runtime here, and the precisions that are compared.
CASES = [
    ("onnxruntime", "ort-cpu", "fp32"),
    ("onnxruntime", "ort-cpu", "int8"),
    ("openvino", "openvino-cpu", "fp32"),
    ("openvino", "openvino-cpu", "int8"),
    ("litert", "litert-cpu", "fp32"),
    ("litert", "litert-cpu", "int8"),
]


def build(out: Path, precision: str, backend: str = "ort-cpu") -> Bundle:
    opened = open_model(DEMO / "digits_cnn.onnx")
    profile = default_target()
    calib = open_dataset(DEMO / "calib.npz", opened.source.inputs)
    recipe = load_recipe(None, precision=precision, threads=THREADS, checks=1, prefer=[backend])
    plan = plan_build(model_facts(opened), profile, recipe)
    return build_bundle(opened, profile, recipe, plan, calib=calib, out=out)


def agent_block(session: Session) -> Block:
    def block(runs: int) -> list[int]:
        spec = {"warmup_runs": 0, "runs": runs, "duration_s": None, "threads": None}
        spec |= {"fresh": False, "sample_conditions": False}
        reply = session.request("bench", {"release": "current", "spec": spec}, timeout_s=60)
        samples: list[int] = np.frombuffer(reply.body, dtype="<u8").tolist()
        assert len(samples) == runs
        return samples

    return block


@contextlib.contextmanager
def bare_block(bundle: Bundle, folder: Path) -> Iterator[Block]:
    (part,) = bundle.manifest["parts"]
    paths = []
    for record in part["files"]:
        # side by side under the names that a runtime finds them by
        paths.append(folder / part_file_name(0, record["role"], part["format"]))
        shutil.copyfile(bundle.blob_path(record["sha256"]), paths[-1])
    check = bundle.manifest["checks"][0]
    inputs = folder / "inputs.npz"
    body = bundle.blob_path(check["blob"]["sha256"]).read_bytes()
    np.savez(inputs, **unpack_tensors(check["inputs"], body))
    program = [sys.executable, str(Path(__file__).with_name("bare_loop.py"))]
    arguments = [part["runtime"], str(paths[0]), str(inputs), str(THREADS)]
    with subprocess.Popen(
        program + arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        ask, answer = child.stdin, child.stdout

        def block(runs: int) -> list[int]:
            ask.write(f"{runs}\n")
            ask.flush()
            samples: list[int] = json.loads(answer.readline())
            return samples

        yield block
        ask.close()


def interval(ratios: list[float]) -> tuple[float, float, float]:
    """The median of paired ratios and its 95 % interval, by 2,000 seeded bootstrap draws."""
    draws = np.random.default_rng(0).choice(ratios, (2000, len(ratios)))
    low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
    return statistics.median(ratios), float(low), float(high)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("runtime", "backend", "precision"), CASES)
def test_deployed_latency_is_the_runtimes_own(
    runtime: str, backend: str, precision: str, tmp_path: Path
) -> None:
    bundle = build(tmp_path / "bundle", precision, backend)
    assert [part["runtime"] for part in bundle.manifest["parts"]] == [runtime]
    device = resolve_device(f"local:?state={tmp_path / 'state'}", inventory=None)
    with (
        connect(device, timeout_s=30) as session,
        bare_block(bundle, tmp_path) as bare,
        bare_block(bundle, tmp_path) as other_bare,
    ):
        deploy_bundle(bundle, session, device=device, profile=None)
        arms = {"agent": agent_block(session), "bare": bare, "other": other_bare}
        warm = {name: statistics.median(arm(50)[10:]) for name, arm in arms.items()}
        runs = max(5, round(BLOCK_MS * 1e6 / warm["bare"]))
        medians: dict[str, list[float]] = {name: [] for name in arms}
        dice = random.Random(1)
        for _ in range(BLOCKS):
            # the first run after a pause finds cold caches in every arm alike; leave it out
            for name in dice.sample(list(arms), len(arms)):
                medians[name].append(statistics.median(arms[name](runs + 1)[1:]))
    pairs = zip(medians["agent"], medians["bare"], strict=True)
    ratio, low, high = interval([agent / loop for agent, loop in pairs])
    pairs = zip(medians["other"], medians["bare"], strict=True)
    same, same_low, same_high = interval([other / loop for other, loop in pairs])
    sys.stdout.write(
        f"\n{runtime} {precision}: {BLOCKS} blocks of {runs} runs, "
        f"bare {statistics.median(medians['bare']) / 1e6:.4f} ms, "
        f"agent/bare {ratio:.4f} [{low:.4f}, {high:.4f}], "
        f"bare/bare {same:.4f} [{same_low:.4f}, {same_high:.4f}]\n"
    )
    if abs(same - 1) > 0.01:
        pytest.skip(f"void: two bare loops against each other differ by {abs(same - 1):.1%}")
    assert low <= 1.02
