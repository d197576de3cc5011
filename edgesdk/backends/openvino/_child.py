"""Turn an ONNX file into OpenVINO IR, and look what the CPU makes of it. Run as a program.

OpenVINO's frontend and compiler are C++ written for well-meant files: a hostile one can make
them crash, loop or ask for all memory. So this file runs in a process of its own, with limits
on itself; nothing of edgesdk is imported here. A fresh process also numbers the nodes that the
frontend makes up from the same start, so that the same graph gives the same bytes.

Arguments: the ONNX file, the IR file to write (its weights go beside it), the file to write
what was seen to, and how many bytes of memory may be taken. What was seen is JSON, written anew
after each stage: ``stage`` is the last one reached, ``error`` what ended it.
"""

from __future__ import annotations

import json
import os
import re
import resource
import sys
from pathlib import Path
from typing import Any

#: One entry for each primitive that the CPU executes; a graph with more is cut here.
_MOST_OPS = 100_000
_MOST_TEXT = 4000
#: Attributes of a primitive in the runtime model that are passed on.
_ASKED = ("layerType", "runtimePrecision", "originalLayersNames", "outputPrecisions")


def _limit(memory_bytes: int) -> None:
    wanted = ((resource.RLIMIT_AS, memory_bytes), (resource.RLIMIT_CORE, 0))
    for what, value in wanted:
        _, hard = resource.getrlimit(what)
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(what, (most, hard))


def _tell(path: str, seen: dict[str, Any]) -> None:
    new = Path(path + ".new")
    new.write_text(json.dumps(seen), encoding="utf-8")
    new.replace(path)


def _tighten(path: Path) -> None:
    """Take out the white space between tags: a sixth of the file; text holds no tags."""
    path.write_bytes(re.sub(rb">\s+<", b"><", path.read_bytes()))


def _open_values(model: Any) -> list[str]:
    """Name the nodes whose results have extents that are not fixed."""
    return [
        str(node.get_friendly_name())[:_MOST_TEXT]
        for node in model.get_ordered_ops()[:_MOST_OPS]
        if any(not value.partial_shape.is_static for value in node.outputs())
    ]


def _primitives(compiled: Any) -> list[list[str]]:
    """Describe what is executed; what follows from constants alone was done once, before."""
    found = []
    constant: set[str] = set()
    for node in compiled.get_runtime_model().get_ordered_ops()[:_MOST_OPS]:
        told = node.get_rt_info()
        sources = [value.get_source_output().get_node() for value in node.inputs()]
        kind = str(told["layerType"].value) if "layerType" in told else ""
        made_once = sources and all(each.get_friendly_name() in constant for each in sources)
        if kind == "Const" or made_once:
            constant.add(node.get_friendly_name())
            continue
        texts = (str(told[key].value) if key in told else "" for key in _ASKED)
        found.append([text[:_MOST_TEXT] for text in texts])
    return found


def _work(source: str, target: str, report: str) -> None:
    import openvino

    seen: dict[str, Any] = {"stage": "start", "version": str(openvino.__version__)}
    _tell(report, seen)
    try:
        core = openvino.Core()
        model = core.read_model(source)
        seen["open"] = _open_values(model)
        openvino.save_model(model, target, compress_to_fp16=False)
        _tighten(Path(target))
        seen["stage"] = "converted"
        _tell(report, seen)
        settings = {"INFERENCE_PRECISION_HINT": "f32"}
        compiled = core.compile_model(target, "CPU", settings)
        seen["default_precision"] = str(
            core.get_property("CPU", "INFERENCE_PRECISION_HINT").to_string()
        )
        seen["primitives"] = _primitives(compiled)
        seen["stage"] = "compiled"
    except MemoryError:
        seen["error"] = "it runs out of memory"
    except Exception as exc:  # noqa: BLE001 - whatever the library raises is an answer
        seen["error"] = str(exc)[:100_000] or type(exc).__name__
    _tell(report, seen)


if __name__ == "__main__":
    _limit(int(sys.argv[4]))
    _work(*sys.argv[1:4])
    # destructors of a library that met a hostile file are not worth the risk
    sys.stdout.flush()
    os._exit(0)
