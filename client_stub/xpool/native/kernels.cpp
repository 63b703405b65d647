// Kernels of the remote device that are more than "send it": creation, views, storages; and what is registered how.
#include "capture.h"
#include "cuda_build.h"
#include "kernels.h"

#include <ATen/EmptyTensor.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_native.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <unordered_set>

#include "sparse.h"

namespace xpool {
namespace {

using at::Tensor;
using c10::IntArrayRef;
using c10::SymIntArrayRef;

// ---------------------------------------------------------------- creation

c10::Allocator *allocator_now(std::optional<c10::Device> device) {
  const int index = index_of(device);
  return in_structured() ? result_allocator(index) : storage_allocator(index);
}

Tensor noted(Tensor tensor) {
  if (in_structured())
    note_unannounced(tensor.storage());
  return tensor;
}

void check_options(std::optional<c10::Layout> layout, std::optional<bool> pin_memory) {
  TORCH_CHECK(!pin_memory.value_or(false), "Only dense CPU tensors can be pinned");
  TORCH_CHECK_NOT_IMPLEMENTED(layout.value_or(c10::kStrided) == c10::kStrided, "xpool: ", *layout,
                              " tensors are not supported on the remote device");
}

Tensor empty(SymIntArrayRef size, std::optional<c10::ScalarType> dtype, std::optional<c10::Layout> layout,
             std::optional<c10::Device> device, std::optional<bool> pin_memory,
             std::optional<c10::MemoryFormat> format) {
  check_options(layout, pin_memory);
  return noted(at::detail::empty_generic(C10_AS_INTARRAYREF_SLOW(size), allocator_now(device), kKeys,
                                         c10::dtype_or_default(dtype), format));
}

Tensor empty_strided(SymIntArrayRef size, SymIntArrayRef stride, std::optional<c10::ScalarType> dtype,
                     std::optional<c10::Layout> layout, std::optional<c10::Device> device,
                     std::optional<bool> pin_memory) {
  check_options(layout, pin_memory);
  return noted(at::detail::empty_strided_generic(C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride),
                                                 allocator_now(device), kKeys, c10::dtype_or_default(dtype)));
}

// A ZeroTensor has no storage to name: real zeros instead.
Tensor efficient_zeros(SymIntArrayRef size, std::optional<c10::ScalarType> dtype, std::optional<c10::Layout> layout,
                       std::optional<c10::Device> device, std::optional<bool>) {
  return at::zeros(C10_AS_INTARRAYREF_SLOW(size),
                   at::TensorOptions().dtype(dtype).layout(layout).device(remote_device(index_of(device))));
}

// ---------------------------------------------------------------- views: no message

Tensor as_strided(const Tensor &self, SymIntArrayRef size, SymIntArrayRef stride, std::optional<c10::SymInt> offset) {
  return at::native::as_strided_tensorimpl(
      self, C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride),
      offset ? std::optional<int64_t>(offset->expect_int()) : std::nullopt);
}
Tensor view(const Tensor &self, SymIntArrayRef size) { return at::native::view(self, C10_AS_INTARRAYREF_SLOW(size)); }
Tensor reshape_alias(const Tensor &self, SymIntArrayRef size, SymIntArrayRef stride) {
  return at::native::_reshape_alias(self, C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride));
}
Tensor alias(const Tensor &self) { return at::native::alias(self); }
Tensor unfold(const Tensor &self, int64_t dimension, int64_t size, int64_t step) {
  return at::native::unfold(self, dimension, size, step);
}

// ---------------------------------------------------------------- storages under a tensor

// Gives a storage room for `needed` bytes and keeps those it has; every view of it stays valid.
void grow(const c10::Storage &storage, uint64_t needed) {
  if (needed > storage.nbytes())
    resize_storage(storage, needed);
}

std::vector<int64_t> strides_for(IntArrayRef size, c10::MemoryFormat format) {
  return at::empty(size, at::TensorOptions().device(c10::kMeta), format).strides().vec();
}

void reshape_metadata(const Tensor &self, IntArrayRef size, IntArrayRef stride, int64_t offset) {
  auto *impl = self.unsafeGetTensorImpl();
  impl->set_storage_offset(offset);
  impl->set_sizes_and_strides(size, stride);
}

const Tensor &resize_(const Tensor &self, SymIntArrayRef symbolic, std::optional<c10::MemoryFormat> format) {
  const IntArrayRef size = C10_AS_INTARRAYREF_SLOW(symbolic);
  const bool keeps = !format || *format == c10::MemoryFormat::Preserve;
  if (keeps && self.sizes() == size)
    return self;
  const auto strides = strides_for(size, keeps ? c10::MemoryFormat::Contiguous : *format);
  grow(self.storage(), (self.storage_offset() + span_items(size, strides)) * self.element_size());
  reshape_metadata(self, size, strides, self.storage_offset());
  return self;
}

void seat(Tensor &self, const c10::Storage &source, IntArrayRef size, IntArrayRef stride, int64_t offset) {
  // A tensor that has no storage yet takes its device from the first that it is given.
  TORCH_CHECK(source.device().type() == kRemote && (source.device() == self.device() || !self.numel()),
              "Attempted to set the storage of a tensor on device \"", self.device(),
              "\" to a storage on different device \"", source.device(), "\"");
  TORCH_CHECK(offset >= 0, "Tensor: invalid storage offset ", offset);
  grow(source, (offset + span_items(size, stride)) * self.element_size());
  self.unsafeGetTensorImpl()->set_storage_keep_dtype(source);
  reshape_metadata(self, size, stride, offset);
}

Tensor &set_storage_offset(Tensor &self, c10::Storage source, c10::SymInt offset, SymIntArrayRef size,
                           SymIntArrayRef stride) {
  const IntArrayRef sizes = C10_AS_INTARRAYREF_SLOW(size);
  const auto strides =
      stride.empty() ? strides_for(sizes, c10::MemoryFormat::Contiguous) : C10_AS_INTARRAYREF_SLOW(stride).vec();
  seat(self, source, sizes, strides, offset.expect_int());
  return self;
}

Tensor &set_storage(Tensor &self, c10::Storage source) {
  const int64_t count = source.nbytes() / self.element_size();
  seat(self, source, {count}, {1}, 0);
  return self;
}

Tensor &set_tensor(Tensor &self, const Tensor &source) {
  if (!self.is_same(source))
    seat(self, source.storage(), source.sizes().vec(), source.strides().vec(), source.storage_offset());
  return self;
}

Tensor &set_empty(Tensor &self) {
  c10::Allocator *allocator = storage_allocator(self.device().index());
  c10::Storage none(c10::Storage::use_byte_size_t(), 0, allocator->allocate(0), allocator, true);
  seat(self, none, {0}, {1}, 0);
  return self;
}

bool is_set_to(const Tensor &self, const Tensor &other) {
  return self.storage().unsafeGetStorageImpl() == other.storage().unsafeGetStorageImpl() &&
         self.storage_offset() == other.storage_offset() && self.sizes() == other.sizes() &&
         self.strides() == other.strides();
}

void record_stream(Tensor &, c10::Stream) {}
bool is_pinned(const Tensor &, std::optional<c10::Device>) { return false; }

// ---------------------------------------------------------------- registration

// A composite kernel would beat the boxed fallback and take these apart, or take a wrong path.
// Not _to_copy: it crosses devices.
const std::unordered_set<std::string> kWhole = {
    "aten::convolution_backward", "aten::clone",
    "aten::native_dropout",       "aten::native_dropout_backward",     "aten::native_layer_norm",
    "aten::native_layer_norm_backward", "aten::native_group_norm",     "aten::native_group_norm_backward",
    "aten::fill_.Scalar",         "aten::fill_.Tensor",                "aten::zero_",
    "aten::equal",                "aten::uniform_",                    "aten::normal_",
    "aten::bernoulli_.float",     "aten::random_",                     "aten::random_.to",
    "aten::random_.from",         "aten::mode.values",                 "aten::_stack",
    "aten::_stack.out",           "aten::addr",                        "aten::addr.out",
    "aten::conj_physical_",       "aten::linalg__powsum",              "aten::mish_backward",
    "aten::silu_backward",
};

template <Boxed *kernel> void boxed(torch::Library &library, const std::string &name) {
  library.impl(name.c_str(), torch::CppFunction::makeFromBoxedFunction<kernel>());
}

const std::unordered_set<std::string> kOwn = {"aten::_softmax", "aten::_log_softmax", "aten::_softmax_backward_data",
                                              "aten::_log_softmax_backward_data"};

void register_by_schema(torch::Library &aten) {
  auto &dispatcher = c10::Dispatcher::singleton();
  for (const auto &name : dispatcher.getAllOpNames()) {
    if (name.name.rfind("aten::", 0) != 0)
      continue;
    const std::string full = name.name + (name.overload_name.empty() ? "" : "." + name.overload_name);
    const auto handle = dispatcher.findSchema(name);
    if (!handle || kOwn.count(full) || handle->hasKernelForDispatchKey(c10::DispatchKey::CUDA))
      continue;
    const std::string bare = full.substr(6);
    if (Boxed *kernel = kernel_by_schema(*handle))
      kernel == &dispatch ? boxed<&dispatch>(aten, bare) : boxed<&dispatch_structured>(aten, bare);
  }
}

}  // namespace

Boxed *kernel_by_schema(const c10::OperatorHandle &handle) {
  constexpr auto kComposite = c10::DispatchKey::CompositeExplicitAutogradNonFunctional;
  const auto &name = handle.operator_name();
  const std::string full = name.name + (name.overload_name.empty() ? "" : "." + name.overload_name);
  if (kWhole.count(full) || name.name.rfind("aten::_foreach_", 0) == 0)
    return &dispatch;
  if (handle.hasKernelForDispatchKey(kComposite) && !operation_of(handle).is_view)
    return &dispatch_structured;
  return nullptr;
}

void register_kernels() {
  static auto *fallback = new torch::Library(torch::Library::IMPL, "_", c10::DispatchKey::CUDA, __FILE__, __LINE__);
  static auto *aten = new torch::Library(torch::Library::IMPL, "aten", c10::DispatchKey::CUDA, __FILE__, __LINE__);
  fallback->fallback(torch::CppFunction::makeFromBoxedFunction<&dispatch>());
  register_graphs();
  register_regions();
  c10::SetAllocator(kRemote, current_allocator(), 10);
  aten->impl("empty.memory_format", &empty);
  aten->impl("empty_strided", &empty_strided);
  aten->impl("_efficientzerotensor", &efficient_zeros);
  aten->impl("as_strided", &as_strided);
  aten->impl("view", &view);
  aten->impl("_reshape_alias", &reshape_alias);
  aten->impl("alias", &alias);
  aten->impl("unfold", &unfold);
  aten->impl("resize_", &resize_);
  aten->impl("set_.source_Storage_storage_offset", &set_storage_offset);
  aten->impl("set_.source_Storage", &set_storage);
  aten->impl("set_.source_Tensor", &set_tensor);
  aten->impl("set_", &set_empty);
  aten->impl("is_set_to", &is_set_to);
  aten->impl("copy_", &copy_);
  aten->impl("_copy_from", &copy_from);
  aten->impl("_copy_from_and_resize", &copy_from_and_resize);
  aten->impl("_local_scalar_dense", &local_scalar);
  aten->impl("record_stream", &record_stream);
  aten->impl("is_pinned", &is_pinned);
  boxed<&lstm_cell>(*aten, "_thnn_fused_lstm_cell");
  boxed<&lstm_cell_backward>(*aten, "_thnn_fused_lstm_cell_backward_impl");
  boxed<&gru_cell>(*aten, "_thnn_fused_gru_cell");
  boxed<&gru_cell_backward>(*aten, "_thnn_fused_gru_cell_backward");
  boxed<&histc>(*aten, "histc");
  boxed<&convolution>(*aten, "convolution");
  boxed<&recorded_convolution>(*aten, "_convolution");
  boxed<&softmax>(*aten, "_softmax");
  boxed<&softmax>(*aten, "_log_softmax");
  boxed<&softmax_backward>(*aten, "_softmax_backward_data");
  boxed<&softmax_backward>(*aten, "_log_softmax_backward_data");
  boxed<&use_cudnn_ctc>(*aten, "_use_cudnn_ctc_loss");
  boxed<&use_cudnn_ctc>(*aten, "_use_cudnn_ctc_loss.Tensor");
  boxed<&use_cudnn_ctc>(*aten, "_use_miopen_ctc_loss");
  boxed<&use_cudnn_ctc>(*aten, "_use_miopen_ctc_loss.Tensor");
  register_attention();
  register_sparse();
  register_by_schema(*aten);
}

}  // namespace xpool
