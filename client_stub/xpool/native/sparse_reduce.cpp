// Where the extremes of a sparse product lie.
//
// torch's kernel of sparse.mm(reduce="amax") notes it only where a gradient is wanted, and autograd runs here and not
// on the server. So it is worked out here, in common operations, for whoever wants a gradient.
#include "sparse.h"

#include <ATen/ExpandUtils.h>
#include <ATen/OpMathType.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/repeat_interleave.h>
#include <ATen/ops/where.h>
#include <c10/core/GradMode.h>

namespace xpool {

using at::Tensor;

// For each row of the product and each column the item of the sparse factor that gave the extreme, the first of
// several; their count where the row has none. int64 [rows, columns], as the kernel notes it.
static Tensor places_of_extremes(const Tensor &sparse, const Tensor &dense, const std::string &reduce) {
  const auto parts = sparse_parts(sparse);
  const int64_t lines = sparse.size(0), columns = dense.size(1), items = parts[1].numel();
  const auto longs = parts[0].options().dtype(c10::kLong);
  const Tensor rows = at::repeat_interleave(at::arange(lines, longs), parts[0].diff().to(c10::kLong), std::nullopt, items)
                          .unsqueeze(1)
                          .expand({items, columns});
  // In the precision that the kernel multiplies in.
  const auto dtype = at::toOpMathType(dense.scalar_type());
  const Tensor factors = parts[2].to(dtype).unsqueeze(1);
  const Tensor products = factors * dense.index_select(0, parts[1].to(c10::kLong)).to(dtype);
  const Tensor extremes = at::full({lines, columns}, 0, products.options())
                              .scatter_reduce(0, rows, products, reduce, /*include_self=*/false)
                              .gather(0, rows);
  const Tensor is_extreme = products.eq(extremes).logical_or(products.ne(products));
  const Tensor candidates = at::where(is_extreme, at::arange(items, longs).unsqueeze(1), items);
  return at::full({lines, columns}, items, longs).scatter_reduce(0, rows, candidates, "amin");
}

void mm_reduce(const c10::OperatorHandle &handle, Stack *stack) {
  const Tensor sparse = torch::jit::peek(*stack, 0, 3).toTensor(), dense = torch::jit::peek(*stack, 1, 3).toTensor();
  const std::string reduce = torch::jit::peek(*stack, 2, 3).toStringRef();
  dispatch_sparse(handle, stack);
  const bool has_places = reduce == "amax" || reduce == "amin";
  if (has_places && c10::GradMode::is_enabled() && (sparse.requires_grad() || dense.requires_grad()))
    torch::jit::peek(*stack, 1, 2) = places_of_extremes(sparse.detach(), dense.detach(), reduce);
}

}  // namespace xpool
