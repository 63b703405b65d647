// Where a NumPy array keeps what its attributes tell, so that a call's result is looked at without making objects of it.
//
// NumPy's C interface promises these fields (PyArrayObject_fields in numpy/ndarraytypes.h). Its headers need Python's,
// which are often not installed; so `Arrays::look_inside` compares them with the attributes of arrays of many kinds, and where
// they differ nobody uses them.
#pragma once
#include "python_api.h"

namespace xpool_server {

struct NumpyFields {
  static constexpr int kContiguous = 0x1, kWriteable = 0x400;

  ssize_t references;
  PyObject *type;
  char *data;
  int dimensions;
  ssize_t *sizes;
  ssize_t *strides;
  PyObject *base;  // null if the array has its own memory
  PyObject *dtype;
  int flags;

  static const NumpyFields &of(PyObject *array) { return *reinterpret_cast<const NumpyFields *>(array); }
};

}  // namespace xpool_server
