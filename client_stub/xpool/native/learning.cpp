// What a server must tell, asked while a graph is captured: of tensors of the same geometry that hold zeros.
#include "capture.h"
#include "kernels.h"
#include "recording.h"

namespace xpool {

namespace {

at::Tensor stand_in(const at::Tensor &tensor) {
  if (!is_remote(tensor))
    return tensor;
  const int device = tensor.device().index();
  const int64_t nbytes = span_items(tensor.sizes(), tensor.strides()) * tensor.element_size();
  const c10::Storage storage(c10::Storage::use_byte_size_t(), nbytes, storage_allocator(device)->allocate(nbytes),
                             storage_allocator(device), true);
  call_writing(operation_named("aten::zero_"), {tensor_over(storage, c10::kByte, {nbytes}, {1}, 0)});
  at::Tensor twin = tensor_over(storage, tensor.scalar_type(), tensor.sizes(), tensor.strides(), 0);
  twin._set_conj(tensor.is_conj());
  twin._set_neg(tensor.is_neg());
  return twin;
}

c10::IValue stand_in(const c10::IValue &value) {
  if (value.isTensor())
    return stand_in(value.toTensor());
  if (value.isTensorList()) {
    std::vector<at::Tensor> twins;
    for (const auto &tensor : value.toTensorVector())
      twins.push_back(stand_in(tensor));
    return twins;
  }
  if (value.isOptionalTensorList()) {
    c10::List<std::optional<at::Tensor>> twins;
    for (const std::optional<at::Tensor> &tensor : value.toOptionalTensorVector())
      twins.push_back(tensor ? std::optional<at::Tensor>(stand_in(*tensor)) : std::nullopt);
    return twins;
  }
  return value;
}

}  // namespace

std::shared_ptr<const Plan> learn_apart(Operation &operation, Arguments arguments) {
  CapturePause pause;
  Stack twins;
  for (const auto &argument : arguments)
    twins.push_back(stand_in(argument));
  Encoding encoding;
  put_arguments(encoding, operation, twins);
  const Stack results = requested_results(operation, twins, encoding);
  auto plan = std::make_shared<Plan>();
  return plan_from(operation, results, *plan) ? plan : nullptr;
}

}  // namespace xpool
