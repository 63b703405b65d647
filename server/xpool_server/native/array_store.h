// A session's arrays and other objects by number, and what their memory is charged: the store beneath ArrayTable in
// xpool_server/arrays/table.py, of which store.py is the twin.
//
// All with Python's lock held, which is all that guards it.
#pragma once
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "python_api.h"

namespace xpool_server {

class ArrayStore {
 public:
  // An array with its own memory: by how many numbers and parts it is held, and what it is charged.
  struct Owner {
    int64_t count;
    uint64_t charge;
  };
  using Owners = std::unordered_map<PyObject *, Owner>;

  struct Row {
    uint64_t number = 0;
    PyObject *object = nullptr;      // ours; null where there is no row
    Owners::value_type *owner = nullptr;  // of a plain array's memory; null for whatever else has a number
  };

  ArrayStore() : rows_(kLeastRows) {}
  ArrayStore(const ArrayStore &) = delete;
  ~ArrayStore();

  // Good until the next change; null if the number names nothing.
  const Row *find(uint64_t number) const;
  size_t size() const { return count_; }
  const std::vector<Row> &rows() const { return rows_; }  // those with an object

  // Gives an object a number, in place of what it may have named. False, and nothing has happened, for want of memory.
  bool set(uint64_t number, Ref object, Owners::value_type *owner);
  // Takes out what a number names, which is there; its owner's count is the caller's.
  Ref remove(uint64_t number);

  Owners::value_type *owner(PyObject *array);
  // Null for want of memory.
  Owners::value_type *add_owner(PyObject *array, uint64_t charge);
  // Lets go once; whether that was the last. `charge` is what it was charged.
  bool release(Owners::value_type *owner, uint64_t &charge);
  const Owners &owners() const { return owners_; }

 private:
  static constexpr size_t kLeastRows = 256;

  size_t home(uint64_t number) const { return (number * 0x9E37'79B9'7F4A'7C15) >> (64 - bits_); }
  size_t place(uint64_t number) const;
  void grow();

  unsigned bits_ = 8;
  std::vector<Row> rows_;  // a power of two, at most half of them taken; each at its home or, unbroken, behind it
  size_t count_ = 0;
  Owners owners_;
};

}  // namespace xpool_server
