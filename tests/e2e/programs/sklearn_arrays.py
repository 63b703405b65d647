"""scikit-learn over remote arrays, beside NumPy's. Run by test_arrays_more.py.

What scikit-learn lists as taking arrays of other libraries (its user guide, "Array API
support"), as far as the release that is installed goes.
"""

import os

os.environ["SCIPY_ARRAY_API"] = "1"

import json
import sys

import cupy as cp
import numpy as np
from sklearn import config_context, metrics, preprocessing
from sklearn.datasets import make_classification
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge, RidgeClassifier
from sklearn.metrics import pairwise
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

X, y = make_classification(200, 12, n_informative=6, n_classes=3, random_state=0)
X = X.astype(np.float64)
T = X[:, 0] * 2 + X[:, 1]


def fitted(model):
    return lambda X, y, T: model().fit(X, y).predict(X)


def transformed(model):
    return lambda X, y, T: model().fit(X).transform(X)


def scored(name, **keywords):
    return lambda X, y, T: getattr(metrics, name)(T, T * 1.1 + 0.1, **keywords)


def classed(name, **keywords):
    function = getattr(metrics, name)
    return lambda X, y, T: function(y, (y + (X[:, 0] > 1)) % 3, **keywords)


def paired(name, **keywords):
    return lambda X, y, T: getattr(pairwise, name)(X[:20], X[:30], **keywords)


CASES = {
    "PCA": lambda X, y, T: abs(PCA(3, svd_solver="full").fit_transform(X)),
    "PCA covariance": lambda X, y, T: PCA(3, svd_solver="full").fit(X).get_covariance(),
    "LDA": fitted(LinearDiscriminantAnalysis),
    "Ridge": lambda X, y, T: Ridge(solver="svd").fit(X, T).predict(X),
    "RidgeClassifier": lambda X, y, T: (
        RidgeClassifier(solver="svd").fit(X, y).decision_function(X)
    ),
    "StandardScaler": transformed(preprocessing.StandardScaler),
    "MinMaxScaler": transformed(preprocessing.MinMaxScaler),
    "MaxAbsScaler": transformed(preprocessing.MaxAbsScaler),
    "Normalizer": transformed(preprocessing.Normalizer),
    "Binarizer": transformed(preprocessing.Binarizer),
    "KernelCenterer": lambda X, y, T: preprocessing.KernelCenterer().fit_transform(
        X[:12] @ X[:12].T
    ),
    "PolynomialFeatures": transformed(preprocessing.PolynomialFeatures),
    "LabelEncoder": lambda X, y, T: preprocessing.LabelEncoder().fit_transform(y),
    "pipeline": lambda X, y, T: (
        make_pipeline(preprocessing.StandardScaler(), PCA(3, svd_solver="full"))
        .fit(X)
        .transform(X)
    ),
    "train_test_split": lambda X, y, T: train_test_split(X, y, random_state=0)[0],
    "r2_score": scored("r2_score"),
    "mean_squared_error": scored("mean_squared_error"),
    "mean_absolute_error": scored("mean_absolute_error"),
    "root_mean_squared_error": scored("root_mean_squared_error"),
    "max_error": scored("max_error"),
    "explained_variance_score": scored("explained_variance_score"),
    "mean_absolute_percentage_error": scored("mean_absolute_percentage_error"),
    "mean_pinball_loss": scored("mean_pinball_loss"),
    "mean_tweedie_deviance": scored("mean_tweedie_deviance"),
    "d2_tweedie_score": scored("d2_tweedie_score"),
    "mean_squared_log_error": lambda X, y, T: metrics.mean_squared_log_error(
        abs(T), abs(T) + 1
    ),
    "mean_gamma_deviance": lambda X, y, T: metrics.mean_gamma_deviance(
        abs(T) + 1, abs(T) + 2
    ),
    "mean_poisson_deviance": lambda X, y, T: metrics.mean_poisson_deviance(
        abs(T) + 1, abs(T) + 2
    ),
    "accuracy_score": classed("accuracy_score"),
    "zero_one_loss": classed("zero_one_loss"),
    "balanced_accuracy_score": classed("balanced_accuracy_score"),
    "confusion_matrix": classed("confusion_matrix"),
    "f1_score": classed("f1_score", average="macro"),
    "fbeta_score": classed("fbeta_score", beta=2.0, average="macro"),
    "precision_score": classed("precision_score", average="micro"),
    "recall_score": classed("recall_score", average="weighted"),
    "jaccard_score": classed("jaccard_score", average="macro"),
    "hamming_loss": classed("hamming_loss"),
    "cohen_kappa_score": classed("cohen_kappa_score"),
    "matthews_corrcoef": classed("matthews_corrcoef"),
    "log_loss": lambda X, y, T: metrics.log_loss(
        y, (abs(X[:, :3]) + 1) / (abs(X[:, :3]) + 1).sum(axis=1)[:, None]
    ),
    **{
        name: paired(name)
        for name in (
            *("cosine_similarity", "cosine_distances", "euclidean_distances"),
            *("linear_kernel", "polynomial_kernel", "rbf_kernel", "sigmoid_kernel"),
            *("additive_chi2_kernel", "chi2_kernel", "laplacian_kernel"),
            *("manhattan_distances",),
        )
        if "chi2" not in name
    },
    "chi2_kernel": lambda X, y, T: pairwise.chi2_kernel(abs(X[:9]), abs(X[:7])),
    "paired_cosine": lambda X, y, T: pairwise.paired_cosine_distances(X, X + 1),
    "paired_euclidean": lambda X, y, T: pairwise.paired_euclidean_distances(X, X + 1),
}

remote = cp.asarray(X), cp.asarray(y), cp.asarray(T)
outcomes = {}
for name, run in CASES.items():
    expected = run(X, y, T)
    try:
        with config_context(array_api_dispatch=True):
            found = run(*remote)
        host = cp.asnumpy(found) if isinstance(found, cp.ndarray) else found
        np.testing.assert_allclose(host, expected, rtol=1e-5, atol=1e-6)
        outcomes[name] = "same"
    except Exception as error:
        outcomes[name] = f"{type(error).__name__}: {str(error)[:150]}"
print(json.dumps(outcomes))
sys.exit(0)
