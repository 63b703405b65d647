#include "array_store.h"

#include <new>

namespace xpool_server {

ArrayStore::~ArrayStore() {
  for (const Row &row : rows_)
    if (row.object)
      Py_DecRef(row.object);
}

// Where a number stands, or would stand.
size_t ArrayStore::place(uint64_t number) const {
  const size_t mask = rows_.size() - 1;
  size_t at = home(number);
  while (rows_[at].object && rows_[at].number != number)
    at = (at + 1) & mask;
  return at;
}

const ArrayStore::Row *ArrayStore::find(uint64_t number) const {
  const Row &row = rows_[place(number)];
  return row.object ? &row : nullptr;
}

void ArrayStore::grow() {
  std::vector<Row> before(rows_.size() * 2);
  before.swap(rows_);
  bits_++;
  for (const Row &row : before)
    if (row.object)
      rows_[place(row.number)] = row;
}

bool ArrayStore::set(uint64_t number, Ref object, Owners::value_type *owner) {
  try {
    if (2 * (count_ + 1) > rows_.size())
      grow();
  } catch (const std::bad_alloc &) {
    return false;
  }
  Row &row = rows_[place(number)];
  count_ += !row.object;
  const Ref before(row.object);
  row = {number, object.release(), owner};
  return true;
}

Ref ArrayStore::remove(uint64_t number) {
  const size_t mask = rows_.size() - 1;
  size_t hole = place(number);
  Ref found(rows_[hole].object);
  count_--;
  // What stands behind it moves up, unless it would pass its home.
  for (size_t at = (hole + 1) & mask; rows_[at].object; at = (at + 1) & mask) {
    if (((at - home(rows_[at].number)) & mask) < ((at - hole) & mask))
      continue;
    rows_[hole] = rows_[at];
    hole = at;
  }
  rows_[hole] = {};
  return found;
}

ArrayStore::Owners::value_type *ArrayStore::owner(PyObject *array) {
  const auto found = owners_.find(array);
  return found == owners_.end() ? nullptr : &*found;
}

ArrayStore::Owners::value_type *ArrayStore::add_owner(PyObject *array, uint64_t charge) {
  try {
    return &*owners_.insert({array, {1, charge}}).first;
  } catch (const std::bad_alloc &) {
    return nullptr;
  }
}

bool ArrayStore::release(Owners::value_type *owner, uint64_t &charge) {
  charge = owner->second.charge;
  if (--owner->second.count > 0)
    return false;
  owners_.erase(owner->first);
  return true;
}

}  // namespace xpool_server
