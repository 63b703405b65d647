// On a CUDA build of torch the device's key is full of kernels that would launch on a device of this host. Each gets
// out of the way: a call then takes the path it takes on a CPU build, and the server sees the same operations.
#include "cuda_build.h"

#include <c10/util/Exception.h>

#include <array>
#include <mutex>
#include <unordered_set>

namespace xpool {
namespace {

template <c10::DispatchKey key> void as_composite(const c10::OperatorHandle &handle, Stack *stack) {
  handle.callBoxedForDispatchKey(key, *stack);
}

// What torch takes for a key without a kernel of its own, in the dispatcher's order; null if there is nothing.
Boxed *composite_of(const c10::OperatorHandle &handle, c10::DispatchKey key) {
  using c10::DispatchKey;
  const auto serves = [&](DispatchKey composite) {
    return handle.hasKernelForDispatchKey(composite) && c10::isIncludedInAlias(key, composite);
  };
  if (serves(DispatchKey::CompositeExplicitAutogradNonFunctional))
    return &as_composite<DispatchKey::CompositeExplicitAutogradNonFunctional>;
  if (serves(DispatchKey::CompositeExplicitAutograd))
    return &as_composite<DispatchKey::CompositeExplicitAutograd>;
  if (serves(DispatchKey::CompositeImplicitAutograd))
    return &as_composite<DispatchKey::CompositeImplicitAutograd>;
  return nullptr;
}

void refuse(const c10::OperatorHandle &handle, Stack *) {
  TORCH_CHECK_NOT_IMPLEMENTED(false, "xpool: ", handle.operator_name(),
                              " of a tensor of this layout is not supported on the remote device");
}

Boxed *kernel_on_cpu_build(const c10::OperatorHandle &handle, c10::DispatchKey key) {
  const bool is_dense = key == c10::DispatchKey::CUDA;
  Boxed *kernel = is_dense ? kernel_by_schema(handle) : nullptr;
  if (!kernel)
    kernel = composite_of(handle, key);
  return kernel ? kernel : is_dense ? &dispatch : &refuse;
}

// makeFromBoxedFunction wants its function at compile time.
c10::KernelFunction kernel_function(Boxed *kernel) {
  struct Call final : c10::OperatorKernel {
    explicit Call(Boxed *kernel) : kernel_(kernel) {}
    void operator()(const c10::OperatorHandle &handle, c10::DispatchKeySet, Stack *stack) { kernel_(handle, stack); }
    Boxed *kernel_;
  };
  return c10::KernelFunction::makeFromBoxedFunctor(std::make_unique<Call>(kernel));
}

// Kernels of a process group only call it: they run on this host whatever the device.
bool stays(const c10::OperatorName &name) { return name.name.rfind("c10d::", 0) == 0; }

// Where a device has no kernel, torch differentiates a composite by its parts; where it has one, by a formula that calls
// a kernel for the backward. A CPU build has none: there the parts are differentiated.
bool differentiated_by_parts(const c10::OperatorHandle &handle, c10::DispatchKey key, const Boxed *kernel) {
  return key == c10::DispatchKey::CUDA && kernel == &as_composite<c10::DispatchKey::CompositeImplicitAutograd> &&
         !handle.hasKernelForDispatchKey(c10::DispatchKey::AutogradCUDA);
}

constexpr std::array kTakenKeys = {c10::DispatchKey::CUDA, c10::DispatchKey::SparseCUDA, c10::DispatchKey::SparseCsrCUDA,
                              c10::DispatchKey::NestedTensorCUDA, c10::DispatchKey::QuantizedCUDA};

std::mutex take_over_mutex;

// Kernels that are not, or no longer, to be replaced.
std::unordered_set<std::string> &settled() {
  static auto *names = new std::unordered_set<std::string>;
  return *names;
}

void take_over(c10::DispatchKey key) {
  // Never destroyed: without the registrations torch's own kernels would be back at the exit.
  static auto *registrations = new std::vector<c10::RegistrationHandleRAII>;
  auto &dispatcher = c10::Dispatcher::singleton();
  for (const auto &name : dispatcher.getRegistrationsForDispatchKey(key)) {
    const auto handle = dispatcher.findSchema(name);
    if (!handle || stays(name) || !settled().insert(c10::str(key, " ", name)).second)
      continue;
    Boxed *kernel = kernel_on_cpu_build(*handle, key);
    const auto put = [&](c10::DispatchKey where) {
      registrations->push_back(
          dispatcher.registerImpl(name, where, kernel_function(kernel), std::nullopt, nullptr, "xpool"));
    };
    put(key);
    if (differentiated_by_parts(*handle, key, kernel))
      put(c10::DispatchKey::AutogradCUDA);
  }
}

}  // namespace

c10::WarningHandler *no_warnings() {
  struct Silent final : c10::WarningHandler {
    void process(const c10::Warning &) override {}
  };
  static Silent silent;
  return &silent;
}

void take_over_kernels() {
  const std::lock_guard<std::mutex> lock(take_over_mutex);
  const c10::WarningUtils::WarningHandlerGuard quietly(no_warnings());  // torch warns of each kernel replaced
  for (const auto key : kTakenKeys)
    take_over(key);
}

void settle_kernels() {
  const std::lock_guard<std::mutex> lock(take_over_mutex);
  for (const auto key : kTakenKeys)
    for (const auto &name : c10::Dispatcher::singleton().getRegistrationsForDispatchKey(key))
      settled().insert(c10::str(key, " ", name));
}

}  // namespace xpool
