// Structured operations: torch can infer their results in C++.
//
// Their composite kernel makes the outputs and calls the out= variant. That kernel is run for its shapes alone: outputs
// are allocated unannounced, the out= call is swallowed, and the functional call is recorded with the outputs as its
// results. If the kernel does anything else meanwhile (an index with a mask runs nonzero), the outputs so far are
// announced and the out= call is recorded as an ordinary one.
#include "structured.h"

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

void dispatch_structured(const c10::OperatorHandle &handle, Stack *stack) {
  constexpr auto kComposite = c10::DispatchKey::CompositeExplicitAutogradNonFunctional;
  check_process();
  StructuredPause pause;
  Operation &operation = operation_of(handle);
  if (C10_UNLIKELY(operation.lacking_on.load(std::memory_order_relaxed)))
    refuse_if_lacking(operation, *stack);
  if (C10_UNLIKELY(operation.must_learn.load(std::memory_order_relaxed)))
    return dispatch(handle, stack);
  const size_t count = operation.schema.arguments().size();
  const Stack arguments(stack->end() - count, stack->end());
  Structured now{&operation};
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
  if (!now.is_swallowed)
    return;
  Encoding encoding;
  put_arguments(encoding, operation, arguments);
  Bytes outputs;
  for (size_t i = 0; i < operation.return_to_argument.size(); i++) {
    if (operation.return_to_argument[i] >= 0)
      outputs.uint8(0);
    else
      put_output(outputs, torch::jit::peek(*stack, i, operation.return_to_argument.size()).toTensor());
  }
  encoding.wire.uvarint(operation.return_to_argument.size());
  encoding.wire.append(outputs);
  record(encoding.where(), operation, call_head(), encoding.wire);
  const size_t results = operation.return_to_argument.size();
  mark_results(stack->data() + stack->size() - results, results);
}

}  // namespace xpool
