// Every ATen call on a remote tensor that no composite kernel took apart arrives in `dispatch`.
//
// A call is encoded once into two byte strings: `wire`, what the server gets, and `key`, what decides the results'
// geometry. The geometry comes from a plan under that key; at a miss from the operation's meta kernel; where that
// cannot know, from the server, once per key.
#include "dispatch.h"

#include <ATen/EmptyTensor.h>
#include <ATen/core/LegacyTypeDispatch.h>

#include "capture.h"
#include "recording.h"
#include "structured.h"

namespace xpool {

static std::atomic<uint64_t> plan_hits{0}, plan_misses{0}, plan_requests{0};
static std::array<std::atomic<bool>, kMaxDevices> server_other{};

PlanCounters plan_counters() { return {plan_hits, plan_misses, plan_requests}; }
void count_request() { plan_requests++; }
bool server_is_cpu(int device) { return !server_other[device]; }
void set_server_is_cpu(int device, bool value) { server_other[device] = !value; }

bool is_remote(const at::Tensor &tensor) { return tensor.defined() && tensor.device().type() == kRemote; }

uint64_t span_items(c10::IntArrayRef sizes, c10::IntArrayRef strides) {
  uint64_t last = 1;
  for (size_t i = 0; i < sizes.size(); i++) {
    if (sizes[i] == 0)
      return 0;
    last += static_cast<uint64_t>(sizes[i] - 1) * static_cast<uint64_t>(strides[i]);
  }
  return last;
}

// ---------------------------------------------------------------- views

static bool make_views(const Operation &operation, Stack *stack) {
  const size_t count = operation.schema.arguments().size();
  const Stack arguments(stack->end() - count, stack->end());
  if (!arguments[0].isTensor())
    return false;
  const at::Tensor &base = arguments[0].toTensor();
  Stack metas;
  Stack results = run_meta(operation, arguments, metas);
  auto over_base = [&](const at::Tensor &meta) {
    at::Tensor view = at::detail::make_tensor<c10::TensorImpl>(c10::TensorImpl::VIEW, c10::Storage(base.storage()),
                                                               base.key_set(),
                                                               c10::scalarTypeToTypeMeta(meta.scalar_type()));
    auto *impl = view.unsafeGetTensorImpl();
    impl->set_storage_offset(meta.storage_offset() +
                             base.storage_offset() * base.element_size() / meta.element_size());
    impl->set_sizes_and_strides(meta.sizes(), meta.strides());
    view._set_conj(meta.is_conj());
    view._set_neg(meta.is_neg());
    return view;
  };
  torch::jit::drop(*stack, count);
  for (const auto &result : results) {
    if (result.isTensor()) {
      stack->emplace_back(over_base(result.toTensor()));
      continue;
    }
    std::vector<at::Tensor> views;
    for (const auto &meta : result.toTensorVector())
      views.push_back(over_base(meta));
    stack->emplace_back(std::move(views));
  }
  return true;
}

// Kernels may leave the conjugate mark on an out= tensor, as linalg.lu_solve does. Meta kernels do not say so.
static bool may_mark_written(const Operation &operation, Arguments arguments) {
  if (!operation.has_out)
    return false;
  for (const int i : operation.written)
    if (arguments[i].isTensor() && is_remote(arguments[i].toTensor()) && arguments[i].toTensor().is_complex())
      return true;
  return false;
}

static void encode(Encoding &to, const Operation &operation, Arguments arguments) {
  const void *identity = &operation;
  to.key.raw(&identity, sizeof identity);
  put_arguments(to, operation, arguments);
  put_surroundings(to);
}

static bool is_as_before(const std::string &key, const Operation &operation, Arguments arguments) {
  Encoding now;
  encode(now, operation, arguments);
  return now.key.str() == key;
}

// Gives the fresh tensor that a factory fills its size, so that the server need not be asked for it.
static bool size_what_is_filled(const Operation &operation, Arguments arguments) {
  if (!operation.fills_out || !arguments[operation.written[0]].isTensor())
    return false;
  const at::Tensor &filled = arguments[operation.written[0]].toTensor();
  if (!is_remote(filled) || filled.dim() != 1 || filled.numel() != 0)
    return false;
  try {
    Stack metas;
    run_meta(operation, arguments, metas);
    const at::Tensor &meta = metas[operation.written[0]].toTensor();
    if (!meta.is_contiguous())
      return false;
    const at::AutoDispatchBelowADInplaceOrView guard;
    filled.resize_(meta.sizes());
  } catch (const c10::OutOfMemoryError &) {
    throw;
  } catch (const std::exception &) {
    return false;  // the server's error is the true one
  }
  return true;
}

void dispatch(const c10::OperatorHandle &handle, Stack *stack) {
  check_process();
  Operation &operation = operation_of(handle);
  if (swallow(operation, stack))
    return;
  if (C10_UNLIKELY(operation.lacking_on.load(std::memory_order_relaxed)))
    refuse_if_lacking(operation, *stack);
  StructuredPause pause;
  if (operation.is_view && make_views(operation, stack))
    return;
  const size_t count = operation.schema.arguments().size();
  const auto arguments = torch::jit::last(*stack, count);
  const bool is_sized = size_what_is_filled(operation, arguments);
  LentEncoding lent;
  Encoding *const encoding = &*lent;
  encode(*encoding, operation, arguments);
  Stack &results = encoding->results;
  const bool needs_no_plan = operation.only_writes && (!operation.has_out || is_sized) && !operation.grows_written;
  if (needs_no_plan) {
    static const Plan nothing{{}, std::vector<int>(8, kOneTensor)};
    predict_results(operation, arguments, nothing, *encoding);
    record(encoding->where(), operation, call_head(), encoding->wire);
  } else {
    const bool must_ask = (operation.returns_number && !operation.has_fixed_numbers) || operation.grows_written ||
                          (operation.is_dynamic && !is_gather(operation, arguments));
    const bool may_mark = may_mark_written(operation, arguments) && !capturing(encoding->where());
    std::shared_ptr<const Plan> plan = must_ask ? nullptr : find_plan(encoding->key.str());
    plan_hits += plan != nullptr;
    if (!plan && !must_ask) {
      plan_misses++;
      plan = may_mark ? nullptr : infer(operation, arguments);
      if (plan)
        remember_plan(encoding->key.str(), plan);
    }
    if (!plan && capturing(encoding->where())) {
      if (must_ask || operation.has_out)
        refuse_capture(encoding->where());
      plan = learn_apart(operation, arguments);
      if (!plan)
        refuse_capture(encoding->where());
      remember_plan(encoding->key.str(), plan);
    }
    if (plan) {
      predict_results(operation, arguments, *plan, *encoding);
      record(encoding->where(), operation, call_head(), encoding->wire);
      mark_results(results.data(), results.size());
    } else {
      const std::string key(encoding->key.str());
      results = requested_results(operation, arguments, *encoding);
      auto learned = std::make_shared<Plan>();
      const bool is_steady = !operation.has_out || (may_mark && is_as_before(key, operation, arguments));
      if (!must_ask && is_steady && plan_from(operation, results, *learned))
        remember_plan(key, learned);
    }
  }
  torch::jit::drop(*stack, count);
  for (auto &result : results)
    stack->push_back(std::move(result));
}

}  // namespace xpool
