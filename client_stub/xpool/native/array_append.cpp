// Appends array records as a builtin function of Python's: a call by way of ctypes costs more than all it does here.
//
// The names are of the interpreter's stable ABI, so none of its headers is needed; where the library is loaded by
// somebody else, they are missing, and nobody calls this.
#include <sys/types.h>

#include "log.h"

using namespace xpool;

extern "C" {
struct PythonObject;
__attribute__((weak)) int PyBytes_AsStringAndSize(PythonObject *, char **, ssize_t *);
__attribute__((weak)) long PyLong_AsLong(PythonObject *);
__attribute__((weak)) PythonObject *PyLong_FromUnsignedLongLong(unsigned long long);
__attribute__((weak)) PythonObject *PyErr_NoMemory();

// One record, whose bytes may come in parts; returns its operation number. `device` is an integer. Does not wait.
__attribute__((visibility("default"))) PythonObject *xpool_array_append_parts(PythonObject *device,
                                                                             PythonObject *const *parts,
                                                                             ssize_t count) try {
  Bytes record;
  for (ssize_t i = 0; i < count; i++) {
    char *data;
    ssize_t nbytes;
    if (PyBytes_AsStringAndSize(parts[i], &data, &nbytes) < 0)
      return nullptr;
    record.raw(data, nbytes);
  }
  return PyLong_FromUnsignedLongLong(Log::of(static_cast<int>(PyLong_AsLong(device))).append(record));
} catch (const std::bad_alloc &) {
  return PyErr_NoMemory();
}
}
