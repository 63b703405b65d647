#include "array_values.h"

#include "limits.h"

namespace xpool_server {

Ref must(PyObject *made) {
  if (!made) {
    PyErr_Clear();  // Python meets the same and says so
    throw HandBack{};
  }
  return Ref(made);
}

Ref ArrayValues::object(uint64_t number) {
  const ArrayStore::Row *row = store_.find(number);
  if (!row || !row->owner)
    throw HandBack{};
  return Ref::to(row->object);
}

Ref ArrayValues::read_text(Reader &from) {
  const uint64_t nbytes = from.uvarint(MAX_STRING_NBYTES);
  return must(PyUnicode_DecodeUTF8(reinterpret_cast<const char *>(from.raw(nbytes)), nbytes, nullptr));
}

Ref ArrayValues::read_items(Reader &from, bool is_tuple, unsigned depth) {
  if (depth >= MAX_ARRAY_DEPTH)
    throw HandBack{};
  const uint64_t count = from.uvarint(MAX_LIST);
  if (count > from.left())  // an item is a byte at least: no memory for what can't be there
    throw HandBack{};
  Ref items = must(is_tuple ? PyTuple_New(count) : PyList_New(count));
  for (uint64_t i = 0; i < count; i++) {
    PyObject *item = read(from, depth + 1).release();
    is_tuple ? PyTuple_SetItem(items.get(), i, item) : PyList_SetItem(items.get(), i, item);
  }
  return items;
}

Ref ArrayValues::read_slice(Reader &from, unsigned depth) {
  if (depth >= MAX_ARRAY_DEPTH)
    throw HandBack{};
  const Ref start = read(from, depth + 1), stop = read(from, depth + 1), step = read(from, depth + 1);
  return must(PySlice_New(start.get(), stop.get(), step.get()));
}

Ref ArrayValues::read(Reader &from, unsigned depth) {
  switch (from.uint8()) {
    case kTagNone: return Ref::to(constants_.none.get());
    case kTagFalse: return Ref::to(constants_.no.get());
    case kTagTrue: return Ref::to(constants_.yes.get());
    case kTagEllipsis: return Ref::to(constants_.ellipsis.get());
    case kTagInt: return must(PyLong_FromLongLong(from.svarint()));
    case kTagFloat: return must(PyFloat_FromDouble(from.float64()));
    case kTagComplex: {
      const double real = from.float64();
      return must(PyComplex_FromDoubles(real, from.float64()));
    }
    case kTagText: return read_text(from);
    case kTagList: return read_items(from, false, depth);
    case kTagTuple: return read_items(from, true, depth);
    case kTagSlice: return read_slice(from, depth);
    case kTagHandle: {
      const uint64_t number = from.uvarint(MAX_STORAGE_ID);
      named.push_back({number, index});
      return object(number);
    }
    case kTagDtype: {
      const uint8_t code = from.uint8();
      if (code >= kDtypeCodes || !constants_.dtypes[code])
        throw HandBack{};
      return Ref::to(constants_.dtypes[code].get());
    }
    case kTagScalarType: {
      const uint8_t code = from.uint8();
      if (code >= 4)
        throw HandBack{};
      return Ref::to(constants_.scalar_types[code].get());
    }
    default: throw HandBack{};  // host arrays, dictionaries, large integers: rare
  }
}

}  // namespace xpool_server
