"""edgesdk: a trained model to a measured, verified, reversible deployment on your own boards.

The package offers its nouns and verbs, each loaded on first use, so that importing it costs
nothing: no file is read, no logging configured, no runtime loaded. Each verb takes the values
that the one before it gave::

    opened = open_model("model.onnx")
    plan = plan_build(model_facts(opened), profile, recipe)
    bundle = build_bundle(opened, profile, recipe, plan, calib=data, out=folder)
    deployment = deploy_bundle(bundle, session, device=device, profile=profile)
    report = run_benchmark(session, bundle, device=device, deployment=deployment)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgesdk.backends.base import ModelFacts
    from edgesdk.bench.benchmark import run_benchmark
    from edgesdk.bench.contest import Entrant, run_contest
    from edgesdk.bench.values import BenchmarkReport, BenchSpec
    from edgesdk.build.pipeline import build_bundle
    from edgesdk.bundle.export import export_bundle
    from edgesdk.bundle.store import Bundle, read_bundle, verify_bundle
    from edgesdk.data.dataset import Dataset, open_dataset
    from edgesdk.data.preprocess import Preprocess
    from edgesdk.deploy.activate import activate_bundle
    from edgesdk.deploy.deploy import deploy_bundle, prove_bundle
    from edgesdk.deploy.releases import (
        collect_garbage,
        list_releases,
        rollback,
        run_on_device,
    )
    from edgesdk.deploy.values import Deployment
    from edgesdk.devices.connect import connect
    from edgesdk.devices.inventory import Device, load_inventory, resolve_device
    from edgesdk.devices.session import Session
    from edgesdk.errors import EdgeError
    from edgesdk.importers.importing import (
        ImportChoices,
        Imported,
        import_model,
        open_imported,
    )
    from edgesdk.importers.live import from_keras, from_sklearn, from_torch
    from edgesdk.importers.toolchains import Toolchain, Toolchains
    from edgesdk.model.lint import lint_model
    from edgesdk.model.open import OpenedModel, open_model
    from edgesdk.model.tflite import OpenedTflite, open_tflite
    from edgesdk.model.values import Finding, SourceModel
    from edgesdk.plan.contest import plan_contest
    from edgesdk.plan.planner import model_facts, plan_build
    from edgesdk.plan.recipe import Recipe, load_recipe
    from edgesdk.plan.values import BuildPlan
    from edgesdk.profiles.catalog import default_target, find_target, load_catalog
    from edgesdk.profiles.values import QuantScheme, TargetProfile
    from edgesdk.progress import OnProgress, Progress
    from edgesdk.quantize.api import quantize
    from edgesdk.quantize.values import Quantized
    from edgesdk.report.files import write_report
    from edgesdk.report.read import read_report
    from edgesdk.tensors import TensorInfo

__all__ = [
    "BenchSpec",
    "BenchmarkReport",
    "BuildPlan",
    "Bundle",
    "Dataset",
    "Deployment",
    "Device",
    "EdgeError",
    "Entrant",
    "Finding",
    "ImportChoices",
    "Imported",
    "ModelFacts",
    "OnProgress",
    "OpenedModel",
    "OpenedTflite",
    "Preprocess",
    "Progress",
    "QuantScheme",
    "Quantized",
    "Recipe",
    "Session",
    "SourceModel",
    "TargetProfile",
    "TensorInfo",
    "Toolchain",
    "Toolchains",
    "__version__",
    "activate_bundle",
    "build_bundle",
    "collect_garbage",
    "connect",
    "default_target",
    "deploy_bundle",
    "export_bundle",
    "find_target",
    "from_keras",
    "from_sklearn",
    "from_torch",
    "import_model",
    "lint_model",
    "list_releases",
    "load_catalog",
    "load_inventory",
    "load_recipe",
    "model_facts",
    "open_dataset",
    "open_imported",
    "open_model",
    "open_tflite",
    "plan_build",
    "plan_contest",
    "prove_bundle",
    "quantize",
    "read_bundle",
    "read_report",
    "resolve_device",
    "rollback",
    "run_benchmark",
    "run_contest",
    "run_on_device",
    "verify_bundle",
    "write_report",
]

__version__ = "0.1.0"

#: Where each public name lives; the imports above say the same to type checkers.
_HOMES = {
    "backends.base": ("ModelFacts",),
    "bench.benchmark": ("run_benchmark",),
    "bench.contest": ("Entrant", "run_contest"),
    "bench.values": ("BenchSpec", "BenchmarkReport"),
    "build.pipeline": ("build_bundle",),
    "bundle.export": ("export_bundle",),
    "bundle.store": ("Bundle", "read_bundle", "verify_bundle"),
    "data.dataset": ("Dataset", "open_dataset"),
    "data.preprocess": ("Preprocess",),
    "deploy.activate": ("activate_bundle",),
    "deploy.deploy": ("deploy_bundle", "prove_bundle"),
    "deploy.releases": ("collect_garbage", "list_releases", "rollback", "run_on_device"),
    "deploy.values": ("Deployment",),
    "devices.connect": ("connect",),
    "devices.inventory": ("Device", "load_inventory", "resolve_device"),
    "devices.session": ("Session",),
    "errors": ("EdgeError",),
    "importers.importing": ("ImportChoices", "Imported", "import_model", "open_imported"),
    "importers.live": ("from_keras", "from_sklearn", "from_torch"),
    "importers.toolchains": ("Toolchain", "Toolchains"),
    "model.lint": ("lint_model",),
    "model.open": ("OpenedModel", "open_model"),
    "model.tflite": ("OpenedTflite", "open_tflite"),
    "model.values": ("Finding", "SourceModel"),
    "plan.contest": ("plan_contest",),
    "plan.planner": ("model_facts", "plan_build"),
    "plan.recipe": ("Recipe", "load_recipe"),
    "plan.values": ("BuildPlan",),
    "profiles.catalog": ("default_target", "find_target", "load_catalog"),
    "profiles.values": ("QuantScheme", "TargetProfile"),
    "progress": ("OnProgress", "Progress"),
    "quantize.api": ("quantize",),
    "quantize.values": ("Quantized",),
    "report.files": ("write_report",),
    "report.read": ("read_report",),
    "tensors": ("TensorInfo",),
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    """Import the module of a public name when the name is first used."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'edgesdk' has no attribute {name!r}")
    home = _MODULE_OF[name]
    if home.partition(".")[0] == name:
        # a verb named like its package: the package can be called, and is what
        # `import edgesdk.quantize` has to find under that name
        return importlib.import_module(f"edgesdk.{name}")
    value = getattr(importlib.import_module(f"edgesdk.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *__all__})
