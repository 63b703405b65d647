// Executes rows of array records, with Python's lock held: decodes them, calls NumPy's or CuPy's functions, names the
// results. What it does is what ArrayCalls in xpool_server/arrays/calls.py does, on the same tables; what it does not
// know, or what breaks a rule, it hands back before it has had any effect.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "array_store.h"
#include "array_values.h"
#include "executor.h"

namespace xpool_server {

enum class ArrayOutcome : int32_t {
  kDone,      // the row is over
  kHandBack,  // the record at `position` has had no effect: Python executes it
  kFailed,    // the record is a call, a request or an array over a storage, and it raised: Python's error is set
  kResult,    // the record is a call, and it has run: Python binds `result`, or says why not; or it is a request, and
              // `result` is the value of its answer
  kAnswer,    // the record before `position` was the request `request`: `answer` is what to send
};

class Arrays {
 public:
  // The store is ArrayTable's, which outlives this.
  Arrays(Executor &executor, ArrayConstants constants, ArrayStore &store);

  struct Constants {
    Ref array_type;
    Ref as_result;  // ArrayLibrary.as_result
    Ref count_references;  // sys.getrefcount; null where results never take an argument's memory
    Ref shape, dtype, base, nbytes, flags, c_contiguous, writeable;  // names of attributes
    Ref names_out;  // ("out",)
    Ref from_bytes, to_bytes;  // ArrayLibrary's
    Ref answer;                // ArrayCalls.answer_of
    Ref over;                  // ArrayCalls.over_of
  } constants;
  size_t max_handles = 0;

  // Of the last call of `run` or `serve`.
  size_t position = 0;
  uint64_t record_count = 0;
  Ref result;
  uint64_t request = 0;
  std::string answer;  // the value of the request's answer

  // Since somebody took them.
  uint64_t executed_ops = 0;
  int64_t charged_nbytes = 0;  // to the ledger, by what was bound and freed
  uint64_t reused = 0;         // results that took the memory of an argument

  // Takes over what an operation calls; `is_elementwise`: a NumPy ufunc with one result.
  void define(uint64_t number, Ref callable, bool is_view, bool is_elementwise);
  // What `serve` has left to Python comes out of the next call.
  ArrayOutcome run(const uint8_t *records, size_t nbytes, size_t from);
  // From now on results are looked at by NumpyFields, if they say of these arrays what the attributes say.
  bool look_inside(PyObject *probes);
  // The operation that asks for items, `xpool.get`; other requests are run by Python, and answered here.
  void define_get(uint64_t number) { get_ = number; }
  // `run` without Python's lock, which it takes. kDone: the row is over, or the node has called. What is Python's it gets
  // by `run`.
  ArrayOutcome serve(const uint8_t *records, size_t nbytes, size_t from);

  static bool is_kind(uint8_t record) { return record >= kFirstKind && record <= kLastKind; }

 private:
  enum Kind : uint8_t { kCall = 45, kRequest = 46, kFree = 47, kPut = 48, kOver = 49, kFirstKind = 44, kLastKind = 50 };
  // What a call has raised, while Python's error has to be another thread state's.
  struct Raised {
    PyObject *type = nullptr, *value = nullptr, *traceback = nullptr;
  };

  ArrayOutcome row(Reader &from, bool is_served);
  bool check_turn(bool heeds_calls) const;
  struct Operation {
    Ref callable;
    bool is_view, is_elementwise;
    // Of the last call's keywords.
    std::vector<std::string> names;
    Ref names_tuple;
  };
  struct Predicted {
    uint64_t number, nbytes;
    uint8_t dtype;
    std::vector<uint64_t> sizes;
  };

  ArrayOutcome step(Reader &from);
  ArrayOutcome call(Reader &from);
  void free(Reader &from);
  void put(Reader &from);
  ArrayOutcome ask(Reader &from);
  void ask_for_items(Reader &from);
  ArrayOutcome ask_python(Reader &from, size_t start);
  ArrayOutcome lay_over(Reader &from);
  void append_items(PyObject *array);
  uint8_t code_of(PyObject *dtype) const;
  void read_predicted(Reader &from, bool is_view);
  void read_arguments(Reader &from);
  PyObject *names_for(Operation &operation) const;
  PyObject *take_memory(const Operation &operation, Reader next);
  bool is_spare(PyObject *array, size_t arguments);
  bool is_alike(PyObject *array) const;
  bool has_flag(PyObject *array, const Ref &name, int flag) const;
  bool fits(PyObject *array) const;
  bool is_as_inside(PyObject *array) const;
  bool bind(Ref found);
  ArrayStore::Owners::value_type *charge(PyObject *array);
  void discharge(ArrayStore::Owners::value_type *owner);
  Ref owner_of(PyObject *array) const;
  bool is_array(PyObject *object) const;

  Executor &executor_;
  const ArrayConstants values_constants_;
  ArrayStore &store_;
  ArrayValues values_;
  std::vector<Operation> operations_;
  Predicted predicted_;
  std::vector<Ref> arguments_;
  std::vector<PyObject *> vector_;
  std::vector<std::string_view> names_;
  size_t positional_ = 0;
  std::vector<uint64_t> freed_;
  std::optional<uint64_t> get_;
  bool looks_inside_ = false;
  std::optional<ArrayOutcome> left_;  // by `serve`
  Raised raised_;
};

}  // namespace xpool_server
