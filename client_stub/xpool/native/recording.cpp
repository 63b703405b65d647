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

// As torch's empty_strided, where size and geometry have been worked out before.
at::Tensor result_tensor(const Leaf &leaf, int device, Bytes &to) {
  c10::Allocator *allocator = result_allocator(device);
  auto storage = c10::make_intrusive<c10::StorageImpl>(c10::StorageImpl::use_byte_size_t(), leaf.nbytes,
                                                       allocator->allocate(leaf.nbytes), allocator, true);
  to.uint8(1);
  to.uvarint(storage_id(storage));
  to.append(leaf.geometry);
  at::Tensor tensor = at::detail::make_tensor_base<c10::TensorImpl>(std::move(storage), kKeys,
                                                                    c10::scalarTypeToTypeMeta(leaf.dtype));
  if (leaf.sizes.size() != 1 || leaf.sizes[0] != 0)
    tensor.unsafeGetTensorImpl()->set_sizes_and_strides(leaf.sizes, leaf.strides);
  return tensor;
}

uint64_t leaf_count(Arguments arguments, int argument) {
  return arguments[argument].isTensorList() ? arguments[argument].toTensorVector().size() : 1;
}

uint64_t output_count(const Operation &operation, Arguments arguments, const Plan &plan) {
  uint64_t count = 0;
  for (size_t i = 0; i < operation.return_to_argument.size(); i++) {
    const int argument = operation.return_to_argument[i], number = plan.counts[i];
    count += argument >= 0 ? leaf_count(arguments, argument) : number == kOneTensor ? 1 : number == kNumber ? 0 : number;
  }
  return count;
}

}  // namespace

void predict_results(const Operation &operation, Arguments arguments, const Plan &plan, Encoding &encoding) {
  Bytes &outputs = encoding.wire;
  outputs.uvarint(output_count(operation, arguments, plan));
  const int device = encoding.where();
  size_t leaf = 0, kept = 0;
  const auto next_tensor = [&] {
    const Leaf &one = plan.leaves[leaf++];
    if (one.is_defined)
      return result_tensor(one, device, outputs);
    outputs.uint8(0);
    return at::Tensor();
  };
  for (size_t i = 0; i < operation.return_to_argument.size(); i++) {
    const int argument = operation.return_to_argument[i], number = plan.counts[i];
    if (argument >= 0) {
      for (uint64_t left = leaf_count(arguments, argument); left > 0; left--)
        outputs.uint8(0);
      encoding.results.push_back(arguments[argument]);
    } else if (number == kNumber) {
      encoding.results.push_back(plan.numbers[kept++]);
    } else if (number == kOneTensor) {
      encoding.results.emplace_back(next_tensor());
    } else {
      std::vector<at::Tensor> tensors;
      for (int k = 0; k < number; k++)
        tensors.push_back(next_tensor());
      encoding.results.emplace_back(std::move(tensors));
    }
  }
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
  predict_results(operation, arguments, Plan{{}, std::vector<int>(operation.return_to_argument.size(), kOneTensor)},
                  encoding);
  record(encoding.where(), operation, call_head(), encoding.wire);
}

}  // namespace xpool
