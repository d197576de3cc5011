"""Get an estimator out of a file: skops archives, pickles, and the boosters' own files.

A pickle runs what it names, so without the user's word it is not loaded at all. skops builds
objects of types it knows and asks about others. A few of those it asks about hold numbers only:
they are taken, and numbers that are used as indices are checked before anything is computed.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgesdk.importers.frameworks.pickle_scan import globals_in_file
from edgesdk.importers.job import CannotExport, Job

__all__ = ["Loaded", "check_trees", "load_estimator", "refuse_pickle"]

_MOST_ARCHIVE_BYTES = 1 << 32
_MOST_SCHEMA_BYTES = 1 << 28
_MOST_OBJECTS = 1 << 20
_MOST_NAMES = 12
#: Types that skops asks about and that are numbers and names inside. It asks about trees for
#: their unchecked indices, which `check_trees` checks.
_NUMBERS_ONLY = (
    "collections.OrderedDict",
    "lightgbm.basic.Booster",
    "lightgbm.sklearn.LGBMClassifier",
    "lightgbm.sklearn.LGBMRegressor",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    "sklearn.tree._tree.Tree",
    "xgboost.core.Booster",
    "xgboost.sklearn.XGBClassifier",
    "xgboost.sklearn.XGBRFClassifier",
    "xgboost.sklearn.XGBRFRegressor",
    "xgboost.sklearn.XGBRegressor",
)
#: Packages whose names in a pickle of an estimator are no surprise.
_EXPECTED = frozenset(
    {"sklearn", "numpy", "scipy", "joblib", "xgboost", "lightgbm", "collections"}
)
_EXPECTED_NAMES = frozenset({"copyreg._reconstructor", "builtins.object", "_codecs.encode"})
_VERSION = re.compile(rb"_sklearn_version.{0,400}?(\d+\.\d+(?:\.\w+)*)", re.DOTALL)
_SIZE_HINT = "is it the estimator alone? save a smaller one, such as with fewer trees"
_TRUST_HINT = (
    "save it as a .skops file, which loads without running anything (skops.io.dump), or give "
    "--trust if you know who made this file"
)


class Loaded:
    """An estimator out of a file.

    Attributes:
        estimator: The object.
        notes: What the user should know of how it was loaded.
    """

    def __init__(self, estimator: Any, notes: tuple[str, ...] = ()) -> None:
        self.estimator = estimator
        self.notes = notes


def load_estimator(job: Job) -> Loaded:
    """Load what a job names.

    Raises:
        CannotExport: It would run code, is damaged, of another version, or no estimator.
    """
    if job.kind == "sklearn-live":
        return Loaded(job.source)
    path = Path(job.source)
    if job.kind == "skops":
        return _skops(path, job)
    if job.kind in ("pickle", "joblib"):
        return _pickle(path, job)
    if job.kind == "xgboost":
        return Loaded(_xgboost(path))
    if job.kind == "lightgbm":
        return Loaded(_lightgbm(path))
    raise CannotExport(
        f"cannot import {path.name}: {job.kind!r} is no format of this exporter",
        hint="please report it, with the command that led here",
    )


def refuse_pickle(job: Job) -> None:
    """Refuse a pickle that is not trusted, by what it names; nothing of it is loaded.

    Raises:
        CannotExport: It is not trusted.
    """
    if not job.trust:
        path = Path(job.source)
        names = globals_in_file(path)
        odd = [each for each in names if not _is_expected(each)]
        listed = [*odd, *(each for each in names if each not in odd)]
        shown = ", ".join(listed[:_MOST_NAMES]) or "nothing that can be read"
        more = f" and {len(listed) - _MOST_NAMES} more" if len(listed) > _MOST_NAMES else ""
        beware = f"; {', '.join(odd[:4])} belong to no estimator" if odd else ""
        raise CannotExport(
            f"cannot import {path.name}: it is a pickle, and loading one runs what it names: "
            f"{shown}{more}{beware} (not loaded)",
            hint=_TRUST_HINT,
            globals=listed,
        )


def _pickle(path: Path, job: Job) -> Loaded:
    refuse_pickle(job)
    import joblib

    return _load(path, lambda: joblib.load(path), path.read_bytes)


def _is_expected(name: str) -> bool:
    return name.partition(".")[0] in _EXPECTED or name in _EXPECTED_NAMES


def _skops(path: Path, job: Job) -> Loaded:
    import skops.io

    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {each.filename: each.file_size for each in archive.infolist()}
            if sizes.get("schema.json", 0) > _MOST_SCHEMA_BYTES:
                raise CannotExport(
                    f"cannot import {path.name}: its schema.json is too large", hint=_SIZE_HINT
                )
            if sum(sizes.values()) > _MOST_ARCHIVE_BYTES:
                raise CannotExport(
                    f"cannot import {path.name}: it unpacks to {sum(sizes.values()) >> 20} MiB "
                    f"(at most {_MOST_ARCHIVE_BYTES >> 20})",
                    hint=_SIZE_HINT,
                )
            schema = archive.read("schema.json")
        asked = skops.io.get_untrusted_types(file=path)
    except CannotExport:
        raise
    except Exception as exc:
        raise _damaged(path, "skops archive", exc) from exc
    unknown = [each for each in asked if each not in _NUMBERS_ONLY]
    if unknown and not job.trust:
        raise CannotExport(
            f"cannot import {path.name}: it builds objects that are not known to be harmless: "
            f"{', '.join(unknown[:_MOST_NAMES])} (not loaded)",
            hint="give --trust if you know who made this file; or save the estimator without "
            "them",
            types=unknown,
        )
    loaded = _load(path, lambda: skops.io.load(path, trusted=asked), lambda: schema)
    if not job.trust:
        check_trees(loaded.estimator, path.name)
    return loaded


def _load(path: Path, load: Any, content: Any) -> Loaded:
    """Call a loader; say whose versions are apart where they are."""
    import sklearn

    wrote = _written_by(content())
    apart = wrote is not None and _minor(wrote) != _minor(sklearn.__version__)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            estimator = load()
    except ModuleNotFoundError as exc:
        raise CannotExport(
            f"cannot import {path.name}: it needs the package {exc.name!r}, which this "
            "environment does not have",
            hint="with edgesdk installed beside it, edgesdk.from_sklearn(estimator) imports in "
            "your own process",
        ) from exc
    except MemoryError:
        raise
    except Exception as exc:
        if apart:
            raise CannotExport(
                f"cannot import {path.name}: scikit-learn {wrote} wrote it, and "
                f"{sklearn.__version__} does not read it: {_line(exc)}",
                hint=f"save it anew with scikit-learn {sklearn.__version__}, or use "
                "edgesdk.from_sklearn(estimator) where it was trained",
                wrote=wrote,
                reads=sklearn.__version__,
            ) from exc
        raise _damaged(path, "file of an estimator", exc) from exc
    note = (
        f"scikit-learn {wrote} wrote the file and {sklearn.__version__} read it, which "
        "scikit-learn does not promise to work: compare the results with your own data"
    )
    return Loaded(estimator, (note,) if apart else ())


def _written_by(content: bytes) -> str | None:
    found = _VERSION.search(content)
    return None if found is None else found[1].decode("ascii")


def _minor(version: str) -> tuple[str, ...]:
    return tuple(version.split(".")[:2])


def _xgboost(path: Path) -> Any:
    import json

    import xgboost

    try:
        booster = xgboost.Booster(model_file=str(path))
        objective = json.loads(booster.save_config())["learner"]["objective"]["name"]
        is_classifier = objective.startswith(("binary:", "multi:"))
        made = xgboost.XGBClassifier() if is_classifier else xgboost.XGBRegressor()
        made.load_model(str(path))
    except Exception as exc:
        raise _damaged(path, f"model of XGBoost {xgboost.__version__}", exc) from exc
    return made


def _lightgbm(path: Path) -> Any:
    import lightgbm

    try:
        return lightgbm.Booster(model_file=str(path))
    except Exception as exc:
        raise _damaged(path, f"model of LightGBM {lightgbm.__version__}", exc) from exc


def _damaged(path: Path, what: str, exc: Exception) -> CannotExport:
    return CannotExport(
        f"cannot import {path.name}: it is no whole {what}: {_line(exc)}",
        hint="copy it again, or save the model again",
    )


def _line(exc: BaseException) -> str:
    return f"{type(exc).__name__}: {' '.join(str(exc).split())[:300]}"


def check_trees(estimator: Any, name: str) -> None:
    """Refuse trees whose indices lead outside: scikit-learn follows them without a look.

    Raises:
        CannotExport: One does, or there are too many objects to look at.
    """
    for kind, tree, features in _trees(estimator, name):
        wrong = _wrong_tree(tree, features) if kind == "Tree" else _wrong_hist(tree, features)
        if wrong:
            raise CannotExport(
                f"cannot import {name}: a tree in it {wrong}",
                hint="the file is damaged or was made to do harm",
            )


def _trees(root: Any, name: str) -> Iterator[tuple[str, Any, int]]:
    """Find every tree, with the number of features that the estimator around it takes."""
    import numpy as np

    seen: set[int] = set()
    waiting: list[tuple[Any, int]] = [(root, 0)]
    while waiting:
        each, features = waiting.pop()
        if isinstance(each, (str, bytes, int, float, type(None))) or id(each) in seen:
            continue
        seen.add(id(each))
        if len(seen) > _MOST_OBJECTS:
            raise CannotExport(
                f"cannot import {name}: it has over {_MOST_OBJECTS} objects", hint=_SIZE_HINT
            )
        kind = type(each).__name__
        if kind in ("Tree", "TreePredictor"):
            yield kind, each, features
        elif isinstance(each, dict):
            waiting += [(value, features) for value in each.values()]
        elif isinstance(each, (list, tuple, set)):
            waiting += [(value, features) for value in each]
        elif isinstance(each, np.ndarray):
            if each.dtype == object:
                waiting += [(value, features) for value in each.ravel().tolist()]
        elif hasattr(each, "__dict__"):
            own = each.__dict__.get("n_features_in_", features)
            width = own if isinstance(own, int) else features
            waiting += [(value, width) for value in each.__dict__.values()]


def _wrong_tree(tree: Any, features: int) -> str:
    import numpy as np

    if not 0 < tree.node_count <= tree.capacity:
        return f"says it has {tree.node_count} nodes (and holds {tree.capacity})"
    left, right, feature = tree.children_left, tree.children_right, tree.feature
    inner = left != -1
    return _outside(
        np.stack([left, right])[:, inner], np.flatnonzero(inner), tree.node_count
    ) or _foreign(feature[inner], min(features or tree.n_features, tree.n_features))


def _wrong_hist(tree: Any, features: int) -> str:
    import numpy as np

    nodes = tree.nodes
    inner = nodes["is_leaf"] == 0
    children = np.stack([nodes["left"], nodes["right"]])[:, inner].astype(np.int64)
    if len(nodes) == 0:
        return "has no node"
    by_category = inner & (nodes["is_categorical"] != 0)
    sets = len(getattr(tree, "raw_left_cat_bitsets", ()))
    if by_category.any() and nodes["bitset_idx"][by_category].max() >= sets:
        return f"asks for a set of categories that is not there (it has {sets})"
    return _outside(children, np.flatnonzero(inner), len(nodes)) or _foreign(
        nodes["feature_idx"][inner].astype(np.int64), features
    )


def _outside(children: Any, parents: Any, count: int) -> str:
    """Children come after their parent, so that no walk goes round."""
    if children.size and (children.max() >= count or (children <= parents).any()):
        return f"leads from a node to one that is not below it (it has {count} nodes)"
    return ""


def _foreign(feature: Any, features: int) -> str:
    if feature.size and not (feature.min() >= 0 and feature.max() < features):
        return f"asks for feature {int(feature.max())} (there are {features})"
    return ""
