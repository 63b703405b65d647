#include "executor.h"

#include <c10/core/Allocator.h>
#include <c10/core/DeviceGuard.h>

namespace xpool_server {

namespace {

enum Record : uint8_t { kCall = 2, kAllocate = 4, kFree = 5, kWrite = 6, kRead = 7, kRunPlan = 29 };

// What torch warns of, it warns of on the client too; and a client must not be able to fill the server's log.
class Silence : public c10::WarningHandler {
  void process(const c10::Warning &) override {}
};

void expect(bool is_met) {
  if (!is_met)
    throw HandBack{};
}

}  // namespace

Executor::Executor(c10::Device device, uint64_t quota_nbytes, uint64_t max_handles)
    : storages(quota_nbytes, max_handles), device_(device), values_(storages, device) {}

void Executor::define(uint64_t number, std::unique_ptr<Operation> operation) {
  if (number >= operations_.size())
    operations_.resize(number + 1);
  operations_[number] = std::move(operation);
}

Outcome Executor::run(const uint8_t *records, size_t nbytes, size_t start) {
  static Silence silence;
  c10::WarningUtils::WarningHandlerGuard guard(&silence);
  Reader from(records, nbytes);
  from.go_to(start);
  record_count = 0;
  failure = nullptr;
  leaves.clear();
  bound = 0;
  if (start == 0 && !storages.frame)
    plans.begin_batch();
  position = start;
  while (expansion.plan || !from.is_exhausted()) {
    if (expansion.plan) {
      const Outcome outcome = replay();
      if (outcome != Outcome::kDone)
        return outcome;
      continue;
    }
    position = from.position();
    if (*from.here() == kRunPlan && !storages.frame) {
      if (!begin_run(from))
        return Outcome::kHandBack;
      position = from.position();
      continue;
    }
    if (turn && !turn->check(!storages.frame))
      return Outcome::kCalled;
    const Outcome outcome = step(from);
    if (outcome != Outcome::kDone && outcome != Outcome::kRead)
      return outcome;
    record_count++;
    if (outcome == Outcome::kRead) {
      position = from.position();
      return outcome;
    }
  }
  position = from.position();
  return Outcome::kDone;
}

bool Executor::begin_run(Reader &from) {
  try {
    from.uint8();
    plans.begin(from, expansion);
    return true;
  } catch (const HandBack &) {
    return false;
  }
}

void Executor::go_on_in_plan(size_t at) {
  expansion.at = at;
  expansion.index++;
}

// The records of a plan's run, one after the other, until one is Python's or something is to be sent.
Outcome Executor::replay() {
  Expansion &run = expansion;
  Reader from(reinterpret_cast<const uint8_t *>(run.records.data()), run.records.size());
  while (true) {
    if (run.next_due < run.due.size() && run.due[run.next_due].index + 1 == run.index &&
        answer_early(run.due[run.next_due++]))
      return Outcome::kRead;
    from.go_to(run.at);
    if (from.is_exhausted() && run.index == run.count) {
      run.plan = nullptr;
      return Outcome::kDone;
    }
    if (run.index == run.count)
      run.at = run.records.size();  // more than were announced: Python finds none here
    if (turn && !turn->check(true))
      return Outcome::kCalled;
    const Outcome outcome =
        from.is_exhausted() || run.index == run.count ? Outcome::kHandBack : step_in_plan(from);
    if (outcome != Outcome::kDone && outcome != Outcome::kRead)
      return outcome;
    record_count++;
    go_on_in_plan(from.position());
    if (outcome == Outcome::kRead)
      return outcome;
  }
}

// A plan's record has one of four kinds, whatever its bytes have become; a read may have been answered by now.
Outcome Executor::step_in_plan(Reader &from) {
  const uint8_t kind = *from.here();
  if (kind != kRead)
    return kind == kCall || kind == kAllocate || kind == kFree ? step(from) : Outcome::kHandBack;
  Plan::Early *early = expansion.plan->early_at(expansion.first + expansion.index);
  if (early && early->answered && skip_read(from, early->answered)) {
    early->answered = 0;
    return Outcome::kDone;
  }
  return step(from);
}

// Goes behind a read that asks for this answer.
bool Executor::skip_read(Reader &from, uint64_t answered) {
  Reader record = from;
  try {
    record.uint8();
    if (record.uvarint(MAX_STORAGE_ID) != answered)
      return false;
    record.uvarint(MAX_STORAGE_ID);
    record.uvarint(MAX_STORAGE_NBYTES);
    record.uvarint(TRANSFER_NBYTES);
  } catch (const HandBack &) {
    return false;
  }
  from = record;
  return true;
}

// Whether a read has its answer before its turn: only where reading holds nothing up, and nothing is wrong with it.
bool Executor::answer_early(const Plan::Due &due) {
  Reader from(reinterpret_cast<const uint8_t *>(due.read.data()), due.read.size());
  if (!device_.is_cpu() || step(from) != Outcome::kRead)
    return false;
  due.early->answered = due.request;
  return true;
}

void Executor::define_graph(uint64_t id, std::string records, uint64_t storage_count) {
  graphs_[id] = {std::move(records), storage_count};
}

Outcome Executor::run_graph(uint64_t id, const uint64_t *numbers, const uint64_t *parameters, size_t count) {
  const Graph &graph = graphs_.at(id);
  slots.assign(graph.storage_count, nullptr);
  is_parameter_.assign(graph.storage_count, false);
  for (size_t i = 0; i < count; i++) {
    slots.at(numbers[i]) = storages.find(parameters[i]);
    is_parameter_[numbers[i]] = true;
  }
  struct Within {
    Storages &storages;
    ~Within() { storages.frame = nullptr; }
  } within{storages};
  storages.frame = &slots;
  return run(reinterpret_cast<const uint8_t *>(graph.records.data()), graph.records.size(), 0);
}

std::vector<uint64_t> Executor::made() const {
  std::vector<uint64_t> numbers;
  for (size_t i = 0; i < slots.size(); i++)
    if (slots[i] && !is_parameter_[i])
      numbers.push_back(i);
  return numbers;
}

Outcome Executor::step(Reader &from) {
  try {
    switch (from.uint8()) {
      case kCall: return call(from);
      case kAllocate: allocate(from); return Outcome::kDone;
      case kFree: free(from); return Outcome::kDone;
      case kWrite: write(from); return Outcome::kDone;
      case kRead: return read(from);
      default: return Outcome::kHandBack;
    }
  } catch (const HandBack &) {
  } catch (const std::exception &) {
    // Before anything has happened, too: Python meets the same and says so.
  }
  stack_.clear();  // it would keep storages alive
  return Outcome::kHandBack;
}

void Executor::allocate(Reader &from) {
  const uint64_t id = from.uvarint(MAX_STORAGE_ID);
  const uint64_t nbytes = from.uvarint(MAX_STORAGE_NBYTES);
  expect(storages.is_free(id) && storages.has_room(charged_nbytes(nbytes)) && storages.has_rows(1));
  const c10::DeviceGuard guard(device_);
  storages.adopt(id, c10::Storage(c10::Storage::use_byte_size_t(), nbytes, c10::GetAllocator(device_.type()),
                                  /*resizable=*/true));
}

void Executor::free(Reader &from) {
  const uint64_t id = from.uvarint(MAX_STORAGE_ID);
  const Entry *entry = storages.find(id);
  expect(entry && entry->is_usable());  // the fault of a poisoned one, and an upload, are Python's to end
  storages.free(id);
}

// Bytes in the record or in payload frames, into memory of this host.
void Executor::write(Reader &from) {
  expect(device_.is_cpu());
  const Entry *entry = storages.find(from.uvarint(MAX_STORAGE_ID));
  const uint64_t offset = from.uvarint(MAX_STORAGE_NBYTES);
  const uint64_t nbytes = from.uvarint(TRANSFER_NBYTES);
  const uint64_t payload = from.uvarint(MAX_FRAMES - 1);
  expect(entry && entry->is_usable() && offset + nbytes <= entry->nbytes);
  if (payload) {
    write_payload(*entry, offset, nbytes, payload);
    return;
  }
  expect(nbytes <= INLINE_NBYTES);
  const uint8_t *data = from.raw(nbytes);
  if (nbytes)
    memcpy(static_cast<uint8_t *>(entry->storage.mutable_data()) + offset, data, nbytes);
}

// The frames from the `payload`-th on: all are looked at before any byte is written.
void Executor::write_payload(const Entry &entry, uint64_t offset, uint64_t nbytes, uint64_t payload) {
  const uint64_t first = payload - 1, count = (nbytes + CHUNK_NBYTES - 1) / CHUNK_NBYTES;
  expect(!expansion.plan && !storages.frame && nbytes && first + count <= payloads.size());
  uint64_t total = 0;
  for (uint64_t i = 0; i < count; i++)
    total += payloads[first + i].size();
  expect(total == nbytes);
  auto *to = static_cast<uint8_t *>(entry.storage.mutable_data()) + offset;
  for (uint64_t i = 0; i < count; i++) {
    const std::string_view piece = payloads[first + i];
    if (!piece.empty())
      memcpy(to, piece.data(), piece.size());
    to += piece.size();
  }
}

// What one payload frame of the answer holds, from memory of this host.
Outcome Executor::read(Reader &from) {
  expect(device_.is_cpu());
  const uint64_t request = from.uvarint(MAX_STORAGE_ID);
  const Entry *entry = storages.find(from.uvarint(MAX_STORAGE_ID));
  const uint64_t offset = from.uvarint(MAX_STORAGE_NBYTES);
  const uint64_t nbytes = from.uvarint(TRANSFER_NBYTES);
  expect(request > 0 && nbytes > 0 && nbytes <= CHUNK_NBYTES);
  expect(entry && entry->is_usable() && offset + nbytes <= entry->nbytes);
  answer = {request, static_cast<const uint8_t *>(entry->storage.data()) + offset, nbytes};
  return Outcome::kRead;
}

Operation &Executor::read_operation(Reader &from, uint64_t &number) {
  number = from.uvarint(MAX_OPERATIONS - 1);
  expect(number < operations_.size() && operations_[number]);
  return *operations_[number];
}

void Executor::read_outputs(Reader &from) {
  output_count_ = from.uvarint(MAX_OUTPUTS);
  for (size_t i = 0; i < output_count_; i++) {
    if (outputs_.size() <= i)
      outputs_.emplace_back();
    Output &output = outputs_[i];
    const uint8_t mark = from.uint8();
    expect(mark <= 1);
    output.is_given = mark;
    if (!mark)
      continue;
    output.id = from.uvarint(MAX_STORAGE_ID);
    read_geometry(from, output.geometry);
    output.nbytes = output.geometry.span_nbytes();
  }
}

void Executor::check_room() {
  uint64_t charge = 0, given = 0;
  for (size_t i = 0; i < output_count_; i++) {
    const Output &output = outputs_[i];
    if (!output.is_given)
      continue;
    expect(output.geometry.offset == 0 && output.geometry.flags == 0 && storages.is_free(output.id));
    expect(output.nbytes <= storages.quota_nbytes);
    charge += charged_nbytes(output.nbytes);
    given++;
    // Each is at most the quota, so that the sum can't leave 64 bits before this sees it.
    expect(storages.has_room(charge));
  }
  expect(storages.has_rows(given));
}

// The results' tensors in schema order into `leaves`; undefined where there is none.
bool Executor::flatten(const Operation &operation) {
  for (size_t i = 0; i < stack_.size(); i++) {
    if (operation.returns_tensor[i])
      leaves.push_back(stack_[i].toTensor());
    else if (operation.returns_list[i])
      for (const at::Tensor &one : stack_[i].toTensorVector())
        leaves.push_back(one);
  }
  return leaves.size() == output_count_;
}

// Whether a storage that the call was to write has another size now.
bool Executor::has_resized() const {
  for (const Entry *entry : values_.written())
    if (entry->storage.nbytes() != entry->nbytes)
      return true;
  return false;
}

// Whether the items of a result lie where they were predicted: the stride of a dimension of one item is nothing to that.
bool Executor::lies_alike(const at::Tensor &leaf, const Geometry &geometry) {
  bool is_empty = false, is_alike = true;
  for (size_t i = 0; i < geometry.sizes.size(); i++) {
    is_empty |= geometry.sizes[i] == 0;
    is_alike &= geometry.sizes[i] == 1 || leaf.stride(i) == geometry.strides[i];
  }
  return is_alike && !(is_empty && leaf.strides() != c10::IntArrayRef(geometry.strides));
}

// False if the result is not a whole storage of its own in the layout that was predicted.
bool Executor::bind_one(const Output &output, const at::Tensor &leaf) {
  const Geometry &geometry = output.geometry;
  if (!leaf.defined() || leaf.layout() != c10::kStrided || !leaf.has_storage() || leaf.scalar_type() != geometry.dtype ||
      leaf.sizes() != c10::IntArrayRef(geometry.sizes) || !lies_alike(leaf, geometry) || leaf.storage_offset() != 0 || leaf.device() != device_ || leaf.is_neg() || leaf.is_conj())
    return false;
  const c10::Storage &storage = leaf.storage();
  if (storage.nbytes() != output.nbytes || storages.is_named(storage.unsafeGetStorageImpl()) ||
      !storages.is_free(output.id) || !storages.has_room(charged_nbytes(output.nbytes)))
    return false;
  Entry &entry = storages.adopt(output.id, storage);
  if (leaf.strides() == c10::IntArrayRef(geometry.strides))
    entry.views.push_back({std::string(geometry.bytes), leaf});
  return true;
}

namespace {

uint64_t hash_step(uint64_t value, uint64_t number) { return (value ^ number) * 0x100000001b3; }

}  // namespace

// As `keys` in arbiter/costs.py: the shapes of the tensors among the arguments, exactly, and how large they are roughly.
void Executor::submit(uint64_t number) {
  constexpr uint64_t kOffset = 0xcbf29ce484222325;
  uint64_t exact = hash_step(kOffset, number), items = 0;
  const auto add = [&](const at::Tensor &tensor) {
    if (!tensor.defined() || tensor.layout() != c10::kStrided)
      return;
    exact = hash_step(exact, 0xff);
    uint64_t product = 1;
    for (const int64_t size : tensor.sizes()) {
      exact = hash_step(exact, static_cast<uint64_t>(size));
      product *= static_cast<uint64_t>(size);
    }
    items += product;
  };
  for (const c10::IValue &value : stack_) {
    if (value.isTensor())
      add(value.toTensor());
    else if (value.isTensorList())
      for (const at::Tensor &one : value.toTensorVector())
        add(one);
  }
  uint64_t bits = 0;
  for (; items; items >>= 1)
    bits++;
  costs->submit(exact, hash_step(hash_step(kOffset, number), bits));
}

Outcome Executor::call(Reader &from) {
  uint64_t number;
  const Operation &operation = read_operation(from, number);
  stack_ = operation.defaults;
  values_.read_arguments(from, operation, stack_);
  read_outputs(from);
  check_room();
  // From here on the record has effects: it is never handed back.
  if (costs)
    submit(number);
  try {
    operation.handle.callBoxed(stack_);
    executed_ops++;
    const bool is_plain = flatten(operation) && !(operation.reshapes && has_resized());
    for (; is_plain && bound < output_count_; bound++)
      if (outputs_[bound].is_given && !bind_one(outputs_[bound], leaves[bound]))
        break;
    stack_.clear();
    if (!is_plain || bound < output_count_)
      return Outcome::kResults;
    leaves.clear();
    bound = 0;
    return Outcome::kDone;
  } catch (...) {
    failure = std::current_exception();
    stack_.clear();
    leaves.clear();
    return Outcome::kFailed;
  }
}

}  // namespace xpool_server
