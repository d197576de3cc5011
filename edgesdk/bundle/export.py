"""Write the parts of a bundle under telling names, for use without edgesdk."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from edgesdk.bundle.store import Bundle, verify_bundle
from edgesdk.errors import OutputError
from edgesdk.wire.manifest import FORMAT_SUFFIX, part_file_name

__all__ = ["export_bundle"]

_HOW_TO_RUN = {
    "onnxruntime": """import onnxruntime
session = onnxruntime.InferenceSession({file!r})
outputs = session.run(None, {feeds})""",
    "openvino": """import openvino
compiled = openvino.Core().compile_model({file!r}, {device!r})
outputs = compiled({feeds})""",
    "litert": """from ai_edge_litert.interpreter import Interpreter  # or tflite_runtime
interpreter = Interpreter({file!r})
interpreter.allocate_tensors()
# set_tensor for each input below, invoke(), get_tensor for each output""",
}
#: For a target without Python, which the manifest then names none for.
_FIRMWARE = """Only firmware runs on the target. Compile the file into it, 16 bytes aligned:

```sh
xxd -i {file} > model.inc
```

and give it to TensorFlow Lite Micro with the operators that it still has, `ethos-u` among them
where one was compiled for. Quantized inputs and outputs are the raw integers they are."""


def export_bundle(bundle: Bundle, out: Path) -> tuple[Path, ...]:
    """Verify ``bundle`` and copy its parts into ``out``, with a note on how to feed them.

    A one-part bundle gives ``<name>.<precision>.onnx``; several parts are numbered in the order
    in which they run. ONNX external data keeps the name that the model file holds; the weights
    of OpenVINO IR are named like it.

    Returns:
        The files written.

    Raises:
        BundleError: The bundle does not hold what its manifest says.
        OutputError: ``out`` is not empty or cannot be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(
            f"cannot export to {out}: it exists and is not an empty folder",
            hint="name a folder that does not exist yet",
            path=str(out),
        )
    verify_bundle(bundle)
    try:
        out.mkdir(parents=True, exist_ok=True)
        return _write(bundle, out)
    except OSError as exc:
        raise OutputError(
            f"cannot export to {out}: {exc.strerror or exc}",
            hint="is there room, and may you write there?",
            path=str(out),
        ) from exc


def _write(bundle: Bundle, out: Path) -> tuple[Path, ...]:
    parts, target = bundle.manifest["parts"], bundle.manifest["target"]
    written: list[Path] = []
    notes = [_heading(bundle)]
    for index, part in enumerate(parts):
        number = f".part-{index}" if len(parts) > 1 else ""
        name = f"{bundle.name}{number}.{part['precision']}{FORMAT_SUFFIX[part['format']]}"
        for record in part["files"]:
            file = name
            if record["role"] == "data":
                file = part_file_name(index, "data", part["format"])
                if part["format"] == "openvino":  # found by the name of the model beside it
                    file = str(Path(name).with_suffix(Path(file).suffix))
            _copy(bundle.blob_path(record["sha256"]), out / file)
            written.append(out / file)
        notes.append(_note(part, name, is_firmware=target.get("python", "") is None))
    for file, text in (
        ("HOW-TO-USE.md", "\n".join(notes)),
        ("preprocess.json", json.dumps(bundle.manifest.get("preprocess"), indent=2) + "\n"),
    ):
        if file == "preprocess.json" and bundle.manifest.get("preprocess") is None:
            continue
        (out / file).write_text(text, encoding="utf-8")
        written.append(out / file)
    return tuple(written)


def _copy(source: Path, target: Path) -> None:
    with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as landing:
        landed = Path(landing.name)
        try:
            with source.open("rb") as stream:
                shutil.copyfileobj(stream, landing)
            landing.flush()  # a full disk may tell only here
            landed.chmod(0o644)
            landed.rename(target)
        except BaseException:
            landed.unlink(missing_ok=True)
            raise


def _heading(bundle: Bundle) -> str:
    target = bundle.manifest["target"]["name"]
    title = f"# {bundle.name}, {bundle.precision}, for {target}"
    return f"{title}\n\nExported from bundle `{bundle.id}`.\n"


def _note(part: dict[str, Any], name: str, *, is_firmware: bool) -> str:
    feeds = "{" + ", ".join(f"{value['name']!r}: ..." for value in part["inputs"]) + "}"
    lines = [f"## {name}", "", f"Runtime: {part['runtime']} (backend {part['backend']})", ""]
    for title, values in (("Inputs", part["inputs"]), ("Outputs", part["outputs"])):
        lines.append(f"{title}:")
        lines += [f"- `{v['name']}`: {v['dtype']} {v['shape']}" for v in values]
        lines.append("")
    if is_firmware:
        lines += [_FIRMWARE.format(file=name), ""]
    elif part["runtime"] in _HOW_TO_RUN:
        device = part["options"].get("device", "CPU")
        code = _HOW_TO_RUN[part["runtime"]].format(file=name, feeds=feeds, device=device)
        lines += ["```python", code, "```", ""]
    return "\n".join(lines)
