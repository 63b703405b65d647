// Records that bring items of arrays or where they are, or ask for them.
#include <algorithm>
#include <cstring>

#include "arrays.h"

namespace xpool_server {

namespace {

// What is larger is Python's, which waits for a client that takes nothing.
constexpr long long kMaxAnswered = 64 << 10;

// The longest request that is run from here.
constexpr uint64_t kMaxAsked = 64 << 10;

// More than an array over a storage takes: numbers of ten bytes at most.
constexpr uint64_t kMaxOver = 2 << 10;

void append_uvarint(std::string &to, uint64_t value) {
  for (; value >= 0x80; value >>= 7)
    to.push_back(static_cast<char>(value | 0x80));
  to.push_back(static_cast<char>(value));
}

Ref attribute(PyObject *object, const Ref &name) { return must(PyObject_GetAttr(object, name.get())); }

}  // namespace

// As ArrayCalls.put.
void Arrays::put(Reader &from) {
  read_predicted(from, false);
  const uint8_t order = from.uint8();
  expect(order <= 1);
  const uint64_t nbytes = from.uvarint(INLINE_NBYTES);
  expect(nbytes == predicted_.nbytes);
  const auto *data = reinterpret_cast<const char *>(from.raw(nbytes));
  const Ref sizes = must(PyTuple_New(predicted_.sizes.size()));
  for (size_t i = 0; i < predicted_.sizes.size(); i++)
    PyTuple_SetItem(sizes.get(), i, must(PyLong_FromUnsignedLongLong(predicted_.sizes[i])).release());
  const Ref layout = must(PyUnicode_DecodeUTF8(order ? "F" : "C", 1, nullptr));
  const Ref bytes = must(PyBytes_FromStringAndSize(data, nbytes));
  PyObject *given[] = {values_constants_.dtypes[predicted_.dtype].get(), sizes.get(), layout.get(), bytes.get()};
  expect(bind(must(PyObject_Vectorcall(constants.from_bytes.get(), given, std::size(given), nullptr))));
}

ArrayOutcome Arrays::ask(Reader &from) {
  const size_t start = from.position() - 1;
  request = from.uvarint(MAX_STORAGE_ID);
  from.uvarint(MAX_STORAGE_ID);  // the number of what the answer may name
  if (get_ && from.uvarint(MAX_OPERATIONS - 1) == *get_) {
    ask_for_items(from);
    return ArrayOutcome::kAnswer;
  }
  return ask_python(from, start);
}

// Python makes the array, without this loop's end, unless it would wait for the storage.
ArrayOutcome Arrays::lay_over(Reader &from) {
  const size_t start = from.position() - 1;
  from.uvarint(MAX_STORAGE_ID);  // the array's number
  from.uint8();                  // whether it takes the storage
  const Entry *entry = executor_.storages.find(from.uvarint(MAX_STORAGE_ID));
  expect(entry && entry->is_usable());
  from.go_to(start);
  const ssize_t nbytes = static_cast<ssize_t>(std::min<uint64_t>(from.left(), kMaxOver));
  const Ref bytes = must(PyBytes_FromStringAndSize(reinterpret_cast<const char *>(from.here()), nbytes));
  PyObject *given = bytes.get();
  // It raises what can't be; what is no such record it says None to.
  const Ref length(PyObject_Vectorcall(constants.over.get(), &given, 1, nullptr));
  if (!length)
    return ArrayOutcome::kFailed;
  expect(length.get() != values_constants_.none.get());
  from.go_to(start + PyLong_AsLongLong(length.get()));
  return ArrayOutcome::kDone;
}

// Python runs the request and writes its answer's value, without this loop's end.
ArrayOutcome Arrays::ask_python(Reader &from, size_t start) {
  from.go_to(start);
  const ssize_t nbytes = static_cast<ssize_t>(std::min<uint64_t>(from.left(), kMaxAsked));
  const Ref bytes = must(PyBytes_FromStringAndSize(reinterpret_cast<const char *>(from.here()), nbytes));
  PyObject *given = bytes.get();
  // It raises what the operation raises; what is no request that it knows it has not run, and says None.
  const Ref pair(PyObject_Vectorcall(constants.answer.get(), &given, 1, nullptr));
  if (!pair)
    return ArrayOutcome::kFailed;
  expect(pair.get() != values_constants_.none.get());
  Ref value = Ref::to(PyTuple_GetItem(pair.get(), 1));
  char *data;
  ssize_t length;
  if (PyBytes_AsStringAndSize(value.get(), &data, &length) < 0)
    return ArrayOutcome::kFailed;
  if (length > kMaxAnswered) {
    result = std::move(value);
    return ArrayOutcome::kResult;
  }
  answer.assign(data, length);
  from.go_to(start + PyLong_AsLongLong(PyTuple_GetItem(pair.get(), 0)));
  return ArrayOutcome::kAnswer;
}

// As ArrayCalls._get, for what is small.
void Arrays::ask_for_items(Reader &from) {
  const uint64_t count = from.uvarint(2);
  expect(count && from.uint8() == kTagHandle);
  const Ref array = values_.object(from.uvarint(MAX_STORAGE_ID));
  expect(PyLong_AsLongLong(attribute(array.get(), constants.nbytes).get()) <= kMaxAnswered);
  answer.clear();
  const char pair[] = {kTagTuple, 2};
  answer.append(pair, 2);  // what was found, and the warnings
  if (count == 2)
    answer.append(pair, 2);
  append_items(array.get());
  if (count == 2) {
    expect(from.uint8() == kTagList);
    const uint64_t others = from.uvarint(MAX_READ_AHEAD);
    answer.push_back(kTagList);
    append_uvarint(answer, others);
    for (uint64_t i = 0; i < others; i++) {
      expect(from.uint8() == kTagInt);
      const ArrayStore::Row *other = store_.find(static_cast<uint64_t>(from.svarint()));  // a negative one names nothing
      const bool is_there = other && other->owner &&
                            PyLong_AsLongLong(attribute(other->object, constants.nbytes).get()) <=
                                static_cast<long long>(MAX_READ_AHEAD_NBYTES);
      if (is_there)
        append_items(Ref::to(other->object).get());
      else
        answer.push_back(kTagNone);
    }
  }
  expect(from.uvarint(0) == 0);  // keywords
  answer.push_back(kTagTuple);
  answer.push_back(0);
  executed_ops++;
}

// An array's geometry and items, in row-major order, as a value of the wire.
void Arrays::append_items(PyObject *array) {
  answer.push_back(kTagHostTensor);
  answer.push_back(static_cast<char>(code_of(attribute(array, constants.dtype).get())));
  answer.push_back(0);
  const Ref shape = attribute(array, constants.shape);
  const ssize_t ndim = PyTuple_Size(shape.get());
  append_uvarint(answer, ndim);
  for (ssize_t i = 0; i < ndim; i++)
    append_uvarint(answer, PyLong_AsLongLong(PyTuple_GetItem(shape.get(), i)));
  const Ref bytes = must(PyObject_Vectorcall(constants.to_bytes.get(), &array, 1, nullptr));
  char *data;
  ssize_t nbytes;
  if (PyBytes_AsStringAndSize(bytes.get(), &data, &nbytes) < 0)
    must(nullptr);
  answer.append(data, nbytes);
}

uint8_t Arrays::code_of(PyObject *dtype) const {
  const auto &dtypes = values_constants_.dtypes;
  for (size_t code = 0; code < kDtypeCodes; code++)
    if (dtypes[code].get() == dtype && kItemNbytes[code])
      return code;
  for (size_t code = 0; code < kDtypeCodes; code++)
    if (dtypes[code] && kItemNbytes[code] && PyObject_RichCompareBool(dtype, dtypes[code].get(), kEqual) > 0)
      return code;
  PyErr_Clear();
  throw HandBack{};
}

}  // namespace xpool_server
