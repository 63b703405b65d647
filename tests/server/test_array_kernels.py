"""Kernel bodies on a CPU: what C++ would compute, or a refusal; never anything else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from xpool_protocol.errors import ArgumentInvalid
from xpool_server.arrays.kernel_calls import elementwise, parameters, reduction
from xpool_server.arrays.kernel_parser import Parser, Unsupported

X = np.array([1.5, -2.0, 0.0, 7.25], np.float32)
N = np.array([7, -7, 3, -1], np.int32)


def run(operation: str, *arguments: Any, ins: str = "T x", outs: str = "T z") -> Any:
    return elementwise(ins, outs, operation, arguments)


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        ("z = x * x + 1", X * X + 1),
        ("z = x > 0 ? sqrt(x) : -x;", np.where(X > 0, np.sqrt(abs(X)), -X)),
        ("T y = x; y += 2; z = y;", X + 2),
        ("if (x < 0) { z = 0; } else z = x;", np.maximum(X, 0)),
        ("z = max(x, (T)0) /* relu */;", np.maximum(X, 0)),
        ("z = static_cast<int>(x);", np.trunc(X)),
        ("z = int(x) / 2;", np.array([0, -1, 0, 3])),
        ("z = x && !(x < 1);", (X != 0) & (X >= 1)),
        ("z = fabsf(x); // absolute", abs(X)),
        ("z = i;", np.arange(4)),
        ("z = 0x10 + 010 + 1e1 + 2.5f;", np.full(4, 36.5)),
    ],
)
def test_expressions(operation: str, expected: Any) -> None:
    found = run(operation, X)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected)


def test_integers_are_those_of_c() -> None:
    np.testing.assert_array_equal(run("z = x / 2", N), [3, -3, 1, 0])
    np.testing.assert_array_equal(run("z = x % 4", N), [3, -3, 3, -1])
    np.testing.assert_array_equal(run("z = x << 1 | 1", N), N * 2 | 1)
    half = run("z = x / 2", N, outs="float32 z")
    np.testing.assert_array_equal(half, [3, -3, 1, 0])
    small = np.array([200], np.uint8)
    np.testing.assert_array_equal(run("z = x + x", small, outs="int32 z"), [400])
    wrapped = run("z = x + 1", np.array([2**31 - 1], np.int32))
    np.testing.assert_array_equal(wrapped, [-(2**31)])


def test_types_of_results() -> None:
    assert run("z = x", X, outs="float64 z").dtype == np.float64
    # An int and a float are a float, not a double: 1/3 is rounded to it.
    third = run("z = n / 3.0f", N, ins="int32 n", outs="float64 z")
    np.testing.assert_array_equal(third, (N / np.float32(3)).astype(np.float32))
    both = elementwise("T x, U y", "T z, U w", "z = x; w = y", (X, N))
    assert [one.dtype for one in both] == [np.float32, np.int32]
    with pytest.raises(TypeError, match="mismatched"):
        elementwise("T x, T y", "T z", "z = x + y", (X, N))
    with pytest.raises(TypeError, match="mismatched"):
        elementwise("float64 x", "float64 z", "z = x", (X,))


def test_broadcasting_numbers_and_outputs() -> None:
    row, column = np.arange(3.0), np.arange(2.0)[:, None]
    found = elementwise("T x, T y", "T z", "z = x + y", (row, column))
    np.testing.assert_array_equal(found, row + column)
    found = elementwise("T x, float32 f", "T z", "z = x * f", (row, 2))
    np.testing.assert_array_equal(found, row * 2)
    out = np.zeros(3)
    made = elementwise("T x", "T z", "z += x", (row,), out=(out,))
    assert made is out
    np.testing.assert_array_equal(out, row)
    with pytest.raises(ValueError, match="mismatch"):
        elementwise("T x", "T z", "z = x", (row,), out=(np.zeros(4),))


def test_raw_arrays() -> None:
    x = np.arange(6.0)[::2]
    found = elementwise(
        "raw T x", "T z", "z = i > 0 ? x[i - 1] : x[x.size() - 1]", (x,), size=3
    )
    np.testing.assert_array_equal(found, [4, 0, 2])
    out = np.zeros(3)
    elementwise("T x", "raw T z", "z[_ind.size() - 1 - i] = x", (x,), out=(out,))
    np.testing.assert_array_equal(out, [4, 2, 0])
    for index in ("i + 1", "-1", "i - 1"):
        with pytest.raises(IndexError, match="outside of x"):
            elementwise("raw T x", "T z", f"z = x[{index}]", (x,), size=3)
    with pytest.raises(ValueError, match="undecided"):
        elementwise("raw T x", "T z", "z = x[i]", (x,))


@pytest.mark.parametrize(
    "operation",
    [
        "for (int k = 0; k < 3; ++k) z += k;",
        "while (true) ;",
        "z = *(&x);",
        "z = __shfl_sync(0xffffffff, x, 1);",
        'asm("exit;");',
        "z = x.real();",
        "z = tex2D<float>(t, 1, 2);",
        "z = reinterpret_cast<int>(x);",
        "z = (x",
        "z = x[0]",
        "return;",
        "z = printf(x)",
        "auto y = x;",
        "`",
        "z = " + "(" * 100 + "x" + ")" * 100,
        "z = " + "x+" * 5000 + "x",
    ],
)
def test_what_is_outside_is_refused(operation: str) -> None:
    with pytest.raises(Unsupported):
        run(operation, X)


def test_mistakes() -> None:
    with pytest.raises(ArgumentInvalid, match="not declared"):
        run("z = y", X)
    with pytest.raises(ArgumentInvalid, match="bits"):
        run("z = x & 1", X)
    with pytest.raises(TypeError, match="Wrong number"):
        elementwise("T x", "T z", "z = x", (X, X))
    with pytest.raises(ValueError, match="unknown type"):
        parameters("Matrix x")
    for wrong in ("x", "T *x", "T x; y", "T 1"):
        with pytest.raises(Unsupported, match="not understood"):
            parameters(wrong)
    with pytest.raises(Unsupported, match="preamble"):
        elementwise("T x", "T z", "z = f(x)", (X,), preamble="int f() {}")


def test_reductions() -> None:
    x = np.arange(24.0).reshape(2, 3, 4)
    norm = ("T x", "T y", "x * x", "a + b", "y = sqrt(a)", "0")
    for axis in (None, 0, 1, -1, (0, 2)):
        for keepdims in (False, True):
            np.testing.assert_allclose(
                reduction(*norm, (x,), axis=axis, keepdims=keepdims),
                np.sqrt((x * x).sum(axis=axis, keepdims=keepdims)),
            )
    peak = reduction("T x", "T y", "x", "max(a, b)", "y = a", None, (x[:, 0],), axis=1)
    np.testing.assert_array_equal(peak, x[:, 0].max(axis=1))
    empty = reduction(*norm, (np.zeros((0, 3)),), axis=0)
    np.testing.assert_array_equal(empty, np.zeros(3))
    with pytest.raises(ValueError, match="identity"):
        reduction("T x", "T y", "x", "max(a, b)", "y = a", None, (np.zeros(0),))
    with pytest.raises(np.exceptions.AxisError):
        reduction(*norm, (x,), axis=3)
    out = np.zeros(4)
    assert reduction(*norm, (x,), axis=(0, 1), out=out) is out
    count = reduction(
        *("T x", "int64 y", "x > 3", "a + b", "y = a", "0"),
        (x,),
        reduce_type="int32",
    )
    assert (count.dtype, int(count)) == (np.int64, 20)


@given(st.text(alphabet="xz=+-*/%&|^<>!?:;,.(){}[]0123456789eEfT ifelsereturn\n\"'\\"))
def test_any_text_is_refused_or_run(text: str) -> None:
    try:
        Parser(text, frozenset("T")).statements()
    except Unsupported:
        return


@given(st.text(max_size=60))
def test_any_text_at_all(text: str) -> None:
    try:
        run(text, X)
    except (Unsupported, ArgumentInvalid, IndexError):
        return
