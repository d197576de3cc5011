"""ONNX's classical operators as tensor arithmetic, which every backend takes.

`ai.onnx.ml` holds what scikit-learn and its like export: scalers, linear models, support vector
machines, trees. Few runtimes have it. Most of it is plain arithmetic under another name, so
`lower_classical` writes it as such; trees branch, and stay. What an operator computes, where
ONNX's text leaves it open, is what onnxruntime computes.

One module for a family: `features` for what comes before an estimator, `linear`, `svm`,
`labels`; `scores` for what is done to scores, `columns` for what exporters write around them,
`writing` for how nodes are put down, `stays` for the reasons of what is no arithmetic.
"""

from __future__ import annotations

from edgesdk.model.classical.columns import join_columns
from edgesdk.model.classical.lower import DOMAIN, TREES, lower_classical
from edgesdk.model.classical.stays import why_it_stays

__all__ = ["DOMAIN", "TREES", "join_columns", "lower_classical", "why_it_stays"]
