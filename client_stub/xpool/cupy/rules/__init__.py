"""Rules for shapes and dtypes of results, one module for each kind of function."""

from xpool.cupy.rules import (
    creation,
    decompositions,
    items,
    joining,
    linalg,
    random,
    reductions,
    shapes,
    solvers,
    transforms,
)

__all__ = [
    "creation",
    "decompositions",
    "items",
    "joining",
    "linalg",
    "random",
    "reductions",
    "shapes",
    "solvers",
    "transforms",
]
