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
        "auto y;",
        "auto y[2] = {1, 2};",
        "while (true) ;",
        "while (true) { z += 1; }",
        "switch (1) { z = x; }",
        "switch (1) { default: z = x; default: z = 1; }",
        "switch (1) { case 1: z = x;",
        "float *p = 0;",
        "int a[n];",
        "int a[5000];",
        "z = *(&x);",
        "z = __shfl_sync(0xffffffff, x, 1);",
        'asm("exit;");',
        "z = x.conj();",
        "z = tex2D<float>(t, 1, 2);",
        "z = reinterpret_cast<int>(x);",
        "z = (x",
        "z = x[0]",
        "z = printf(x)",
        "z = atomicAdd(&x, 1);",
        "auto *y = x;",
        "`",
        "z = " + "(" * 100 + "x" + ")" * 100,
        "z = " + "x+" * 5000 + "x",
    ],
)
def test_what_is_outside_is_refused(operation: str) -> None:
    with pytest.raises(Unsupported):
        run(operation, X)


def test_auto_is_the_values_type() -> None:
    x = np.arange(4.0)
    source = (
        "const auto y = x * 2; auto n = 7 / 2; for (auto k = 0; k < 2; ++k) n += k;"
    )
    np.testing.assert_array_equal(run(source + " z = y + n;", x), 2 * x + 4)
    np.testing.assert_array_equal(run("auto y = x; y += 1; z = x - y;", x), [-1] * 4)


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
    with pytest.raises(ArgumentInvalid, match="not complex"):
        run("z = x.real()", X)
    for extra in ({"cpp_version": "c++20"}, {"options": ("-I/etc",)}):
        with pytest.raises(Unsupported, match="CUDA"):
            elementwise("T x", "T z", "z = x", (X,), **extra)


def test_what_follows_a_loop_runs_for_each_thread() -> None:
    """Threads sum up what is theirs, and add it to one place in the end."""
    total, largest = np.zeros(1, np.float32), np.zeros(1, np.int32)
    kernel: dict[str, Any] = {
        "in_params": "T x, raw T total, raw int32 largest",
        "out_params": "T z",
        "operation": "if (x < 0) continue; mine += x; T y = x; z = y",
        "loop_prep": "T mine = 0; int many = 3",
        "after_loop": "if (mine > 1) { atomicAdd(&total[0], mine * many); }"
        " atomicMax(&largest[0], (int)mine)",
    }
    found = elementwise(arguments=(X, total, largest), **kernel)
    np.testing.assert_array_equal(found[[0, 2, 3]], X[[0, 2, 3]])
    assert total[0] == 3 * (1.5 + 7.25)
    assert largest[0] == 7
    elementwise(arguments=(X[:0], total, largest), **kernel)
    assert total[0] == 3 * (1.5 + 7.25)
    returning = {**kernel, "operation": "mine += x; if (x > 2) return; z = x"}
    elementwise(arguments=(X, total, largest), **returning)
    assert total[0] == 3 * (1.5 + 7.25 + 1.5)


@pytest.mark.parametrize("name", ["x", "z", "i", "y"])
def test_what_follows_a_loop_knows_no_items(name: str) -> None:
    kernel = {"loop_prep": "int kept", "after_loop": f"kept = {name}"}
    with pytest.raises(ArgumentInvalid, match="not declared"):
        elementwise("T x", "T z", "T y = x; z = y", (X,), **kernel)
    for what in ("__syncthreads()", "total[threadIdx.x] = 1"):
        with pytest.raises((Unsupported, ArgumentInvalid)):
            elementwise("T x, raw T total", "T z", "z = x", (X, X), after_loop=what)


COLLATZ = """
    int steps = 0;
    long n = x;
    while (n != 1) {
        if (n > 100000) break;
        n = n % 2 ? 3 * n + 1 : n / 2;
        steps++;
    }
    z = steps;
"""


def collatz(n: int) -> int:
    steps = 0
    while n != 1:
        if n > 100000:
            break
        n = 3 * n + 1 if n % 2 else n // 2
        steps += 1
    return steps


def test_every_index_leaves_a_loop_for_itself() -> None:
    x = np.arange(1, 60)
    found = run(COLLATZ, x)
    np.testing.assert_array_equal(found, [collatz(int(one)) for one in x])


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        ("z = 0; for (int k = 0; k < 4; ++k) z += k * x;", 6 * N),
        (
            "z = 0; for (int k = 0; k < x; k++) { if (k == 2) continue; z += k; }",
            [19, 0, 1, 0],
        ),
        ("z = 0; int k = 0; do { z += 1; } while (++k < x);", [7, 1, 3, 1]),
        (
            "z = 0; for (int a = 0, b = 3; a < b; a++, b--) z = z * 10 + a + b;",
            [33] * 4,
        ),
        (
            "z = 0; for (int a = 0; a < 3; a++) for (int b = 0; b < 3; b++)"
            " { if (b > a) break; z += 1; }",
            [6] * 4,
        ),
        ("int a = 1; { int a = 5; a += 1; } z = a;", [1] * 4),
        ("z = 1; if (x > 0) continue; z = 2;", [1, 2, 1, 2]),
        ("z = 1; if (x < 0) return; z = 2;", [2, 1, 2, 1]),
        ("int a[3] = {1, 2}; a[2] = x; for (int k = 0; k < 3; k++) z += a[k];", N + 3),
        ("int a[8]; a[x & 7] = 5; z = a[7] + a[3];", [5, 0, 5, 5]),
        ("int a = x; z = a++ + 10 * a;", 11 * N + 10),
        ("int a; int b; a = b = x; z = a - b;", [0] * 4),
        ("z = 0; while (z < 3 && (z += 2)) ;", [4] * 4),
        ("#pragma unroll\nfor (int k = 0; k < 2; k++) z = k;", [1] * 4),
    ],
)
def test_statements(operation: str, expected: Any) -> None:
    out = np.zeros(4, np.int32)
    found = elementwise("int32 x", "int32 z", operation, (N,), out=(out,))
    np.testing.assert_array_equal(found, expected)


SWITCH = """
    switch (x) {
        case -1: z = 10; break;
        case 3:
        case 7: { int y = x + 1; z = y; }
        case TWO + 6: z += 100; break;
        default: z = -x;
    }
    z *= 2;
"""


def test_a_switch_falls_through_until_it_breaks() -> None:
    x = np.array([-1, 3, 7, 8, 5, 0], np.int32)
    found = elementwise(
        "int32 x",
        "int32 z",
        SWITCH,
        (x,),
        preamble="#define TWO 2",
        out=(np.zeros(6, np.int32),),
    )
    np.testing.assert_array_equal(found, [20, 208, 216, 200, -10, 0])


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        # Without a default the rest goes on behind it.
        ("z = 1; switch (x) { case 7: z = 2; } z += 10;", [12, 11, 11, 11]),
        # `continue` is the loop's, and `break` the switch's.
        (
            "z = 0; for (int k = 0; k < 4; k++) { switch (k) { case 1: continue;"
            " case 2: break; default: z += 1; } z += 10; }",
            [32] * 4,
        ),
        (
            "z = 0; for (int k = 0; k < 9; k++) { switch (x) { case 7: z += 1; break;"
            " default: z += 2; } if (k == 2) break; }",
            [3, 6, 6, 6],
        ),
        ("switch (x) { case 7: z = 1; return; default: z = 5; } z = 9;", [1, 9, 9, 9]),
        (
            "z = 0; switch (x & 1) { case 1: switch (x) { case 7: z = 4; break; }"
            " z += 1; }",
            [5, 1, 1, 1],
        ),
        ("z = 3; switch (x) { }", [3] * 4),
    ],
)
def test_switches(operation: str, expected: Any) -> None:
    out = np.zeros(4, np.int32)
    found = elementwise("int32 x", "int32 z", operation, (N,), out=(out,))
    np.testing.assert_array_equal(found, expected)


def test_switches_that_no_compiler_takes() -> None:
    with pytest.raises(ArgumentInvalid, match="twice"):
        run("switch (x) { case 7: z = 1; case 7: z = 2; }", N)
    with pytest.raises(ArgumentInvalid, match="bits"):
        run("switch (x) { case 7: z = 1; }", X)


PREAMBLE = """
#include <cupy/complex.cuh>
#define TWICE(a) ((a) + (a))
#define LIMIT 10
const float scale = 0.5f;
__device__ inline int power(int base, int n) {
    if (n <= 0) return 1;
    return base * power(base, n - 1);
}
template <typename U> __device__ void swap_them(U& a, U& b) { U c = a; a = b; b = c; }
static __device__ T half_of(T value) {
    for (int k = 0; k < LIMIT; ++k) { if (value < 8) return value * scale; value /= 2; }
    return value;
}
"""


def test_functions_and_macros_of_a_preamble() -> None:
    x = np.array([2.0, 40.0, 1000.0], np.float32)
    found = elementwise("T x", "T z", "z = half_of(x)", (x,), preamble=PREAMBLE)
    np.testing.assert_allclose(found, [1.0, 2.5, 1000 / 128 / 2])
    body = "int a = x, b = power(2, x); if (x > 1) swap_them(a, b); z = TWICE(a) - b"
    found = elementwise(
        "int32 x, T y",
        "int32 z",
        body,
        (np.array([1, 3], np.int32), x[:2]),
        preamble=PREAMBLE,
    )
    np.testing.assert_array_equal(found, [2 * 1 - 2, 2 * 8 - 3])
    found = reduction(
        "T x",
        "T y",
        "TWICE(x)",
        "a + b",
        "y = half_of(a)",
        "0",
        (x,),
        preamble=PREAMBLE,
    )
    np.testing.assert_allclose(found, 2084 / 512 * 0.5, rtol=1e-6)


RANDOM = """
typedef unsigned long long word;
__device__ void start(word* a, int i) { a[0] = i + 1; a[1] = 0x5c721fd808f616b6; }
__device__ inline word next(word *a) {
    word s1 = a[0]; word s0 = a[1];
    a[0] = s0;
    s1 ^= s1 << 23; s1 = s1 ^ (s1 >> 17); s1 = s1 ^ s0; s1 = s1 ^ (s0 >> 26);
    a[1] = s1;
    return s0 + s1;
}
"""


def test_functions_change_the_arrays_of_a_kernel() -> None:
    body = "word a[2]; start(a, i); for (int i = 0; i < n; ++i) z = next(a);"
    found = elementwise(
        "int32 n", "uint64 z", body, (np.full(3, 4, np.int32),), preamble=RANDOM
    )
    mask = (1 << 64) - 1
    for at in range(3):
        a, value = [at + 1, 0x5C721FD808F616B6], 0
        for _ in range(4):
            s1, s0 = a
            s1 ^= (s1 << 23) & mask
            s1 ^= s1 >> 17
            s1 ^= s0
            s1 ^= s0 >> 26
            a, value = [s0, s1], (s0 + s1) & mask
        assert int(found[at]) == value
    with pytest.raises(Unsupported, match="an array that"):
        elementwise(
            "raw uint64 x",
            "uint64 z",
            "z = next(x)",
            (np.zeros(2, np.uint64),),
            size=2,
            preamble=RANDOM,
        )


def test_raw_arrays_by_axes_and_by_atomic_functions() -> None:
    image = np.arange(12, dtype=np.float64).reshape(3, 4).T
    found = elementwise(
        "raw T x",
        "T z",
        "ptrdiff_t at[] = {i % x.shape()[0], i / x.shape()[0]}; z = x[at]",
        (image,),
        size=12,
    )
    np.testing.assert_array_equal(found, np.arange(12))
    counts = np.zeros(3, np.int32)
    elementwise(
        "int32 x",
        "raw int32 z",
        "atomicAdd(&z[x], 1)",
        (np.array([0, 2, 2, 2], np.int32),),
        out=(counts,),
    )
    np.testing.assert_array_equal(counts, [1, 0, 3])
    with pytest.raises(IndexError, match="outside"):
        run("int a[3]; z = a[int(x)];", np.array([0, 3]))
    ends = "i -= 1; const int last = x.ndim - 1; z = x.shape()[last] + i;"
    found = elementwise("raw T x", "T z", ends, (image,), size=2)
    np.testing.assert_array_equal(found, [2, 3])


PARTS = """
const T v = x;
int at[] = {0, i % 2};
atomicAdd(reinterpret_cast<T::value_type*>(&(z[at])), v.real());
atomicAdd(reinterpret_cast<KIND*>(&z[at]) + 1, v.imag());
"""


@pytest.mark.parametrize("kind", ["typename T::value_type", "float"])
def test_atomic_functions_take_parts_of_complex_items(kind: str) -> None:
    values = np.array([1 + 2j, 3 - 1j, 5j], np.complex64)
    sums = np.ones((2, 1), np.complex64).T
    body = PARTS.replace("KIND", kind)
    elementwise("T x", "raw T z", body, (values,), out=(sums,))
    np.testing.assert_array_equal(sums, [[2 + 7j, 4 - 1j]])
    halves = "typename T::value_type h = x.real(); y = h / 2;"
    found = elementwise("T x", "T y", halves, (values,))
    np.testing.assert_array_equal(found, values.real / 2)


def test_atomic_functions_take_nothing_else_for_parts() -> None:
    out = np.zeros(2, np.complex64)
    for kind, array in (("double", out), ("float", out.real.copy())):
        body = f"atomicAdd(reinterpret_cast<{kind}*>(&z[i]) + 1, 1.0f);"
        with pytest.raises(Unsupported, match="for an array of"):
            elementwise("float32 x", "raw T z", body, (X[:2],), out=(array,))
    beyond = "atomicAdd(reinterpret_cast<float*>(&z[i]) + 2, 1.0f);"
    with pytest.raises(Unsupported):
        elementwise("float32 x", "raw T z", beyond, (X[:2],), out=(out,))
    with pytest.raises(ArgumentInvalid, match="value_type"):
        run("T::value_type y = x; z = y;", X)


def test_complex_numbers() -> None:
    z = np.array([1 + 2j, -3j], np.complex64)
    found = elementwise("T z", "float32 y", "y = z.real() + z.imag()", (z,))
    np.testing.assert_array_equal(found, [3, -3])
    found = elementwise("T z", "T y", "y = complex<float>(z.imag(), 1) * T(0, 1)", (z,))
    np.testing.assert_array_equal(found, (z.imag + 1j) * 1j)


def test_functions_that_call_themselves_end() -> None:
    forever = "__device__ int f(int a) { return f(a); }"
    with pytest.raises(Unsupported, match="deeply"):
        elementwise("T x", "T z", "z = f(x)", (N,), preamble=forever)
    empty = "".join(f"#define A{k} {f'A{k + 1} ' * 9}\n" for k in range(14))
    with pytest.raises(Unsupported, match="too long"):
        elementwise("T x", "T z", "z = x; A0", (N,), preamble=empty + "#define A14\n")


def test_declarations_may_construct() -> None:
    mandelbrot = """
        complex<double> z(0.0, 0.0);
        int left(rounds);
        while (left > 0 && z.real() * z.real() + z.imag() * z.imag() <= 4) {
            z = z * z + c;
            --left;
        }
        n = left;"""
    c = np.array([0, 1, 2 + 2j])
    found = elementwise("complex128 c, int32 rounds", "int32 n", mandelbrot, (c, 9))
    assert found.tolist() == [0, 6, 8]


def test_reductions_know_their_type_and_their_neighbours() -> None:
    x = np.arange(10, dtype=np.float32).reshape(2, 5)
    mean = ("T x, T eps", "T y", "x * x", "a + b")
    by_type = "y = rsqrt(a / _type_reduce(_in_ind.size() / _out_ind.size()) + eps)"
    found = reduction(*mean, by_type, "0", (x, np.float32(1)), axis=1)
    np.testing.assert_allclose(found, 1 / np.sqrt((x**2).mean(axis=1) + 1), 1e-6)
    counted = reduction(
        *("X x", "Y y", "_raw_x[_in_ind.size() / 2] < x", "a + b", "y = a", "0", (x,)),
        reduce_type="int",
        out=np.empty((), np.int64),
    )
    assert counted == (x.ravel()[5] < x).sum()
    with pytest.raises(ValueError, match="read-only"):
        reduction("T x", "T y", "_raw_x[0] = x", "a + b", "y = a", "0", (x,))


def test_reductions() -> None:
    x = np.arange(24.0).reshape(2, 3, 4)
    norm = ("T x", "T y", "x * x", "a + b", "y = sqrt(a)", "0")
    for axis in (None, 0, 1, -1, (0, 2)):
        for keepdims in (False, True):
            np.testing.assert_allclose(
                reduction(*norm, (x,), axis=axis, keepdims=keepdims),
                np.sqrt((x * x).sum(axis=axis, keepdims=keepdims)),
            )
    out = np.empty(3)
    assert reduction(*norm, (np.ones((3, 4)),), axis=1, out=out) is out
    assert out.tolist() == [2, 2, 2]
    with pytest.raises(ValueError, match="Out shape"):
        reduction(*norm, (np.ones((3, 4)),), axis=0, out=out)
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
    mean = ("T x", "T y", "x", "a + b", "y = a * _out_ind.size() / _in_ind.size()", "0")
    np.testing.assert_allclose(reduction(*mean, (x,), axis=1), x.mean(axis=1))
    count = reduction(
        *("T x", "int64 y", "x > 3", "a + b", "y = a", "0"),
        (x,),
        reduce_type="int32",
    )
    assert (count.dtype, int(count)) == (np.int64, 20)


@given(st.text(alphabet="xz=+-*/%&|^<>!?:;,.(){}[]0123456789eEfT ifelsereturn\n\"'\\#"))
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


def test_macros_may_be_options() -> None:
    options = ("-DFACTOR=3", "-D SHIFT = 2".replace(" = ", "="), "-DON", "-UOFF", "-w")
    extras = {
        "options": options,
        "preamble": "#define OFF 9\nint off() { return OFF; }",
    }
    found = elementwise("T x", "T z", "z = x * FACTOR + SHIFT * ON", (X,), **extras)
    np.testing.assert_array_equal(found, X * 3 + 2)
    defined = {"options": ("--define-macro=W=2.0f", "-DOFF=1", "--undefine-macro=OFF")}
    total = reduction("T x", "T z", "x*W", "a+b", "z=a", "0", (X,), **defined)
    assert total == X.sum() * 2
    with pytest.raises(Unsupported, match="-include"):
        elementwise("T x", "T z", "z = x", (X,), options=("-include=a.h",))
