"""What the quantizer promises, checked against what was measured, and the table of both."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from typing import Any

import numpy as np
from quantize_peer import PEERS
from quantize_stats import mcnemar

__all__ = ["check_all", "table"]

Check = dict[str, Any]

#: A model is won where ours is the best or this close to it: less is noise of the rounding.
SAME_DB = 0.1
#: As for rates: less than one sample in most of the test sets.
SAME_RATE = 0.002
#: Where a peer is done sooner, its time says nothing of calibration: what a process does once
#: (opening sessions, trying candidates) is most of it. Such figures are shown and not judged.
LEAST_S = {"ort-percentile": 4.0, "nncf": 0.0}


def _check(name: str, ok: bool | None, detail: str) -> Check:
    return {"name": name, "ok": ok, "detail": detail}


def check_all(found: dict[str, Any], right: dict[tuple[str, str], np.ndarray]) -> list[Check]:
    """Give every promise with whether it holds; None where it was not measured."""
    models = found["models"]
    checks = [*_check_labelled(models, right), *_check_mean(models)]
    checks += [*_check_distance(models, right), *_check_time(models), *_check_memory(models)]
    return [*checks, *_check_latency(models), *_check_budget(models)]


def _peers(tools: dict[str, Any], key: str) -> dict[str, Any]:
    """Give a figure of every peer that made something: a float file in disguise is not."""
    return {
        tool: tools[tool][key]
        for tool in PEERS
        if tools.get(tool, {}).get(key) is not None and "error" not in tools[tool]
    }


def _compare(
    name: str, right: dict[tuple[str, str], np.ndarray]
) -> tuple[str, float, np.ndarray, np.ndarray] | None:
    """Give the best peer by right answers, the p-value of the difference, and both rows."""
    ours = right.get((name, "ours"))
    peers = {tool: right[name, tool] for tool in PEERS if (name, tool) in right}
    if ours is None or not peers:
        return None
    best = max(peers, key=lambda tool: int(peers[tool].sum()))
    return best, mcnemar(ours, peers[best]), ours, peers[best]


def _check_labelled(
    models: dict[str, Any], right: dict[tuple[str, str], np.ndarray]
) -> Iterator[Check]:
    for name, model in models.items():
        found = _compare(name, right)
        if found is None:
            continue
        best, p, ours, theirs = found
        worse = p < 0.05 and ours.sum() < theirs.sum()
        what = "accuracy" if model["labelled"] else "agreement with float"
        detail = f"{ours.mean():.3f} against {theirs.mean():.3f} of {best}, p {p:.3f}"
        yield _check(f"{name}: {what} not significantly worse", not worse, detail)


def _check_mean(models: dict[str, Any]) -> Iterator[Check]:
    """Compare means over the models that both a peer and ours made something of."""
    for peer in PEERS:
        pairs = [
            (model["tools"]["ours"]["score"]["rate"], model["tools"][peer]["score"]["rate"])
            for model in models.values()
            if model["labelled"]
            and all(model["tools"].get(tool, {}).get("score") for tool in ("ours", peer))
            and "error" not in model["tools"][peer]
        ]
        if pairs:
            ours, theirs = (statistics.mean(column) for column in zip(*pairs, strict=True))
            detail = f"{ours:.4f} against {theirs:.4f} over {len(pairs)} models"
            ok = ours >= theirs - SAME_RATE
            yield _check(f"mean accuracy at least that of {peer}", ok, detail)


def _check_distance(
    models: dict[str, Any], right: dict[tuple[str, str], np.ndarray]
) -> Iterator[Check]:
    """Count the models that labels do not decide and where ours is the closest to float."""
    won, lost = [], []
    for name, model in models.items():
        compared = _compare(name, right)
        if model["labelled"] and compared is not None and compared[1] < 0.05:
            continue
        ours = model["tools"].get("ours", {}).get("sqnr_worst_db")
        best = max(_peers(model["tools"], "sqnr_worst_db").values(), default=-99.0)
        if ours is not None:
            (won if ours >= best - SAME_DB else lost).append(name)
    total = len(won) + len(lost)
    if total:
        detail = f"{len(won)} of {total}" + (f", not {', '.join(lost)}" if lost else "")
        name = "as near to float as the best peer on 4 of 5 models"
        yield _check(name, len(won) >= 0.8 * total, detail)


def _check_time(models: dict[str, Any]) -> Iterator[Check]:
    for name, model in models.items():
        tools = model["tools"]
        ours = tools.get("ours", {}).get("seconds")
        if tools.get("ours", {}).get("time_error"):
            yield _check(f"{name}: time", False, tools["ours"]["time_error"])
        for peer, bound in (("ort-percentile", 0.25), ("nncf", 1.0)):
            other = tools.get(peer, {}).get("seconds")
            if ours and other:
                text = f"{ours:.2f} s against {other:.2f} s, {ours / other:.2f}"
                ok = None if other < LEAST_S[peer] else ours / other <= bound
                yield _check(f"{name}: time of {peer}, {bound:g}", ok, text)
        bare = tools.get("float", {}).get("seconds")
        if ours and bare:
            yield _check(f"{name}: float passes", None, f"{ours / bare:.1f} (aim: 4)")


def _check_memory(models: dict[str, Any]) -> Iterator[Check]:
    for name, model in models.items():
        tools = model["tools"]
        ours = tools.get("ours", {}).get("peak_bytes", {})
        few, many = ours.get("8"), ours.get("512")
        theirs = tools.get("ort-minmax", {}).get("peak_bytes", {})
        peer = theirs.get("8")
        if few and many:
            text = f"{many / 2**20:.0f} MiB with 512, {few / 2**20:.0f} with 8"
            yield _check(f"{name}: memory with 512 samples", many <= 1.1 * few, text)
        if few and peer:
            text = f"{few / 2**20:.0f} MiB against {peer / 2**20:.0f}; a tiny model takes "
            text += f"{ours['tiny'] / 2**20:.0f} and {theirs['tiny'] / 2**20:.0f}"
            yield _check(f"{name}: memory of onnxruntime MinMax", few <= peer, text)


def _check_latency(models: dict[str, Any]) -> Iterator[Check]:
    for name, model in models.items():
        for threads, found in model.get("latency", {}).items():
            ratios = found.get("of_peer", {})
            if not ratios:
                continue
            same = abs(found["of_float"]["float-again"][0] - 1)
            fastest = min((p for p in ratios), key=lambda peer: found["ms"][peer])
            ratio, low, high = ratios[fastest]
            text = f"{ratio:.3f} [{low:.3f}, {high:.3f}] of {fastest}"
            ok = None if same > 0.02 else low <= 1.02
            text += f" (void: float against itself differs by {same:.1%})" if ok is None else ""
            yield _check(f"{name}: latency, {threads} threads", ok, text)
            ours = found["of_float"]["ours"][1]
            if ours > 1:
                findings = model["tools"]["ours"].get("findings") or []
                text = f"{ours:.2f} of float, {len(findings)} findings"
                yield _check(f"{name}: slower than float is said", bool(findings), text)


def _check_budget(models: dict[str, Any]) -> Iterator[Check]:
    for name, model in models.items():
        ours, peer = (model["tools"].get(f"{t}-budget", {}) for t in ("ours", "nncf"))
        if not ours or not peer:
            continue
        if "error" in ours:
            yield _check(f"{name}: accuracy budget", False, ours["error"])
            continue
        rate, goal = ours["score"]["rate"], model["tools"]["float"]["score"]["rate"] - 0.01
        text = f"{ours['evaluations']} evaluations to {rate:.3f} (goal {goal:.3f})"
        text += f", nncf: {peer.get('error', peer.get('evaluations'))}"
        if peer.get("score"):
            text += f" to {peer['score']['rate']:.3f}"
        fewer = ours["evaluations"] <= peer.get("evaluations", math.inf)
        # what has not ended may still have taken more than ours
        ok = None if not fewer and "error" in peer else fewer and rate >= goal - 0.005
        yield _check(f"{name}: accuracy budget", ok, text)


def table(found: dict[str, Any]) -> str:
    """Give everything as Markdown."""
    lines = [
        "| model | tool | right | like float | SQNR worst, mean dB | time s | peak MiB | "
        "ms (1 thread) | ms (all) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, model in found["models"].items():
        for tool, entry in model["tools"].items():
            lines.append(_row(name, tool, entry, model.get("latency", {})))
            if entry.get("error"):
                lines.append(f"| | | {entry['error'][:200]} | | | | | | |")
    for name, reason in found["missing"].items():
        lines.append(f"| {name} | not available | {reason} | | | | | | |")
    checks = found.get("checks", [])
    if checks:
        lines += ["", "| promise | holds | measured |", "|---|---|---|"]
        words = {True: "yes", False: "**no**", None: "-"}
        lines += [f"| {c['name']} | {words[c['ok']]} | {c['detail']} |" for c in checks]
    return "\n".join([*lines, "", f"{found.get('seconds', 0):.0f} s"])


def _row(name: str, tool: str, entry: dict[str, Any], latency: dict[str, Any]) -> str:
    score, record = entry.get("score"), entry.get("quantize", {})
    right = f"{score['right']:.0f}/{score['count']} = {score['rate']:.3f}" if score else ""
    agrees = f"{entry['agrees']:.3f}" if "agrees" in entry else ""
    for key, word in (("iou_with_float", "IoU"), ("auc", "AUC")):
        agrees += f"{word} {entry[key]:.3f}" if key in entry else ""
    ratio = ""
    if "sqnr_worst_db" in entry and tool != "float":
        ratio = f"{entry['sqnr_worst_db']:.1f}, {entry['sqnr_mean_db']:.1f}"
    seconds = entry.get("seconds", record.get("seconds"))
    time = f"{seconds:.2f}" if seconds else ""
    peak = f"{record['peak_bytes'] / 2**20:.0f}" if record.get("peak_bytes") else ""
    ms = [latency.get(t, {}).get("ms", {}).get(tool) for t in ("one", "all")]
    shown = [f"{value:.3f}" if value else "" for value in ms]
    cells = [name, tool, right, agrees, ratio, time, peak, *shown]
    return "| " + " | ".join(cells) + " |"
