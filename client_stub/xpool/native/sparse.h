// Sparse tensors of the remote device: torch's own classes over parts that are ordinary remote tensors.
#pragma once
#include "dispatch.h"

namespace xpool {

constexpr uint8_t kSparse = 16;  // value tag of SPEC.md section 4

bool is_sparse(const at::Tensor &tensor);
// COO: indices, values. Otherwise: compressed indices, plain indices, values.
std::vector<at::Tensor> sparse_parts(const at::Tensor &tensor);

// All that a sparse tensor is besides its dtype and device.
struct SparseShape {
  c10::Layout layout = c10::kSparse;
  bool is_coalesced = false;
  int64_t dense_dim = 0;
  std::vector<int64_t> sizes;
};
SparseShape sparse_shape(const at::Tensor &tensor);
at::Tensor sparse_over(const SparseShape &shape, const std::vector<at::Tensor> &parts);
// An in-place call has given a sparse tensor other parts.
void reseat_sparse(const at::Tensor &tensor, const SparseShape &shape, const std::vector<at::Tensor> &parts);

void dispatch_sparse(const c10::OperatorHandle &handle, Stack *stack);
// ---- sparse_reduce.cpp
void mm_reduce(const c10::OperatorHandle &handle, Stack *stack);

void register_sparse();

}  // namespace xpool
