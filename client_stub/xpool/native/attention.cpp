// Which attention kernel a call takes: the one that the server's own torch would take for its device.
//
// torch's composite asks for the kind of the tensors' device, which is "cuda" here whatever the server has. A CPU
// server's kernels are chosen by the rules that torch has for a CPU, which look at geometry alone. A CUDA server is
// asked once for each geometry; which backends the program has switched off is known here, and here alone.
#include "capture.h"
#include "kernels.h"
#include "recording.h"

#include <ATen/Context.h>
#include <ATen/EmptyTensor.h>
#include <ATen/native/transformers/attention.h>
#include <ATen/native/transformers/sdp_utils_cpp.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/scaled_dot_product_attention_native.h>
#include <ATen/ops/where.h>
#include <torch/library.h>

#include <shared_mutex>
#include <unordered_map>

namespace xpool {

namespace {

using at::SDPBackend;
using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

struct Attention {
  const Tensor &query, &key, &value;
  const OptionalTensor &mask;
  double dropout;
  bool is_causal;
  std::optional<double> scale;
  bool enable_gqa;

  Tensor whole() const {
    return at::native::scaled_dot_product_attention(query, key, value, mask, dropout, is_causal, scale, enable_gqa);
  }
};

// What torch refuses before it chooses; its composite has the words for that.
bool is_sound(const Attention &call) {
  const auto fits = [&](const Tensor &other) {
    return other.scalar_type() == call.query.scalar_type() && other.device() == call.query.device() && other.dim() >= 2;
  };
  const bool takes_mask = !call.mask || call.mask->scalar_type() == at::kBool || call.mask->scalar_type() == at::kFloat ||
                          call.mask->scalar_type() == call.query.scalar_type();
  const bool is_strided = !call.query.is_nested() && !call.key.is_nested() && !call.value.is_nested();
  return is_strided && call.query.dim() >= 2 && fits(call.key) && fits(call.value) && takes_mask &&
         !(call.mask && call.is_causal);
}

bool has_cpu_kernel(int device) {
  static const Operation &flash = operation_named("aten::_scaled_dot_product_flash_attention_for_cpu");
  return !(flash.lacking_on >> device & 1);
}

OptionalTensor added_mask(const Attention &call) {
  if (!call.mask || call.mask->scalar_type() != at::kBool)
    return call.mask;
  const auto options = call.query.options();
  return at::where(*call.mask, at::scalar_tensor(0.0, options),
                   at::scalar_tensor(-std::numeric_limits<double>::infinity(), options));
}

// The rules for a CPU look at no bytes, so they may be asked of remote tensors.
SDPBackend cpu_choice(const Attention &call) {
  static const auto rules = c10::Dispatcher::singleton().findSchemaOrThrow("aten::_fused_sdp_choice", "");
  Stack stack{call.query,   call.key,       call.value, call.mask ? c10::IValue(*call.mask) : c10::IValue(),
              call.dropout, call.is_causal, call.scale, call.enable_gqa};
  rules.callBoxedForDispatchKey(c10::DispatchKey::CPU, stack);
  return static_cast<SDPBackend>(stack.at(0).toInt());
}

Tensor attention(const Tensor &query, const Tensor &key, const Tensor &value, const OptionalTensor &mask,
                 double dropout, bool is_causal, std::optional<double> scale, bool enable_gqa) {
  const Attention call{query, key, value, mask, dropout, is_causal, scale, enable_gqa};
  const int device = query.device().index();
  if (!server_is_cpu(device) || !has_cpu_kernel(device) || !is_sound(call))
    return call.whole();
  if (cpu_choice(call) != SDPBackend::flash_attention)
    return call.whole();
  return std::get<0>(
      at::_scaled_dot_product_flash_attention_for_cpu(query, key, value, dropout, is_causal, added_mask(call), scale));
}

// ---------------------------------------------------------------- a CUDA server's choice

bool is_symbolic(const Tensor &tensor) { return tensor.unsafeGetTensorImpl()->has_symbolic_sizes_strides(); }

// The server looks at geometry alone: a tensor of undefined bytes will do, also for one that is only being traced.
Tensor twin_of(const Tensor &tensor) {
  return at::detail::empty_strided_generic(tensor.sizes(), tensor.strides(),
                                           storage_allocator(tensor.device().index()), kKeys, tensor.scalar_type());
}

void put_geometry_of(Bytes &key, const Tensor &tensor) {
  put_geometry(key, tensor.scalar_type(), 0, 0, tensor.sizes(), tensor.strides());
}

std::string key_of(const Attention &call, int device) {
  Bytes key;
  for (const Tensor *tensor : {&call.query, &call.key, &call.value})
    put_geometry_of(key, *tensor);
  if (call.mask)
    put_geometry_of(key, *call.mask);
  key.uint8(static_cast<uint8_t>((call.dropout > 0) | call.is_causal << 1 | call.enable_gqa << 2));
  key.uint8(static_cast<uint8_t>(device));
  return std::string(key.str());
}

int64_t asked(const Attention &call) {
  const CapturePause pause;
  Operation &operation = operation_named("aten::_fused_sdp_choice");
  const c10::IValue mask = call.mask ? c10::IValue(twin_of(*call.mask)) : c10::IValue();
  const Stack arguments{twin_of(call.query), twin_of(call.key), twin_of(call.value), mask, call.dropout, call.is_causal,
                        c10::IValue(), call.enable_gqa};
  Encoding encoding;
  put_arguments(encoding, operation, arguments);
  return requested_results(operation, arguments, encoding).at(0).toInt();
}

int64_t servers_choice(const Attention &call) {
  static auto *mutex = new std::shared_mutex;
  static auto *known = new std::unordered_map<std::string, int64_t>;
  const int device = call.query.device().index();
  const std::string key = key_of(call, device);
  {
    const std::shared_lock<std::shared_mutex> lock(*mutex);
    if (const auto found = known->find(key); found != known->end())
      return found->second;
  }
  const int64_t choice = asked(call);
  const std::unique_lock<std::shared_mutex> lock(*mutex);
  return known->emplace(key, choice).first->second;
}

bool is_enabled(SDPBackend backend) {
  const auto &context = at::globalContext();
  switch (backend) {
    case SDPBackend::math: return context.userEnabledMathSDP();
    case SDPBackend::flash_attention: return context.userEnabledFlashSDP();
    case SDPBackend::efficient_attention: return context.userEnabledMemEfficientSDP();
    case SDPBackend::cudnn_attention: return context.userEnabledCuDNNSDP();
    default: return false;
  }
}

// What flash attention takes the memory-efficient kernel takes too, but for groups of queries and odd head sizes. Its
// random state lies on the host, which a session's storages do not.
bool efficient_takes(const Attention &call) {
  return !call.enable_gqa && call.dropout == 0 && call.query.size(-1) % 8 == 0 && call.value.size(-1) % 8 == 0;
}

// On some devices flash attention has no way back for large heads.
bool flash_takes(const Attention &call) {
  const bool needs_grad = at::GradMode::is_enabled() &&
                          (call.query.requires_grad() || call.key.requires_grad() || call.value.requires_grad());
  return !(needs_grad && call.query.size(-1) > 192);
}

bool takes(SDPBackend backend, const Attention &call) {
  if (backend == SDPBackend::flash_attention)
    return flash_takes(call);
  return backend == SDPBackend::cudnn_attention ? call.dropout == 0
                                                : backend == SDPBackend::math || efficient_takes(call);
}

// The server's first choice, or what of the rest takes the same calls; each only if the program allows it.
SDPBackend chosen_of(SDPBackend first, const Attention &call) {
  std::vector<SDPBackend> order{first};
  if (first == SDPBackend::cudnn_attention && !call.mask)
    order.push_back(SDPBackend::flash_attention);
  if (first == SDPBackend::cudnn_attention || first == SDPBackend::flash_attention)
    order.push_back(SDPBackend::efficient_attention);
  order.push_back(SDPBackend::math);
  for (const SDPBackend one : order)
    if (is_enabled(one) && takes(one, call))
      return one;
  TORCH_CHECK(false, "No available kernel. Aborting execution.");
}

int64_t choice_on_server(const Tensor &query, const Tensor &key, const Tensor &value, const OptionalTensor &mask,
                         double dropout, bool is_causal, std::optional<double> scale, bool enable_gqa) {
  constexpr auto kMath = static_cast<int64_t>(SDPBackend::math);
  const Attention call{query, key, value, mask, dropout, is_causal, scale, enable_gqa};
  static const Operation &operation = operation_named("aten::_fused_sdp_choice");
  const int device = query.device().index();
  if (server_is_cpu(device) || operation.lacking_on >> device & 1 || !is_sound(call))
    return kMath;
  if (is_symbolic(query) || is_symbolic(key) || is_symbolic(value) || (mask && is_symbolic(*mask)))
    return kMath;
  check_process();  // before a mutex that a forked child's parent may have held
  return static_cast<int64_t>(chosen_of(static_cast<SDPBackend>(servers_choice(call)), call));
}

}  // namespace

void register_attention() {
  for (const auto key : {c10::DispatchKey::CUDA, c10::DispatchKey::AutogradCUDA}) {
    auto *aten = new torch::Library(torch::Library::IMPL, "aten", key, __FILE__, __LINE__);
    aten->impl("scaled_dot_product_attention", &attention);
  }
  at::native::_fused_sdp_choice_stub.set_cuda_dispatch_ptr(&choice_on_server);
}

}  // namespace xpool
