// Structured operations: torch can infer their results in C++.
//
// Their composite kernel makes the outputs and calls the out= variant. That kernel is run for its shapes alone: outputs
// are allocated unannounced, the out= call is swallowed, and the functional call is recorded with the outputs as its
// results. If the kernel does anything else meanwhile (an index with a mask runs nonzero), the outputs so far are
// announced and the out= call is recorded as an ordinary one.
#include "structured.h"

#include <ATen/EmptyTensor.h>
#include <c10/util/Exception.h>

#include "capture.h"
#include "recording.h"

namespace xpool {

struct Structured {
  const Operation *outer;
  std::vector<c10::Storage> unannounced;
  bool is_broken = false, is_swallowed = false;
};
static thread_local Structured *structured = nullptr;

bool in_structured() { return structured && !structured->is_broken && !structured->is_swallowed; }
bool after_structured() { return structured && structured->is_swallowed; }

void note_unannounced(const c10::Storage &storage) {
  structured->unannounced.push_back(storage);
}

static void announce() {
  structured->is_broken = true;
  for (const auto &storage : structured->unannounced) {
    if (Capture *capture = capturing(storage.device().index())) {
      capture->append_allocate(static_cast<StorageName *>(storage.data_ptr().get_context()), storage.nbytes());
      continue;
    }
    Bytes record;
    record.uint8(kAllocate);
    record.uvarint(storage_id(storage));
    record.uvarint(storage.nbytes());
    Log::of(storage.device().index()).append(record);
    mark_known(storage);
  }
}

// Another operation begins inside a structured one.
StructuredPause::StructuredPause() : outer_(structured) {
  if (in_structured())
    announce();
  structured = nullptr;
}
StructuredPause::~StructuredPause() { structured = static_cast<Structured *>(outer_); }

static std::string_view base_name(const std::string &name) {
  std::string_view base(name);
  return base.size() > 1 && base.back() == '_' && base[base.size() - 2] != '_' ? base.substr(0, base.size() - 1) : base;
}

bool swallow(const Operation &operation, Stack *stack) {
  if (!in_structured() || !operation.has_out ||
      base_name(operation.schema.name()) != base_name(structured->outer->schema.name()))
    return false;
  structured->is_swallowed = true;
  const size_t count = operation.schema.arguments().size();
  const Stack arguments(stack->end() - count, stack->end());
  torch::jit::drop(*stack, count);
  for (const int argument : operation.return_to_argument)
    stack->push_back(arguments[argument]);
  return true;
}

// ---------------------------------------------------------------- calls that are known by now
//
// The composite kernel looks at geometry, at the numbers and at which tensors overlap, and at nothing else. So what it
// made of a call it makes of the next one that is the same in these; then only the record is left to do.

namespace {

// In an older torch dimensions may have names, which results inherit.
template <class Impl> bool has_names(const Impl *impl) {
  if constexpr (requires { impl->has_named_tensor_meta(); })
    return impl->has_named_tensor_meta();
  return false;
}

// A strided tensor of a device of ours, with a storage that has a name.
bool is_plain_remote(const at::Tensor &tensor, int &device) {
  const auto *impl = tensor.unsafeGetTensorImpl();
  if (impl->layout() != c10::kStrided || has_names(impl) || impl->is_wrapped_number() ||
      !impl->has_storage() || !tensor.storage().data_ptr().get_context())
    return false;
  const int index = tensor.device().index();
  if (device >= 0 && device != index)
    return false;
  device = index;
  return true;
}

bool is_plain_tensor(const at::Tensor &tensor, int &device) {
  if (!tensor.defined() || is_remote(tensor))
    return !tensor.defined() || is_plain_remote(tensor, device);
  return tensor.device().is_cpu() && tensor.unsafeGetTensorImpl()->is_wrapped_number() && tensor.dim() == 0;
}

bool is_plain_value(const c10::IValue &value, int &device) {
  if (value.isTensor())
    return is_plain_tensor(value.toTensor(), device);
  if (value.isTensorList()) {
    for (const c10::IValue &item : value.toListRef())
      if (!is_plain_tensor(item.toTensor(), device))
        return false;
    return true;
  }
  if (value.isOptionalTensorList()) {
    for (const c10::IValue &item : value.toListRef())
      if (!item.isNone() && !is_plain_tensor(item.toTensor(), device))
        return false;
    return true;
  }
  return value.isNone() || value.isInt() || value.isBool() || value.isDouble() || value.isComplexDouble() ||
         value.isIntList() || value.isDoubleList() || value.isBoolList() || value.isString();
}

// Whether what is written is also read through another tensor: then it matters where both lie.
bool overlaps_written(const at::Tensor &written, const c10::IValue &value) {
  if (value.isTensor()) {
    const at::Tensor &other = value.toTensor();
    return other.defined() && !other.is_same(written) && is_remote(other) && other.is_alias_of(written);
  }
  return !value.isNone() && !value.isScalar();
}

// Whether nothing else than the encoding's key decides what the composite kernel does.
bool is_plain(const Operation &operation, Arguments arguments) {
  int device = -1;
  for (const c10::IValue &value : arguments)
    if (!is_plain_value(value, device))
      return false;
  for (const int i : operation.written) {
    if (!arguments[i].isTensor() || !is_remote(arguments[i].toTensor()))
      return false;
    for (const c10::IValue &value : arguments)
      if (overlaps_written(arguments[i].toTensor(), value))
        return false;
  }
  return device >= 0 && !capturing(device);
}

void encode_known(Encoding &to, const Operation &operation, Arguments arguments) {
  const void *identity = &operation.schema;  // not `dispatch`'s, whose keys lack numbers
  to.key.raw(&identity, sizeof identity);
  to.keys_values = true;
  put_arguments(to, operation, arguments);
  put_surroundings(to);
}

void replace_arguments(Stack *stack, size_t count, Stack &results) {
  torch::jit::drop(*stack, count);
  for (auto &result : results)
    stack->push_back(std::move(result));
}

// Whether the results are new tensors, each over a whole storage of its own, that can be made again from their geometry.
bool is_repeatable(const Operation &operation, const c10::IValue *results, const std::vector<c10::Storage> &made) {
  for (size_t i = 0; i < operation.return_to_argument.size(); i++) {
    if (operation.return_to_argument[i] >= 0)
      continue;
    const at::Tensor &tensor = results[i].toTensor();
    if (!tensor.defined())
      continue;
    if (!is_remote(tensor) || tensor.layout() != c10::kStrided || tensor.storage_offset() != 0 || tensor.is_conj() ||
        tensor.is_neg() || has_names(tensor.unsafeGetTensorImpl()) ||
        tensor.storage().nbytes() != at::detail::computeStorageNbytes(tensor.sizes(), tensor.strides(), tensor.itemsize()))
      return false;
    bool is_made = false;
    for (const c10::Storage &storage : made)
      is_made |= storage.is_alias_of(tensor.storage());
    if (!is_made)
      return false;
  }
  return true;
}

// What torch warns of, it has to warn of each time.
class Noticing final : public c10::WarningHandler {
 public:
  Noticing() : before_(c10::WarningUtils::get_warning_handler()) { c10::WarningUtils::set_warning_handler(this); }
  ~Noticing() override { c10::WarningUtils::set_warning_handler(before_); }
  void process(const c10::Warning &warning) override {
    has_warned = true;
    before_->process(warning);
  }
  bool has_warned = false;

 private:
  c10::WarningHandler *const before_;
};

void record_structured(Operation &operation, Encoding &encoding, const c10::IValue *results) {
  const size_t count = operation.return_to_argument.size();
  encoding.wire.uvarint(count);
  for (size_t i = 0; i < count; i++) {
    if (operation.return_to_argument[i] >= 0)
      encoding.wire.uint8(0);
    else
      put_output(encoding.wire, results[i].toTensor());
  }
  record(encoding.where(), operation, call_head(), encoding.wire);
  mark_results(results, count);
}

// Runs the composite kernel for its shapes. False if it has recorded what it did itself.
bool run_composite(const c10::OperatorHandle &handle, Structured &now, Stack *stack) {
  constexpr auto kComposite = c10::DispatchKey::CompositeExplicitAutogradNonFunctional;
  structured = &now;
  try {
    handle.callBoxedForDispatchKey(kComposite, *stack);
  } catch (...) {
    structured = nullptr;
    throw;
  }
  if (!now.is_swallowed && !now.is_broken)
    announce();  // it allocated and called nothing, as new_empty_strided does
  structured = nullptr;
  return now.is_swallowed;
}

}  // namespace

void dispatch_structured(const c10::OperatorHandle &handle, Stack *stack) {
  check_process();
  StructuredPause pause;
  Operation &operation = operation_of(handle);
  if (C10_UNLIKELY(operation.lacking_on.load(std::memory_order_relaxed)))
    refuse_if_lacking(operation, *stack);
  if (C10_UNLIKELY(operation.must_learn.load(std::memory_order_relaxed)))
    return dispatch(handle, stack);
  const size_t count = operation.schema.arguments().size();
  const auto given = torch::jit::last(*stack, count);
  LentEncoding lent;
  Encoding &encoding = *lent;
  const bool plain = is_plain(operation, given);
  if (plain) {
    encode_known(encoding, operation, given);
    if (const auto plan = find_plan(encoding.key.str())) {
      predict_results(operation, given, *plan, encoding);
      record(encoding.where(), operation, call_head(), encoding.wire);
      mark_results(encoding.results.data(), encoding.results.size());
      return replace_arguments(stack, count, encoding.results);
    }
  }
  const Stack arguments(stack->end() - count, stack->end());
  Structured now{&operation};
  Noticing noticing;
  if (!run_composite(handle, now, stack))
    return;
  if (!plain)
    put_arguments(encoding, operation, arguments);
  const size_t result_count = operation.return_to_argument.size();
  const c10::IValue *results = stack->data() + stack->size() - result_count;
  record_structured(operation, encoding, results);
  if (!plain || noticing.has_warned || !is_repeatable(operation, results, now.unannounced))
    return;
  auto plan = std::make_shared<Plan>();
  if (plan_from(operation, Stack(results, results + result_count), *plan))
    remember_plan(encoding.key.str(), plan);
}

}  // namespace xpool
