// What native_arrays.py calls, with Python's lock held. An error that a call has raised is Python's when `xs_arrays_run`
// returns, so that ctypes raises it.
#include <memory>

#include "arrays.h"

using namespace xpool_server;

#define API extern "C" __attribute__((visibility("default")))

// As `Stop` in native_arrays.py.
struct XsArraysStop {
  uint64_t position, record_count;
};

// As `Counts` there.
struct XsArraysCounts {
  uint64_t executed_ops, reused;
  int64_t charged_nbytes;
};

namespace {

Ref item(PyObject *tuple, ssize_t at) { return Ref::to(PyTuple_GetItem(tuple, at)); }

}  // namespace

// `given`: what `_constants` in native_arrays.py makes. The store and the executor outlive what is made.
API Arrays *xs_arrays_new(Executor *executor, PyObject *given, ArrayStore *store, uint64_t max_handles) {
  ArrayConstants constants;
  constants.none = item(given, 0);
  constants.no = item(given, 1);
  constants.yes = item(given, 2);
  constants.ellipsis = item(given, 3);
  PyObject *dtypes = PyTuple_GetItem(given, 4), *types = PyTuple_GetItem(given, 5);
  for (size_t code = 0; code < kDtypeCodes; code++) {
    Ref dtype = item(dtypes, code);
    if (dtype.get() != constants.none.get())
      constants.dtypes[code] = std::move(dtype);
  }
  for (size_t i = 0; i < 4; i++)
    constants.scalar_types[i] = item(types, i);
  constants.array_type = item(given, 6);
  auto made = std::make_unique<Arrays>(*executor, std::move(constants), *store);
  made->constants.array_type = item(given, 6);
  made->constants.as_result = item(given, 7);
  Ref count = item(given, 8);
  if (PyObject_IsTrue(count.get()) > 0)
    made->constants.count_references = std::move(count);
  PyObject *names = PyTuple_GetItem(given, 9);
  Ref *fields[] = {&made->constants.shape, &made->constants.dtype,        &made->constants.base,     &made->constants.nbytes,
                   &made->constants.flags, &made->constants.c_contiguous, &made->constants.writeable};
  for (size_t i = 0; i < std::size(fields); i++)
    *fields[i] = item(names, i);
  made->constants.names_out = item(given, 10);
  made->constants.from_bytes = item(given, 11);
  made->constants.to_bytes = item(given, 12);
  made->constants.answer = item(given, 13);
  made->constants.over = item(given, 14);
  made->max_handles = max_handles;
  return made.release();
}

API void xs_arrays_delete(Arrays *arrays) { delete arrays; }

// From now on the executor's loop executes rows by itself.
API void xs_arrays_lend(Executor *executor, Arrays *arrays) { executor->arrays = arrays; }

// What has been done since the last call.
API void xs_arrays_take_counts(Arrays *arrays, XsArraysCounts *to) {
  *to = {std::exchange(arrays->executed_ops, 0), std::exchange(arrays->reused, 0),
         std::exchange(arrays->charged_nbytes, 0)};
}

API void xs_arrays_define(Arrays *arrays, uint64_t number, PyObject *callable, int32_t is_view, int32_t is_elementwise) {
  arrays->define(number, Ref::to(callable), is_view, is_elementwise);
}

// Whether results are looked at by their fields from now on; `probes` are arrays of many kinds.
API int32_t xs_arrays_look_inside(Arrays *arrays, PyObject *probes) { return arrays->look_inside(probes); }

API void xs_arrays_define_get(Arrays *arrays, uint64_t number) { arrays->define_get(number); }

API int32_t xs_arrays_run(Arrays *arrays, const char *records, uint64_t nbytes, uint64_t from, XsArraysStop *stop) {
  const ArrayOutcome outcome = arrays->run(reinterpret_cast<const uint8_t *>(records), nbytes, from);
  *stop = {arrays->position, arrays->record_count};
  return static_cast<int32_t>(outcome);
}

// What the request that `xs_arrays_run` stopped after asked for: `request` and the value of its answer.
API PyObject *xs_arrays_answer(Arrays *arrays, uint64_t *request) {
  *request = arrays->request;
  return PyBytes_FromStringAndSize(arrays->answer.data(), arrays->answer.size());
}

// What the call has returned that `xs_arrays_run` stopped at with kResult; taken once.
API PyObject *xs_arrays_result(Arrays *arrays) { return arrays->result.release(); }
