// Wire values of array records to Python's objects (protocol/SPEC.md section 15), for the values that calls are full of.
#pragma once
#include <cstdint>
#include <vector>

#include "array_store.h"
#include "python_api.h"
#include "reader.h"

namespace xpool_server {

constexpr uint8_t kTagNone = 0, kTagFalse = 1, kTagTrue = 2, kTagInt = 3, kTagFloat = 4, kTagComplex = 5, kTagText = 6,
                  kTagList = 7, kTagHostTensor = 10, kTagDtype = 11, kTagTuple = 32, kTagHandle = 33, kTagSlice = 34, kTagEllipsis = 35,
                  kTagScalarType = 42;
constexpr size_t kDtypeCodes = 30;

// Of xpool_protocol/limits.py, as those in limits.h.
constexpr uint64_t MAX_ARRAY_DEPTH = 8;
constexpr uint64_t MAX_NAME_NBYTES = 256;
constexpr uint64_t MAX_READ_AHEAD = 256;
constexpr uint64_t MAX_READ_AHEAD_NBYTES = 64;

// Objects of Python's that values stand for.
struct ArrayConstants {
  Ref none, no, yes, ellipsis;
  Ref dtypes[kDtypeCodes];  // null where arrays have no such dtype
  Ref scalar_types[4];
  Ref array_type;
};

// An argument that is an array's or another object's number.
struct Named {
  uint64_t number;
  size_t index;  // among the arguments; of a handle within a tuple, that of the tuple
};

class ArrayValues {
 public:
  ArrayValues(const ArrayConstants &constants, const ArrayStore &store) : constants_(constants), store_(store) {}

  // Throws HandBack for what Python has to decode or to refuse; no error is set then.
  Ref read(Reader &from, unsigned depth = 0);
  // The array that a number names; throws HandBack if it names nothing or anything else: a fault, or an object, which
  // Python charges anew after each call.
  Ref object(uint64_t number);

  std::vector<Named> named;  // by the arguments read since it was cleared
  size_t index = 0;          // of the argument that is read

 private:
  Ref read_text(Reader &from);
  Ref read_items(Reader &from, bool is_tuple, unsigned depth);
  Ref read_slice(Reader &from, unsigned depth);

  const ArrayConstants &constants_;
  const ArrayStore &store_;
};

// By code: sizes of an item, in bytes; 0 where arrays have no such dtype.
constexpr uint8_t kItemNbytes[kDtypeCodes] = {1, 1, 2, 4, 8, 2, 4, 8, 0, 8, 16, 1, 0, 0, 0,
                                              0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,  0, 2, 4, 8};

inline void expect(bool is_met) {
  if (!is_met)
    throw HandBack{};
}

// Throws HandBack if Python could not make an object.
Ref must(PyObject *made);

}  // namespace xpool_server
