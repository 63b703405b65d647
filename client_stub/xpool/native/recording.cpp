// Calls as records of the log, and the tensors that stand for their results.
#include "recording.h"

#include <ATen/EmptyTensor.h>

#include "capture.h"

namespace xpool {

void record(int device, Operation &operation, const Bytes &head, const Bytes &tail) {
  leave_room(device);
  if (Capture *capture = capturing(device))
    return capture->append_call(operation.wire, head, tail);
  const uint64_t number = Log::of(device).append_call(operation.wire, head, tail);
  if (callbacks.trace)
    callbacks.trace(device, number);
}

void put_output(Bytes &to, const at::Tensor &tensor) {
  if (!tensor.defined()) {
    to.uint8(0);
    return;
  }
  to.uint8(1);
  to.uvarint(storage_id(tensor.storage()));
  put_geometry(to, tensor.scalar_type(), 0, 0, tensor.sizes(), tensor.strides());
}

const Bytes &call_head() {
  static const Bytes head = [] {
    Bytes bytes;
    bytes.uint8(kCall);
    return bytes;
  }();
  return head;
}

// After the call is recorded: the server knows its results.
void mark_results(const c10::IValue *results, size_t count) {
  for (size_t i = 0; i < count; i++) {
    if (results[i].isTensor() && is_remote(results[i].toTensor()))
      mark_known(results[i].toTensor().storage());
    else if (results[i].isTensorList())
      for (const auto &tensor : results[i].toTensorVector())
        if (is_remote(tensor))
          mark_known(tensor.storage());
  }
}

namespace {

at::Tensor result_tensor(const Leaf &leaf, int device) {
  return at::detail::empty_strided_generic(leaf.sizes, leaf.strides, result_allocator(device), kKeys, leaf.dtype);
}

uint64_t leaf_count(Arguments arguments, int argument) {
  return arguments[argument].isTensorList() ? arguments[argument].toTensorVector().size() : 1;
}

}  // namespace

// Results of a call whose new tensors the plan describes, encoded as its outputs.
Stack predicted_results(const Operation &operation, Arguments arguments, const Plan &plan, Encoding &encoding) {
  Stack results;
  Bytes outputs;
  uint64_t count = 0;
  size_t leaf = 0, kept = 0;
  for (size_t i = 0; i < operation.return_to_argument.size(); i++) {
    const int argument = operation.return_to_argument[i];
    if (argument >= 0) {
      const uint64_t leaves = leaf_count(arguments, argument);
      for (uint64_t k = 0; k < leaves; k++)
        outputs.uint8(0);
      count += leaves;
      results.push_back(arguments[argument]);
      continue;
    }
    const int number = plan.counts[i];
    if (number == kNumber) {
      results.push_back(plan.numbers[kept++]);
      continue;
    }
    std::vector<at::Tensor> tensors;
    for (int k = 0; k < (number < 0 ? 1 : number); k++, leaf++) {
      const Leaf &one = plan.leaves[leaf];
      tensors.push_back(one.is_defined ? result_tensor(one, encoding.where()) : at::Tensor());
      put_output(outputs, tensors.back());
      count++;
    }
    if (number < 0)
      results.emplace_back(tensors[0]);
    else
      results.emplace_back(std::move(tensors));
  }
  encoding.wire.uvarint(count);
  encoding.wire.append(outputs);
  return results;
}

at::Tensor tensor_over(const c10::Storage &storage, c10::ScalarType dtype, c10::IntArrayRef sizes,
                       c10::IntArrayRef strides, int64_t offset) {
  // Not the constructor for views: that one leaves the autograd keys to its caller.
  at::Tensor tensor = at::detail::make_tensor<c10::TensorImpl>(c10::Storage(storage), kKeys,
                                                               c10::scalarTypeToTypeMeta(dtype));
  auto *impl = tensor.unsafeGetTensorImpl();
  impl->set_storage_offset(offset);
  impl->set_sizes_and_strides(sizes, strides);
  return tensor;
}

void call_writing(Operation &operation, const std::vector<c10::IValue> &arguments) {
  Encoding encoding;
  put_arguments(encoding, operation, arguments);
  predicted_results(operation, arguments, Plan{{}, std::vector<int>(operation.return_to_argument.size(), -1)},
                    encoding);
  record(encoding.where(), operation, call_head(), encoding.wire);
}

}  // namespace xpool
