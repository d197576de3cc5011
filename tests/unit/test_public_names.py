"""What the package offers, and that offering it costs nothing."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import edgesdk

SRC = Path(edgesdk.__file__).parent
HEAVY = (
    "numpy", "onnx", "onnx_ir", "onnxruntime", "pydantic", "paramiko", "serial", "torch",
    "tensorflow", "keras", "sklearn", "skl2onnx",
)  # fmt: skip


@pytest.mark.parametrize("name", edgesdk.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(edgesdk, name) is not None


def test_the_public_names_are_the_lazy_ones_and_the_version() -> None:
    assert list(edgesdk.__all__) == sorted(edgesdk.__all__)
    assert set(edgesdk.__all__) == {*edgesdk._MODULE_OF, "__version__"}
    assert set(edgesdk.__all__) <= set(dir(edgesdk))


def test_type_checkers_see_the_same_names_in_the_same_modules() -> None:
    tree = ast.parse((SRC / "__init__.py").read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        alias.name: (node.module or "").removeprefix("edgesdk.")
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == edgesdk._MODULE_OF


@pytest.mark.parametrize(
    "code",
    [
        "import edgesdk; q = edgesdk.quantize; import edgesdk.quantize.values as v",
        "import edgesdk.quantize.values as v; import edgesdk; q = edgesdk.quantize",
        "from edgesdk import quantize as q; from edgesdk.quantize import values as v",
        "from edgesdk.quantize.api import quantize; from edgesdk import quantize as q\n"
        "import edgesdk.quantize.values as v",
    ],
)
def test_quantize_is_the_same_callable_package_however_it_is_reached(code: str) -> None:
    code += (
        "\nimport edgesdk, inspect, sys\n"
        "assert q is edgesdk.quantize is sys.modules['edgesdk.quantize'], q\n"
        "assert callable(q) and v.Quantized\n"
        "assert list(inspect.signature(q).parameters)[:2] == ['model', 'data']\n"
        "assert 'Calibration samples' in inspect.getdoc(q)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'edgesdk' has no attribute 'deploi'"):
        edgesdk.deploi  # noqa: B018


def test_importing_the_package_loads_nothing_and_changes_nothing() -> None:
    code = (
        "import logging, sys, warnings\n"
        "before = (list(logging.root.handlers), logging.root.level, len(warnings.filters))\n"
        "import edgesdk\n"
        f"heavy = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "after = (list(logging.root.handlers), logging.root.level, len(warnings.filters))\n"
        "ours = sorted(name for name in sys.modules if name.startswith('edgesdk'))\n"
        "print(heavy, before == after, ours)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[] True ['edgesdk']\n"
    assert done.stderr == ""


def modules() -> list[str]:
    return sorted(
        ".".join(("edgesdk", *path.relative_to(SRC).with_suffix("").parts)).removesuffix(
            ".__init__"
        )
        for path in SRC.rglob("*.py")
        if path.name != "__main__.py" and "_data" not in path.parts
    )


@pytest.mark.parametrize("name", modules())
def test_all_names_what_exists(name: str) -> None:
    module = importlib.import_module(name)
    for public in getattr(module, "__all__", ()):
        assert getattr(module, public, None) is not None or hasattr(module, public), public


def test_the_file_that_marks_the_types_is_there() -> None:
    assert (SRC / "py.typed").is_file()
