#include "arrays.h"

#include <algorithm>

#include "numpy_fields.h"

namespace xpool_server {

namespace {

// From here on memory that is warm is worth looking for, as it is to NumPy itself.
constexpr uint64_t kReusedNbytes = 256 << 10;

}  // namespace

Arrays::Arrays(Executor &executor, ArrayConstants constants, ArrayStore &store)
    : executor_(executor), values_constants_(std::move(constants)), store_(store), values_(values_constants_, store) {}

void Arrays::define(uint64_t number, Ref callable, bool is_view, bool is_elementwise) {
  if (number >= operations_.size())
    operations_.resize(number + 1);
  operations_[number] = {std::move(callable), is_view, is_elementwise, {}, Ref()};
}

ArrayOutcome Arrays::run(const uint8_t *records, size_t nbytes, size_t start) {
  record_count = 0;
  if (left_) {
    const ArrayOutcome left = *left_;
    left_.reset();
    if (left == ArrayOutcome::kFailed)
      PyErr_Restore(std::exchange(raised_.type, nullptr), std::exchange(raised_.value, nullptr),
                    std::exchange(raised_.traceback, nullptr));
    return left;
  }
  result = Ref();
  Reader from(records, nbytes);
  from.go_to(start);
  return row(from, false);
}

ArrayOutcome Arrays::serve(const uint8_t *records, size_t nbytes, size_t start) {
  Reader from(records, nbytes);
  from.go_to(start);
  record_count = 0;
  const PyGILState before = PyGILState_Ensure();
  const ArrayOutcome outcome = row(from, true);
  if (outcome == ArrayOutcome::kFailed)
    PyErr_Fetch(&raised_.type, &raised_.value, &raised_.traceback);
  if (outcome == ArrayOutcome::kFailed || outcome == ArrayOutcome::kResult)
    left_ = outcome;
  PyGILState_Release(before);
  return outcome;
}

// While others may want the device, they get their turn, and other threads get Python's lock. As `Turn::check`.
bool Arrays::check_turn(bool heeds_calls) const {
  Turn *turn = executor_.turn;
  if (!turn || (turn->is_undisturbed() && !(heeds_calls && turn->is_wanted())))
    return true;
  PyThreadState *state = PyEval_SaveThread();
  const bool may_go_on = turn->check(heeds_calls);
  PyEval_RestoreThread(state);
  return may_go_on;
}

// Goes through records as long as they are about arrays; if they are served, as long as the node wants nothing.
ArrayOutcome Arrays::row(Reader &from, bool is_served) {
  while (!from.is_exhausted() && is_kind(*from.here())) {
    position = from.position();
    if (!check_turn(is_served))
      return ArrayOutcome::kDone;
    ArrayOutcome outcome = ArrayOutcome::kHandBack;
    try {
      outcome = step(from);
    } catch (const HandBack &) {
      PyErr_Clear();
    } catch (const std::bad_alloc &) {  // before anything has happened
    }
    arguments_.clear();  // they would keep arrays alive
    if (outcome != ArrayOutcome::kDone && outcome != ArrayOutcome::kAnswer)
      return outcome;
    record_count++;
    if (outcome == ArrayOutcome::kAnswer) {
      position = from.position();
      return outcome;
    }
  }
  position = from.position();
  return ArrayOutcome::kDone;
}

ArrayOutcome Arrays::step(Reader &from) {
  switch (from.uint8()) {
    case kCall: return call(from);
    case kFree: free(from); return ArrayOutcome::kDone;
    case kPut: put(from); return ArrayOutcome::kDone;
    case kRequest: return ask(from);
    case kOver: return lay_over(from);
    default: return ArrayOutcome::kHandBack;
  }
}

// ---- calls

void Arrays::read_predicted(Reader &from, bool is_view) {
  predicted_.number = from.uvarint(MAX_STORAGE_ID);
  predicted_.dtype = from.uint8();
  expect(predicted_.dtype < kDtypeCodes && kItemNbytes[predicted_.dtype]);
  const uint64_t ndim = from.uvarint(MAX_DIMS);
  predicted_.sizes.clear();
  unsigned __int128 bound = 1, items = 1;
  for (uint64_t i = 0; i < ndim; i++) {
    const uint64_t size = from.uvarint(MAX_EXTENT);
    predicted_.sizes.push_back(size);
    items *= size;
    bound *= std::max<uint64_t>(size, 1);
    expect(bound <= MAX_ITEMS);
  }
  const unsigned __int128 nbytes = items * kItemNbytes[predicted_.dtype];
  expect(nbytes <= MAX_STORAGE_NBYTES);
  predicted_.nbytes = static_cast<uint64_t>(nbytes);
  expect(!store_.find(predicted_.number) && store_.size() < max_handles);
  expect(is_view || executor_.storages.has_room(xpool_server::charged_nbytes(predicted_.nbytes)));
}

void Arrays::read_arguments(Reader &from) {
  positional_ = from.uvarint(MAX_ARGUMENTS);
  values_.named.clear();
  arguments_.clear();
  for (values_.index = 0; values_.index < positional_; values_.index++)
    arguments_.push_back(values_.read(from));
  const uint64_t count = from.uvarint(MAX_ARGUMENTS);
  names_.clear();
  for (uint64_t i = 0; i < count; i++) {
    const uint64_t nbytes = from.uvarint(MAX_NAME_NBYTES);
    const std::string_view name(reinterpret_cast<const char *>(from.raw(nbytes)), nbytes);
    expect(std::find(names_.begin(), names_.end(), name) == names_.end());
    names_.push_back(name);
    values_.index = positional_ + i;
    arguments_.push_back(values_.read(from));
  }
}

// The names of a call's keywords; null if it has none. A program mostly says the same ones again.
PyObject *Arrays::names_for(Operation &operation) const {
  if (names_.empty())
    return nullptr;
  if (operation.names_tuple && std::equal(names_.begin(), names_.end(), operation.names.begin(), operation.names.end()))
    return operation.names_tuple.get();
  Ref tuple = must(PyTuple_New(names_.size()));
  for (size_t i = 0; i < names_.size(); i++) {
    PyObject *name = must(PyUnicode_DecodeUTF8(names_[i].data(), names_[i].size(), nullptr)).release();
    PyUnicode_InternInPlace(&name);  // so that a function finds its own names at a glance
    PyTuple_SetItem(tuple.get(), i, name);
  }
  operation.names_tuple = Ref();  // should there be no memory for the names
  operation.names.assign(names_.begin(), names_.end());
  operation.names_tuple = std::move(tuple);
  return operation.names_tuple.get();
}

ArrayOutcome Arrays::call(Reader &from) {
  const uint64_t number = from.uvarint(MAX_OPERATIONS - 1);
  expect(number < operations_.size() && operations_[number].callable);
  Operation &operation = operations_[number];
  const uint64_t results = from.uvarint(1);
  if (results)
    read_predicted(from, operation.is_view);
  read_arguments(from);
  vector_.clear();
  for (const Ref &one : arguments_)
    vector_.push_back(one.get());
  PyObject *names = names_for(operation);
  if (results && !names && operation.is_elementwise && constants.count_references &&
      predicted_.nbytes >= kReusedNbytes) {
    if (PyObject *spare = take_memory(operation, from)) {
      vector_.push_back(spare);
      names = constants.names_out.get();
      reused++;
    }
  }
  // From here on the record has effects: it is never handed back.
  Ref found(PyObject_Vectorcall(operation.callable.get(), vector_.data(), positional_, names));
  if (!found)
    return ArrayOutcome::kFailed;
  executed_ops++;
  if (!results)
    return ArrayOutcome::kDone;
  if (!is_array(found.get())) {  // a scalar of the library's, or what is no result at all
    PyObject *given = found.get();
    found = Ref(PyObject_Vectorcall(constants.as_result.get(), &given, 1, nullptr));
    if (!found)
      return ArrayOutcome::kFailed;
  }
  return bind(std::move(found)) ? ArrayOutcome::kDone : ArrayOutcome::kResult;
}

// ---- results in the memory of an argument that nobody needs any more

// An argument whose memory the result may take: the next record frees it, and it is all alike. Null if there is none.
PyObject *Arrays::take_memory(const Operation &operation, Reader next) {
  try {
    if (next.is_exhausted() || next.uint8() != kFree)
      return nullptr;
    freed_.clear();
    for (uint64_t left = next.uvarint(MAX_LIST); left; left--)
      freed_.push_back(next.uvarint(MAX_STORAGE_ID));
  } catch (const HandBack &) {
    return nullptr;
  }
  const auto is_freed = [&](const Named &one) {
    return std::find(freed_.begin(), freed_.end(), one.number) != freed_.end();
  };
  const auto found = std::find_if(values_.named.begin(), values_.named.end(), is_freed);
  if (found == values_.named.end())
    return nullptr;
  // Arrays of one geometry and layout, and numbers of Python's: so the result's dtype and layout are theirs, too.
  for (const Named &one : values_.named)
    if (!is_array(vector_[one.index]) || !is_alike(vector_[one.index]))
      return nullptr;
  PyObject *array = vector_[found->index];
  const size_t times = std::count_if(values_.named.begin(), values_.named.end(),
                                     [&](const Named &one) { return one.number == found->number; });
  return is_spare(array, times) ? array : nullptr;
}

// Nothing but its number, and the arguments that we hold, leads to the array's memory, which is its own.
bool Arrays::is_spare(PyObject *array, size_t arguments) {
  const Ref base(PyObject_GetAttr(array, constants.base.get()));
  if (!base || base.get() != values_constants_.none.get() || !has_flag(array, constants.writeable, NumpyFields::kWriteable)) {
    PyErr_Clear();
    return false;
  }
  const Ref count(PyObject_Vectorcall(constants.count_references.get(), &array, 1, nullptr));
  const bool is_met = count && PyLong_AsLongLong(count.get()) <= static_cast<long long>(1 + arguments);
  PyErr_Clear();
  return is_met;
}

bool Arrays::has_flag(PyObject *array, const Ref &name, int flag_of_it) const {
  if (looks_inside_)
    return NumpyFields::of(array).flags & flag_of_it;
  const Ref flags(PyObject_GetAttr(array, constants.flags.get()));  // holds the array while it is there
  const Ref flag(flags ? PyObject_GetAttr(flags.get(), name.get()) : nullptr);
  const bool is_met = flag && PyObject_IsTrue(flag.get()) > 0;
  PyErr_Clear();
  return is_met;
}

bool Arrays::is_alike(PyObject *array) const {
  return fits(array) && has_flag(array, constants.c_contiguous, NumpyFields::kContiguous);
}

// ---- results

bool Arrays::look_inside(PyObject *probes) {
  looks_inside_ = PyTuple_Size(probes) > 0;
  for (ssize_t i = 0; looks_inside_ && i < PyTuple_Size(probes); i++)
    looks_inside_ = is_as_inside(PyTuple_GetItem(probes, i));
  return looks_inside_;
}

// Whether an array's fields say what its attributes say.
bool Arrays::is_as_inside(PyObject *array) const {
  const NumpyFields &inside = NumpyFields::of(array);
  const Ref type(PyObject_Type(array)), shape(PyObject_GetAttr(array, constants.shape.get()));
  const Ref dtype(PyObject_GetAttr(array, constants.dtype.get())), base(PyObject_GetAttr(array, constants.base.get()));
  const Ref flags(PyObject_GetAttr(array, constants.flags.get()));
  const Ref contiguous(flags ? PyObject_GetAttr(flags.get(), constants.c_contiguous.get()) : nullptr);
  const Ref writeable(flags ? PyObject_GetAttr(flags.get(), constants.writeable.get()) : nullptr);
  bool is_so = shape && dtype && base && contiguous && writeable && inside.type == type.get() &&
               inside.type == constants.array_type.get() && inside.dtype == dtype.get() &&
               (inside.base ? inside.base : values_constants_.none.get()) == base.get() &&
               bool(inside.flags & NumpyFields::kContiguous) == (PyObject_IsTrue(contiguous.get()) > 0) &&
               bool(inside.flags & NumpyFields::kWriteable) == (PyObject_IsTrue(writeable.get()) > 0) &&
               inside.dimensions == PyTuple_Size(shape.get());
  for (ssize_t i = 0; is_so && i < inside.dimensions; i++)
    is_so = inside.sizes[i] == PyLong_AsLongLong(PyTuple_GetItem(shape.get(), i));
  PyErr_Clear();
  return is_so;
}

bool Arrays::is_array(PyObject *object) const {
  if (looks_inside_)
    return NumpyFields::of(object).type == constants.array_type.get();
  const Ref type(PyObject_Type(object));
  return type.get() == constants.array_type.get();
}

// Whether an array has the shape and the dtype that were predicted.
bool Arrays::fits(PyObject *array) const {
  PyObject *wanted = values_constants_.dtypes[predicted_.dtype].get();
  if (looks_inside_) {
    const NumpyFields &inside = NumpyFields::of(array);
    if (inside.dimensions != static_cast<int>(predicted_.sizes.size()))
      return false;
    for (int i = 0; i < inside.dimensions; i++)
      if (inside.sizes[i] != static_cast<ssize_t>(predicted_.sizes[i]))
        return false;
    if (inside.dtype == wanted)
      return true;
    const bool is_equal = PyObject_RichCompareBool(inside.dtype, wanted, kEqual) > 0;
    PyErr_Clear();
    return is_equal;
  }
  const Ref shape(PyObject_GetAttr(array, constants.shape.get()));
  const Ref dtype(PyObject_GetAttr(array, constants.dtype.get()));
  bool is_met = shape && dtype && PyTuple_Size(shape.get()) == static_cast<ssize_t>(predicted_.sizes.size());
  for (size_t i = 0; is_met && i < predicted_.sizes.size(); i++)
    is_met = PyLong_AsLongLong(PyTuple_GetItem(shape.get(), i)) == static_cast<long long>(predicted_.sizes[i]);
  if (is_met && dtype.get() != wanted)
    is_met = PyObject_RichCompareBool(dtype.get(), wanted, kEqual) > 0;
  PyErr_Clear();
  return is_met;
}

// Gives the result its number. False if it is not what was predicted, or does not fit: Python says so.
bool Arrays::bind(Ref found) {
  if (is_array(found.get()) && fits(found.get())) {
    if (ArrayStore::Owners::value_type *owner = charge(found.get())) {
      if (store_.set(predicted_.number, Ref::to(found.get()), owner))
        return true;
      discharge(owner);
    }
  }
  result = std::move(found);
  return false;
}

// The array whose memory this one views; itself if it has its own. As owner_of in arrays/table.py.
Ref Arrays::owner_of(PyObject *array) const {
  Ref owner = Ref::to(array);
  while (true) {
    if (looks_inside_ && NumpyFields::of(owner.get()).base == nullptr)
      return owner;
    Ref base(PyObject_GetAttr(owner.get(), constants.base.get()));
    if (base && base.get() != values_constants_.none.get() && !is_array(base.get()))
      // as_strided puts an object of its own between.
      base = Ref(PyObject_GetAttr(base.get(), constants.base.get()));
    if (!base || !is_array(base.get())) {
      PyErr_Clear();
      return owner;
    }
    owner = std::move(base);
  }
}

// As ArrayTable._charge; null, and nothing has happened, if there is no room.
ArrayStore::Owners::value_type *Arrays::charge(PyObject *array) {
  const Ref owner = owner_of(array);
  if (ArrayStore::Owners::value_type *known = store_.owner(owner.get())) {
    known->second.count++;
    return known;
  }
  const Ref nbytes(PyObject_GetAttr(owner.get(), constants.nbytes.get()));
  const long long found = nbytes ? PyLong_AsLongLong(nbytes.get()) : -1;
  Storages &storages = executor_.storages;
  const uint64_t charge = xpool_server::charged_nbytes(std::max(found, 0ll));
  if (found < 0 || !storages.has_room(charge)) {
    PyErr_Clear();
    return nullptr;
  }
  ArrayStore::Owners::value_type *made = store_.add_owner(owner.get(), charge);
  if (!made)
    return nullptr;
  storages.allocated_nbytes += charge;
  storages.peak_nbytes = std::max(storages.peak_nbytes, storages.allocated_nbytes);
  charged_nbytes += charge;
  return made;
}

void Arrays::discharge(ArrayStore::Owners::value_type *owner) {
  uint64_t charge;
  if (!store_.release(owner, charge))
    return;
  executor_.storages.allocated_nbytes -= charge;
  charged_nbytes -= charge;
}

// ---- frees

void Arrays::free(Reader &from) {
  freed_.clear();
  for (uint64_t left = from.uvarint(MAX_LIST); left; left--)
    freed_.push_back(from.uvarint(MAX_STORAGE_ID));
  std::sort(freed_.begin(), freed_.end());
  expect(std::adjacent_find(freed_.begin(), freed_.end()) == freed_.end());
  for (const uint64_t number : freed_) {
    const ArrayStore::Row *row = store_.find(number);
    // What is no array may be charged for its parts, which Python knows.
    expect(row && row->owner);
  }
  for (const uint64_t number : freed_) {
    ArrayStore::Owners::value_type *owner = store_.find(number)->owner;
    const Ref object = store_.remove(number);  // while its owner is looked at it is there
    discharge(owner);
  }
}

}  // namespace xpool_server
