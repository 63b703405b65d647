"""What CuPy refuses, and what the wire does: each by its own exception, at the call."""

import os
import tempfile

import cupy as cp
import cupyx.scipy.sparse
import numpy as np
from xpool.cupy.device import device
from xpool.cupy.encoding import ENCODERS


def refused(kind, run, text=""):
    try:
        run()
    except kind as error:
        assert type(error) is kind or not isinstance(kind, tuple), type(error)
        assert text in str(error), str(error)
        return
    raise AssertionError(f"{kind} was expected")


a = cp.arange(6, dtype=cp.float32).reshape(2, 3)

# Names outside the table, and private ones.
refused(AttributeError, lambda: cp.no_such_function, "no attribute")
refused(AttributeError, lambda: cp._core_of_nothing)
refused(AttributeError, lambda: cp.linalg.no_such_function)
refused(AttributeError, lambda: a.no_such_method)
refused(AttributeError, lambda: cp.matrix, "cupy.asarray")

# Dtypes that arrays can't have.
for dtype in (object, "O", "U3", "S3", "M8[s]", "V0", [("x", "O")], "longdouble"):
    refused(ValueError, lambda dtype=dtype: cp.zeros(3, dtype=dtype), "Unsupported")
refused(ValueError, lambda: cp.array(["text"]), "Unsupported")
refused(ValueError, lambda: cp.array([object()]), "Unsupported")
refused(ValueError, lambda: a.astype("S3"), "Unsupported")

# A function or a file where the server would need it.
refused(TypeError, lambda: cp.concatenate(print))
with tempfile.TemporaryFile() as file:
    refused(TypeError, lambda: cp.linalg.norm(a, file))

# Shapes and indices beyond reason.
refused(OverflowError, lambda: cp.zeros(2**63))
refused(OverflowError, lambda: cp.empty((3, 2**63)))
refused(ValueError, lambda: a.reshape(2**63), "cannot reshape")
refused(IndexError, lambda: a[2**63])
refused(cp.cuda.memory.OutOfMemoryError, lambda: cp.zeros(2**62))
refused(cp.cuda.memory.OutOfMemoryError, lambda: cp.zeros((2**40, 2**40)))
refused(ValueError, lambda: cp.broadcast_to(a[0, 0], (2**50, 2**50)))
refused(ValueError, lambda: cp.zeros((1,) * 65), "maximum supported dimension")
refused(ValueError, lambda: cp.zeros(-1), "negative")
refused(IndexError, lambda: a[2], "out of bounds")
refused(IndexError, lambda: a[0, 0, 0], "too many indices")
refused(IndexError, lambda: a["x"])
refused(IndexError, lambda: a[1.5])
refused(ValueError, lambda: a.reshape(4, 2), "cannot reshape")
# CuPy's kernels take index arrays modulo the axis.
np.testing.assert_array_equal(a[cp.array([5])].get(), a[1:].get())
row = cp.arange(4)
assert cp.take(row, cp.array([5, -9])).get().tolist() == [1, 3]
assert cp.take_along_axis(row, cp.array([6]), 0).get().tolist() == [2]
row[cp.array([4])] = 8
cp.put(row, cp.array([5]), 9)
cp.add.at(row, cp.array([6, -2]), 10)
assert row.get().tolist() == [8, 9, 22, 3]
refused(ValueError, lambda: cp.put(row, cp.array([5]), 9, mode="no"), "clipmode")
refused(IndexError, lambda: cp.put(row, cp.array([5]), 9, mode="raise"))
refused(IndexError, lambda: a[cp.array([1.0])], "integer")
refused(IndexError, lambda: row[cp.array([True, False])], "boolean index did not")
refused(
    ValueError, lambda: cp.choose(cp.array([2]), [row[:1], row[1:2]]), "invalid entry"
)

# Numbers that a dtype does not hold.
refused(OverflowError, lambda: cp.zeros(3, cp.uint8) + 256)
refused(OverflowError, lambda: cp.zeros(3, cp.uint8) - 2**70)
refused(OverflowError, lambda: cp.arange(3, dtype=cp.uint8) ** -1)

# Arguments that CuPy wants, and NumPy does not.
refused(TypeError, lambda: cp.clip(a, 3))
refused(TypeError, lambda: cp.indices((3, 4), dtype=bool))
assert a.clip(3).get().min() == 3
assert float(cp.einsum(cp.eye(3), np.array([0, 0]))) == 3

# More than the wire takes.
deep = 1
for _ in range(20):
    deep = (deep,)
refused(ValueError, lambda: cp.linalg.norm(a, deep), "nested too deep")
refused(ValueError, lambda: cp.linalg.norm(a, (1,) * 70_000), "too many")
assert len(cp.broadcast_arrays(*[a] * 100)) == 100  # which sends nothing

# Names that are private, of whatever, by whatever way.
for name in (
    "cupy._core",
    "cupy.linalg._util",
    "ndarray.__reduce__",
    "ndarray.__class__",
    "cupyx.scipy.sparse.csr_matrix.__init__",
    "cupyx.scipy.sparse.csr_matrix.__dict__",
    "_cupy.add",
):
    refused(NotImplementedError, lambda name=name: device().call(name, (a,), {}))


# Numbers that only another session's arrays may have.
class Foreign:
    """What holds a number that this session never made."""

    _ref = b"\x21" + (b"\xff" * 5) + b"\x01"


ENCODERS[Foreign] = lambda one: one._ref
refused(RuntimeError, lambda: device().call("cupy.negative", (Foreign(),), {}), "exist")

# A process that was forked has no session of its own, and must not use its parent's.
child = os.fork()
if not child:
    try:
        a + 1
        a.get()
    except RuntimeError as error:
        os._exit(0 if "forked" in str(error) else 2)
    os._exit(3)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

# Sparse matrices whose parts do not fit together, and what they refuse.
sparse = cupyx.scipy.sparse
one, far = cp.ones(1), cp.array([7])
refused(
    ValueError, lambda: sparse.csr_matrix((one, far, cp.array([0, 1])), shape=(1, 3))
)
refused(ValueError, lambda: sparse.coo_matrix((one, (far, far)), shape=(3, 3)))
matrix = sparse.identity(3, format="csr")
refused(AttributeError, lambda: matrix.no_such_name)
refused(ValueError, lambda: setattr(matrix, "indices", far), "shape")
refused(ValueError, lambda: setattr(matrix, "indices", cp.array([0, 1, 7])))
refused(ValueError, lambda: setattr(matrix, "indptr", cp.array([0, 1, 2, 99])))
refused(AttributeError, lambda: setattr(matrix, "nnz", 2))
refused(ValueError, lambda: setattr(matrix, "data", cp.ones(99)), "shape")
refused(cp.cuda.memory.OutOfMemoryError, lambda: sparse.eye(1 << 25))

# Nothing of this has harmed the session.
np.testing.assert_array_equal((a + 1).get(), np.arange(1, 7).reshape(2, 3))
print("refused what has to be")
