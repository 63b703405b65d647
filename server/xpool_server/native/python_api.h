// What of Python's C interface the array runner uses: functions of the stable ABI, which the interpreter that has loaded
// this library has. Declared here, since its headers are often not installed.
#pragma once
#include <sys/types.h>

#include <utility>

typedef struct _object PyObject;
typedef struct _ts PyThreadState;

// Whether this thread had Python's lock before; one of two values.
enum PyGILState : int {};

extern "C" {
void Py_IncRef(PyObject *);
void Py_DecRef(PyObject *);
PyObject *PyObject_Vectorcall(PyObject *callable, PyObject *const *arguments, size_t count, PyObject *names);
PyObject *PyObject_GetAttr(PyObject *, PyObject *name);
PyObject *PyObject_Type(PyObject *);
int PyObject_RichCompareBool(PyObject *, PyObject *, int operation);
PyObject *PyTuple_New(ssize_t);
int PyTuple_SetItem(PyObject *, ssize_t, PyObject *taken);
PyObject *PyTuple_GetItem(PyObject *, ssize_t);  // borrowed
ssize_t PyTuple_Size(PyObject *);
PyObject *PyList_New(ssize_t);
int PyList_SetItem(PyObject *, ssize_t, PyObject *taken);
PyObject *PySlice_New(PyObject *, PyObject *, PyObject *);
PyObject *PyLong_FromLongLong(long long);
PyObject *PyLong_FromUnsignedLongLong(unsigned long long);
long long PyLong_AsLongLong(PyObject *);
PyObject *PyFloat_FromDouble(double);
PyObject *PyComplex_FromDoubles(double, double);
PyObject *PyBytes_FromStringAndSize(const char *, ssize_t);
int PyBytes_AsStringAndSize(PyObject *, char **data, ssize_t *nbytes);
PyObject *PyUnicode_DecodeUTF8(const char *, ssize_t, const char *errors);
void PyUnicode_InternInPlace(PyObject **);
int PyObject_IsTrue(PyObject *);
PyObject *PyErr_Occurred();  // borrowed
void PyErr_Clear();
void PyErr_Fetch(PyObject **type, PyObject **value, PyObject **traceback);
void PyErr_Restore(PyObject *type, PyObject *value, PyObject *traceback);  // takes them over
PyGILState PyGILState_Ensure();
void PyGILState_Release(PyGILState);
PyThreadState *PyEval_SaveThread();
void PyEval_RestoreThread(PyThreadState *);
}

namespace xpool_server {

constexpr int kEqual = 2;  // Py_EQ

// A reference that we hold.
class Ref {
 public:
  Ref() = default;
  // Takes over a new reference; null where Python has set an error.
  explicit Ref(PyObject *taken) : object_(taken) {}
  Ref(Ref &&other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  Ref(const Ref &) = delete;
  Ref &operator=(Ref other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  ~Ref() {
    if (object_)
      Py_DecRef(object_);
  }

  static Ref to(PyObject *borrowed) {
    if (borrowed)
      Py_IncRef(borrowed);
    return Ref(borrowed);
  }

  PyObject *get() const { return object_; }
  PyObject *release() { return std::exchange(object_, nullptr); }
  explicit operator bool() const { return object_; }

 private:
  PyObject *object_ = nullptr;
};

}  // namespace xpool_server
