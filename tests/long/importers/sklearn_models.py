"""Train small real estimators and save them; runs where scikit-learn is.

Usage: python sklearn_models.py FOLDER [boosters]. For each model it writes the file and, beside
it, ``NAME.calib.npz`` and ``NAME.test.npz`` with rows and labels, and ``NAME.told.npz`` with
what the framework answers to the test rows.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine

DIGITS, WINE = load_digits(return_X_y=True), load_wine(return_X_y=True)
CANCER, DIABETES = load_breast_cancer(return_X_y=True), load_diabetes(return_X_y=True)
WORDS = np.array(["barolo", "grignolino", "barbera"])


def save(folder, name, estimator, data, write, classes=None):
    rows, target = data
    order = np.random.default_rng(0).permutation(len(rows))
    rows, target = rows[order].astype(np.float32), target[order]
    half = len(rows) // 2
    words = target if classes is None else classes[target]
    estimator.fit(rows[:half], words[:half])
    write(estimator)
    np.savez(folder / f"{name}.calib.npz", input=rows[:half][:128])
    np.savez(folder / f"{name}.test.npz", input=rows[half:], labels=target[half:])
    exact = rows[half:].astype(np.float64)
    told = estimator.predict(exact)
    if classes is not None:
        told = np.searchsorted(estimator.classes_, told)
        np.savez(
            folder / f"{name}.test.npz",
            input=rows[half:],
            labels=np.searchsorted(estimator.classes_, words[half:]),
        )
    np.savez(folder / f"{name}.told.npz", answer=told)


def plain(folder):
    import joblib
    import skops.io
    from sklearn.compose import ColumnTransformer
    from sklearn.decomposition import PCA
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.ensemble import (
        GradientBoostingClassifier,
        HistGradientBoostingClassifier,
        RandomForestClassifier,
        RandomForestRegressor,
    )
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.naive_bayes import GaussianNB
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler, StandardScaler
    from sklearn.svm import SVC, SVR, LinearSVC

    scaled = StandardScaler
    columns = ColumnTransformer(
        [("a", scaled(), [0, 1, 2, 3]), ("b", MinMaxScaler(), slice(4, 9))],
        remainder="passthrough",
    )
    models = {
        "digits-mlp": (
            make_pipeline(scaled(), MLPClassifier((48,), max_iter=80, random_state=0)),
            DIGITS,
        ),
        "digits-svm": (make_pipeline(scaled(), SVC(gamma=0.02)), DIGITS),
        "digits-linear-svm": (SVC(kernel="linear"), DIGITS),
        "digits-logistic": (make_pipeline(scaled(), LogisticRegression(max_iter=200)), DIGITS),
        "digits-forest": (
            make_pipeline(scaled(), RandomForestClassifier(40, random_state=0)),
            DIGITS,
        ),
        "digits-boosting": (
            GradientBoostingClassifier(n_estimators=20, max_depth=3, random_state=0),
            DIGITS,
        ),
        "digits-histogram": (
            HistGradientBoostingClassifier(max_iter=15, random_state=0),
            DIGITS,
        ),
        "digits-neighbours": (KNeighborsClassifier(5), DIGITS),
        "digits-pca": (make_pipeline(PCA(24), LogisticRegression(max_iter=200)), DIGITS),
        "wine-columns": (make_pipeline(columns, LinearDiscriminantAnalysis()), WINE),
        "wine-bayes": (GaussianNB(), WINE),
        "cancer-svm": (make_pipeline(scaled(), SVC(probability=True, random_state=0)), CANCER),
        "cancer-linear": (make_pipeline(scaled(), LinearSVC(random_state=0)), CANCER),
        "diabetes-svr": (make_pipeline(scaled(), SVR(C=50)), DIABETES),
        "diabetes-forest": (RandomForestRegressor(20, random_state=0), DIABETES),
        "diabetes-ridge": (Ridge(), DIABETES),
    }
    for name, (estimator, data) in models.items():
        path = folder / f"{name}.skops"
        save(folder, name, estimator, data, lambda made, path=path: skops.io.dump(made, path))
    for name, estimator in (
        ("wine-words", make_pipeline(scaled(), LogisticRegression())),
        ("wine-forest-words", RandomForestClassifier(15, random_state=0)),
        (
            "wine-mlp-words",
            make_pipeline(scaled(), MLPClassifier((16,), max_iter=300, random_state=0)),
        ),
        ("wine-svm-words", make_pipeline(scaled(), SVC())),
    ):
        path = folder / f"{name}.joblib"
        save(
            folder,
            name,
            estimator,
            WINE,
            lambda made, path=path: joblib.dump(made, path),
            WORDS,
        )


def boosters(folder):
    import lightgbm
    import skops.io
    import xgboost
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def written(suffix):
        return lambda made: made.save_model(folder / f"{name}{suffix}")

    few = {"n_estimators": 15, "max_depth": 4}
    name = "digits-xgboost"
    save(folder, name, xgboost.XGBClassifier(**few), DIGITS, written(".json"))
    name = "cancer-xgboost"
    save(folder, name, xgboost.XGBClassifier(**few), CANCER, written(".ubj"))
    name = "diabetes-xgboost"
    save(folder, name, xgboost.XGBRegressor(**few), DIABETES, written(".ubj"))

    def text(made):
        made.booster_.save_model(folder / f"{name}.txt")

    quiet = {**few, "verbose": -1}
    name = "digits-lightgbm"
    save(folder, name, lightgbm.LGBMClassifier(**quiet), DIGITS, text)
    name = "cancer-lightgbm"
    save(folder, name, lightgbm.LGBMClassifier(**quiet), CANCER, text)
    name = "diabetes-lightgbm"
    save(folder, name, lightgbm.LGBMRegressor(**quiet), DIABETES, text)
    for name, inside in (
        ("digits-xgboost-pipeline", xgboost.XGBClassifier(**few)),
        ("digits-lightgbm-pipeline", lightgbm.LGBMClassifier(**quiet)),
    ):
        save(
            folder,
            name,
            make_pipeline(StandardScaler(), inside),
            DIGITS,
            lambda made, file=f"{name}.skops": skops.io.dump(made, folder / file),
        )


if __name__ == "__main__":
    (boosters if sys.argv[2:] == ["boosters"] else plain)(Path(sys.argv[1]))
