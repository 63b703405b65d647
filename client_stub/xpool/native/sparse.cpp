// Operations on sparse tensors. What only looks at or changes the parts is torch's own code, run here: it is the same
// for every device. Everything else is one call, with the parts as its tensors.
#include "sparse.h"

#include <ATen/SparseCsrTensorImpl.h>
#include <ATen/SparseTensorImpl.h>
#include <ATen/ops/_sparse_compressed_tensor_unsafe.h>
#include <ATen/ops/_sparse_coo_tensor_with_dims_and_tensors.h>
#include <ATen/ops/_validate_compressed_sparse_indices.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/repeat_interleave.h>
#include <ATen/ops/searchsorted.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <unordered_set>

#include "recording.h"

namespace xpool {

using at::Tensor;
using Key = c10::DispatchKey;

bool is_sparse(const Tensor &tensor) {
  const c10::Layout layout = tensor.layout();
  return layout == c10::kSparse || layout == c10::kSparseCsr || layout == c10::kSparseCsc ||
         layout == c10::kSparseBsr || layout == c10::kSparseBsc;
}

static at::SparseTensorImpl &coo(const Tensor &tensor) {
  return *static_cast<at::SparseTensorImpl *>(tensor.unsafeGetTensorImpl());
}

static at::SparseCsrTensorImpl &compressed(const Tensor &tensor) {
  return *static_cast<at::SparseCsrTensorImpl *>(tensor.unsafeGetTensorImpl());
}

std::vector<Tensor> sparse_parts(const Tensor &tensor) {
  if (tensor.layout() == c10::kSparse)
    return {coo(tensor).indices(), coo(tensor).values()};
  auto &impl = compressed(tensor);
  return {impl.compressed_indices(), impl.plain_indices(), impl.values()};
}

SparseShape sparse_shape(const Tensor &tensor) {
  const bool is_coo = tensor.layout() == c10::kSparse;
  return {tensor.layout(), is_coo && coo(tensor).coalesced(),
          is_coo ? coo(tensor).dense_dim() : compressed(tensor).dense_dim(), tensor.sizes().vec()};
}

Tensor sparse_over(const SparseShape &shape, const std::vector<Tensor> &parts) {
  const auto options = parts.back().options().layout(shape.layout);
  if (shape.layout != c10::kSparse)
    return at::_sparse_compressed_tensor_unsafe(parts[0], parts[1], parts[2], shape.sizes, options);
  const int64_t sparse_dim = static_cast<int64_t>(shape.sizes.size()) - shape.dense_dim;
  return at::_sparse_coo_tensor_with_dims_and_tensors(sparse_dim, shape.dense_dim, shape.sizes, parts[0], parts[1],
                                                      options, shape.is_coalesced);
}

void reseat_sparse(const Tensor &tensor, const SparseShape &shape, const std::vector<Tensor> &parts) {
  if (shape.layout != c10::kSparse) {
    compressed(tensor).set_member_tensors(parts[0], parts[1], parts[2], shape.sizes);
    return;
  }
  auto &impl = coo(tensor);
  impl.raw_resize_(static_cast<int64_t>(shape.sizes.size()) - shape.dense_dim, shape.dense_dim, shape.sizes);
  impl.set_indices_and_values_unsafe(parts[0], parts[1]);
  impl.set_coalesced(shape.is_coalesced);
}

namespace {

bool writes_sparse(const Operation &operation, Arguments arguments) {
  for (const int i : operation.written)
    if (arguments[i].isTensor() && arguments[i].toTensor().defined() && is_sparse(arguments[i].toTensor()))
      return true;
  return false;
}

}  // namespace

// Results that are strided have sizes that the arguments' sizes decide, the number of items among them: they are
// learned from the first answer. Sparse ones are asked for each time.
void dispatch_sparse(const c10::OperatorHandle &handle, Stack *stack) {
  check_process();
  StructuredPause pause;
  Operation &operation = operation_of(handle);
  const size_t count = operation.schema.arguments().size();
  const Stack arguments(stack->end() - count, stack->end());
  Encoding encoding;
  const void *identity = &operation;
  encoding.key.raw(&identity, sizeof identity);
  put_arguments(encoding, operation, arguments);
  put_surroundings(encoding);
  const bool is_sparse_written = writes_sparse(operation, arguments);
  const bool must_ask =
      is_sparse_written || operation.has_out || operation.returns_number || operation.is_dynamic;
  std::shared_ptr<const Plan> plan;
  if (operation.only_writes && !operation.has_out && !is_sparse_written)
    plan = std::make_shared<Plan>(Plan{{}, std::vector<int>(operation.return_to_argument.size(), -1)});
  else if (!must_ask)
    plan = find_plan(encoding.key.str());
  Stack results;
  if (plan) {
    predict_results(operation, arguments, *plan, encoding);
    results = std::move(encoding.results);
    record(encoding.where(), operation, call_head(), encoding.wire);
    mark_results(results.data(), results.size());
  } else {
    results = requested_results(operation, arguments, encoding);
    auto learned = std::make_shared<Plan>();
    if (!must_ask && plan_from(operation, results, *learned))
      remember_plan(encoding.key.str(), learned);
  }
  torch::jit::drop(*stack, count);
  for (auto &result : results)
    stack->push_back(std::move(result));
}

namespace {

// torch's own kernel, which is registered for the CPU and asks nothing but other operations of its tensors.
template <Key key> void local(const c10::OperatorHandle &handle, Stack *stack) {
  check_process();
  StructuredPause pause;
  handle.callBoxedForDispatchKey(key, *stack);
}

const std::unordered_set<std::string> kLocalCoo = {
    "_coalesced_", "_dimI", "_dimV", "_indices", "_nnz", "_sparse_coo_tensor_with_dims",
    "_sparse_coo_tensor_with_dims_and_tensors", "_values", "clone", "copy_", "copy_sparse_to_sparse_", "dense_dim",
    "empty.memory_format", "empty_like", "indices", "is_coalesced", "is_pinned", "permute", "resize_as_sparse_",
    "sparse_dim", "sparse_resize_", "sparse_resize_and_clear_", "unsqueeze", "values", "view_as_complex",
    "view_as_real", "zero_", "zeros.out",
};

const std::unordered_set<std::string> kLocalCompressed = {
    "_nnz", "ccol_indices", "clone", "col_indices", "copy_", "crow_indices", "dense_dim", "empty.memory_format",
    "empty_like", "fill_.Scalar", "is_pinned", "mul.Scalar", "mul_.Scalar", "normal_", "resize_", "resize_as_sparse_",
    "row_indices", "sparse_dim", "values", "zero_",
};

template <Key host> void register_layout(Key key, const std::unordered_set<std::string> &is_local) {
  auto *library = new torch::Library(torch::Library::IMPL, "aten", key, __FILE__, __LINE__);
  auto &dispatcher = c10::Dispatcher::singleton();
  for (const auto &name : dispatcher.getAllOpNames()) {
    const auto handle = name.name.rfind("aten::", 0) == 0 ? dispatcher.findSchema(name) : std::nullopt;
    // What a CUDA build has for the key gives way too: torch's CPU build is what the server's CPU is like.
    if (!handle || !handle->hasKernelForDispatchKey(host))
      continue;
    const std::string bare =
        name.name.substr(6) + (name.overload_name.empty() ? "" : "." + name.overload_name);
    if (bare == "_sparse_mm_reduce_impl")
      continue;  // registered by hand
    if (is_local.count(bare))
      library->impl(bare.c_str(), torch::CppFunction::makeFromBoxedFunction<&local<host>>());
    else
      library->impl(bare.c_str(), torch::CppFunction::makeFromBoxedFunction<&dispatch_sparse>());
  }
}

// ---------------------------------------------------------------- indices of one layout from those of another
//
// The server does not take these as they are: its kernels trust the indices.

Tensor coo_to_csr(const Tensor &rows, int64_t size, bool out_int32) {
  const auto options = rows.options();
  if (rows.numel() == 0)
    return at::zeros({size + 1}, options.dtype(out_int32 ? c10::kInt : c10::kLong));
  return at::searchsorted(rows.contiguous(), at::arange(size + 1, options), out_int32);
}

Tensor csr_to_coo(const Tensor &crow, const Tensor &col, bool out_int32, bool transpose) {
  TORCH_CHECK_NOT_IMPLEMENTED(crow.dim() == 1, "xpool: _convert_indices_from_csr_to_coo takes no batches here");
  const auto lines = at::arange(crow.numel() - 1, crow.options());
  const Tensor rows = at::repeat_interleave(lines, crow.diff().to(c10::kLong), std::nullopt, col.numel());
  const auto pair = transpose ? std::vector<Tensor>{col, rows.to(col.scalar_type())}
                              : std::vector<Tensor>{rows.to(col.scalar_type()), col};
  return at::stack(pair).to(out_int32 ? c10::kInt : c10::kLong);
}

void validate_compressed(bool is_crow, const Tensor &compressed, const Tensor &plain, int64_t lines, int64_t line_items,
                         int64_t count) {
  at::_validate_compressed_sparse_indices(is_crow, compressed.cpu(), plain.cpu(), lines, line_items, count);
}

// ---------------------------------------------------------------- what a server has no part in

void refuse(const c10::OperatorHandle &handle, Stack *) {
  TORCH_CHECK_NOT_IMPLEMENTED(false, "xpool: quantized tensors, and nested ones of the strided layout, are not supported "
                                     "on the remote device (", handle.schema().name(), ")");
}

}  // namespace

void register_sparse() {
  register_layout<Key::SparseCPU>(Key::SparseCUDA, kLocalCoo);
  register_layout<Key::SparseCsrCPU>(Key::SparseCsrCUDA, kLocalCompressed);
  static auto *aten = new torch::Library(torch::Library::IMPL, "aten", Key::CUDA, __FILE__, __LINE__);
  static auto *csr = new torch::Library(torch::Library::IMPL, "aten", Key::SparseCsrCUDA, __FILE__, __LINE__);
  csr->impl("_sparse_mm_reduce_impl", torch::CppFunction::makeFromBoxedFunction<&mm_reduce>());
  aten->impl("_convert_indices_from_coo_to_csr", &coo_to_csr);
  aten->impl("_convert_indices_from_csr_to_coo", &csr_to_coo);
  aten->impl("_validate_compressed_sparse_indices", &validate_compressed);
  for (const auto key : {Key::QuantizedCUDA, Key::NestedTensorCUDA}) {
    auto *fallback = new torch::Library(torch::Library::IMPL, "_", key, __FILE__, __LINE__);
    fallback->fallback(torch::CppFunction::makeFromBoxedFunction<&refuse>());
  }
}

}  // namespace xpool
