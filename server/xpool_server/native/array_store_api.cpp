// What native_array_store.py calls, with Python's lock held. Objects are returned with a reference of the caller's.
#include <new>

#include "array_store.h"

using namespace xpool_server;

#define API extern "C" __attribute__((visibility("default")))

API ArrayStore *xs_array_store_new() { return new (std::nothrow) ArrayStore; }

API void xs_array_store_delete(ArrayStore *store) { delete store; }

API uint64_t xs_array_store_size(const ArrayStore *store) { return store->size(); }

// `absent` if the number names nothing.
API PyObject *xs_array_store_find(const ArrayStore *store, uint64_t number, PyObject *absent) {
  const ArrayStore::Row *row = store->find(number);
  return Ref::to(row ? row->object : absent).release();
}

// `owner`: of a plain array; itself, if it has its own memory. Null of anything else. 0 for want of memory.
API int32_t xs_array_store_set(ArrayStore *store, uint64_t number, PyObject *object, void *owner) {
  return store->set(number, Ref::to(object), owner ? store->owner(static_cast<PyObject *>(owner)) : nullptr);
}

API PyObject *xs_array_store_remove(ArrayStore *store, uint64_t number, PyObject *absent) {
  return store->find(number) ? store->remove(number).release() : Ref::to(absent).release();
}

// A list of all numbers and, behind each, what it names.
API PyObject *xs_array_store_items(const ArrayStore *store) {
  PyObject *list = PyList_New(2 * store->size());
  ssize_t at = 0;
  for (const ArrayStore::Row &row : store->rows()) {
    if (!list || !row.object)
      continue;
    PyList_SetItem(list, at++, PyLong_FromUnsignedLongLong(row.number));
    PyList_SetItem(list, at++, Ref::to(row.object).release());
  }
  return list;
}

API int32_t xs_array_store_hold(ArrayStore *store, PyObject *owner) {
  ArrayStore::Owners::value_type *known = store->owner(owner);
  if (known)
    known->second.count++;
  return known != nullptr;
}

API int32_t xs_array_store_add_owner(ArrayStore *store, PyObject *owner, uint64_t charge) {
  return store->add_owner(owner, charge) != nullptr;
}

// What it was charged, if that was the last hold; -1 if it was not, -2 if nobody holds it.
API int64_t xs_array_store_release(ArrayStore *store, PyObject *owner) {
  ArrayStore::Owners::value_type *known = store->owner(owner);
  uint64_t charge;
  if (!known)
    return -2;
  return store->release(known, charge) ? static_cast<int64_t>(charge) : -1;
}

// A list of all owners' ids and, behind each, how often it is held.
API PyObject *xs_array_store_holds(const ArrayStore *store) {
  PyObject *list = PyList_New(2 * store->owners().size());
  ssize_t at = 0;
  for (const auto &[array, owner] : store->owners()) {
    if (!list)
      break;
    PyList_SetItem(list, at++, PyLong_FromUnsignedLongLong(reinterpret_cast<uintptr_t>(array)));
    PyList_SetItem(list, at++, PyLong_FromLongLong(owner.count));
  }
  return list;
}
