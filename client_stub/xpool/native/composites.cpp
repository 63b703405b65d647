// What a composite chooses by device type alone.
//
// On a "cuda" tensor torch picks kernels that only CUDA has. A server whose device lacks them gets the same mathematics
// in other words.
#include "kernels.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/histc.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/jit/frontend/tracer.h>

namespace xpool {

using at::Tensor;

static bool is_lacking(const c10::OperatorHandle &handle, const Stack &stack) {
  const Operation &operation = operation_of(handle);
  return operation.lacking_on >> device_of_call(operation, stack) & 1;
}

static bool wants_plain(const c10::OperatorHandle &handle, const Stack &stack) {
  const Operation &operation = operation_of(handle);
  return operation.plain_on >> device_of_call(operation, stack) & 1;
}

static Tensor joined(const std::vector<Tensor> &gates) { return at::cat(gates, 1); }

void lstm_cell(const c10::OperatorHandle &handle, Stack *stack) {
  if (!is_lacking(handle, *stack))
    return dispatch(handle, stack);
  const auto arguments = torch::jit::pop(*stack, 5);
  Tensor gates = arguments[0].toTensor() + arguments[1].toTensor();
  for (const int bias : {3, 4})
    if (arguments[bias].isTensor() && arguments[bias].toTensor().defined())
      gates = gates + arguments[bias].toTensor();
  const auto parts = gates.chunk(4, 1);
  const Tensor in = parts[0].sigmoid(), forget = parts[1].sigmoid(), cell = parts[2].tanh(), out = parts[3].sigmoid();
  const Tensor cy = forget * arguments[2].toTensor() + in * cell;
  torch::jit::push(*stack, out * cy.tanh(), cy, joined({in, forget, cell, out}));
}

static Tensor or_zero(const c10::IValue &gradient, const Tensor &like) {
  return gradient.isTensor() && gradient.toTensor().defined() ? gradient.toTensor() : at::zeros_like(like);
}

void lstm_cell_backward(const c10::OperatorHandle &handle, Stack *stack) {
  if (!is_lacking(handle, *stack))
    return dispatch(handle, stack);
  const auto arguments = torch::jit::pop(*stack, 6);
  const Tensor cx = arguments[2].toTensor(), cy = arguments[3].toTensor();
  const auto parts = arguments[4].toTensor().chunk(4, 1);
  const Tensor in = parts[0], forget = parts[1], cell = parts[2], out = parts[3];
  const Tensor grad_hy = or_zero(arguments[0], cx), squashed = cy.tanh();
  const Tensor grad_cy = grad_hy * out * (1 - squashed * squashed) + or_zero(arguments[1], cx);
  const Tensor gates = joined({grad_cy * cell * in * (1 - in), grad_cy * cx * forget * (1 - forget),
                               grad_cy * in * (1 - cell * cell), grad_hy * squashed * out * (1 - out)});
  torch::jit::push(*stack, gates, grad_cy * forget, arguments[5].toBool() ? gates.sum(0) : Tensor());
}

void gru_cell(const c10::OperatorHandle &handle, Stack *stack) {
  if (!is_lacking(handle, *stack))
    return dispatch(handle, stack);
  const auto arguments = torch::jit::pop(*stack, 5);
  Tensor input = arguments[0].toTensor(), hidden = arguments[1].toTensor();
  const Tensor hx = arguments[2].toTensor();
  if (arguments[3].isTensor() && arguments[3].toTensor().defined())
    input = input + arguments[3].toTensor();
  if (arguments[4].isTensor() && arguments[4].toTensor().defined())
    hidden = hidden + arguments[4].toTensor();
  const auto i = input.chunk(3, 1), h = hidden.chunk(3, 1);
  const Tensor reset = (i[0] + h[0]).sigmoid(), update = (i[1] + h[1]).sigmoid();
  const Tensor fresh = (i[2] + reset * h[2]).tanh();
  torch::jit::push(*stack, fresh + update * (hx - fresh), joined({reset, update, fresh, hx, h[2]}));
}

void gru_cell_backward(const c10::OperatorHandle &handle, Stack *stack) {
  if (!is_lacking(handle, *stack))
    return dispatch(handle, stack);
  const auto arguments = torch::jit::pop(*stack, 3);
  const Tensor grad = arguments[0].toTensor();
  const auto parts = arguments[1].toTensor().chunk(5, 1);
  const Tensor reset = parts[0], update = parts[1], fresh = parts[2], hx = parts[3], hn = parts[4];
  const Tensor grad_update = grad * (hx - fresh) * update * (1 - update);
  const Tensor grad_in = grad * (1 - update) * (1 - fresh * fresh);
  const Tensor grad_reset = grad_in * hn * reset * (1 - reset);
  const Tensor input = joined({grad_reset, grad_update, grad_in});
  const Tensor hidden = joined({grad_reset, grad_update, grad_in * reset});
  const bool has_bias = arguments[2].toBool();
  torch::jit::push(*stack, input, hidden, grad * update, has_bias ? input.sum(0) : Tensor(),
                   has_bias ? hidden.sum(0) : Tensor());
}

// softmax(x, dtype=float32) of a half tensor: CUDA converts inside the kernel, a CPU kernel refuses.
void softmax(const c10::OperatorHandle &handle, Stack *stack) {
  if (wants_plain(handle, *stack) && torch::jit::peek(*stack, 2, 3).toBool()) {
    auto arguments = torch::jit::pop(*stack, 3);
    torch::jit::push(*stack, arguments[0].toTensor().to(c10::kFloat), arguments[1], false);
  }
  dispatch_structured(handle, stack);
}

void softmax_backward(const c10::OperatorHandle &handle, Stack *stack) {
  const auto wanted = static_cast<c10::ScalarType>(torch::jit::peek(*stack, 3, 4).toInt());
  const auto given = torch::jit::peek(*stack, 0, 4).toTensor().scalar_type();
  const bool converts = wants_plain(handle, *stack) && wanted != given;
  if (converts)
    torch::jit::peek(*stack, 3, 4) = static_cast<int64_t>(given);
  dispatch_structured(handle, stack);
  if (converts)
    torch::jit::push(*stack, torch::jit::pop(*stack).toTensor().to(wanted));
}

// CUDA counts integers; a CPU kernel refuses them.
void histc(const c10::OperatorHandle &handle, Stack *stack) {
  const auto dtype = torch::jit::peek(*stack, 0, 4).toTensor().scalar_type();
  if (!wants_plain(handle, *stack) || !c10::isIntegralType(dtype, false))
    return dispatch(handle, stack);
  const auto arguments = torch::jit::pop(*stack, 4);
  const Tensor counts = at::histc(arguments[0].toTensor().to(c10::kDouble), arguments[1].toInt(),
                                  arguments[2].toScalar(), arguments[3].toScalar());
  torch::jit::push(*stack, counts.to(dtype));
}

// torch.jit.trace records _convolution, which torch's own kernel of convolution calls; both are sent as the latter.
void convolution(const c10::OperatorHandle &handle, Stack *stack) {
  if (!torch::jit::tracer::isTracing())
    return dispatch(handle, stack);
  static const auto recorded = c10::Dispatcher::singleton().findSchemaOrThrow("aten::_convolution", "");
  torch::jit::push(*stack, false, false, true, true);  // benchmark, deterministic, cudnn_enabled, allow_tf32
  recorded.callBoxed(stack);
}

void recorded_convolution(const c10::OperatorHandle &, Stack *stack) {
  static const auto whole = c10::Dispatcher::singleton().findSchemaOrThrow("aten::convolution", "");
  torch::jit::drop(*stack, 4);
  dispatch(whole, stack);
}

// The kernel of cuDNN differs from torch's own in rounding alone, and wants its lengths on the host.
void use_cudnn_ctc(const c10::OperatorHandle &handle, Stack *stack) {
  torch::jit::drop(*stack, handle.schema().arguments().size());
  torch::jit::push(*stack, false);
}

}  // namespace xpool
