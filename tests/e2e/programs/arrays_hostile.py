"""What CuPy refuses, and what the wire does: each by its own exception, at the call."""

import tempfile

import cupy as cp
import numpy as np


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
for dtype in (object, "O", "U3", "S3", "M8[s]", "V8", [("x", "i4")], "longdouble"):
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

# Numbers that a dtype does not hold.
refused(OverflowError, lambda: cp.zeros(3, cp.uint8) + 256)
refused(OverflowError, lambda: cp.zeros(3, cp.uint8) - 2**70)
refused(ValueError, lambda: cp.arange(3) ** -1)

# More than the wire takes.
deep = 1
for _ in range(20):
    deep = (deep,)
refused(ValueError, lambda: cp.linalg.norm(a, deep), "nested too deep")
refused(ValueError, lambda: cp.linalg.norm(a, (1,) * 70_000), "too many")
refused(ValueError, lambda: cp.broadcast_arrays(*[a] * 100), "too many")

# Nothing of this has harmed the session.
np.testing.assert_array_equal((a + 1).get(), np.arange(1, 7).reshape(2, 3))
print("refused what has to be")
