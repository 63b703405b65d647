"""Rules for shapes and dtypes of results, one module for each kind of function."""

from xpool.cupy.rules import (
    creation,
    decompositions,
    filters,
    images,
    items,
    joining,
    linalg,
    radar,
    random,
    reductions,
    shapes,
    signals,
    solvers,
    transforms,
)

__all__ = [
    "creation",
    "decompositions",
    "filters",
    "images",
    "items",
    "joining",
    "linalg",
    "radar",
    "random",
    "reductions",
    "shapes",
    "signals",
    "solvers",
    "transforms",
]
