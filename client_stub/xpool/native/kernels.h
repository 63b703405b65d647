// Kernels that are registered for the remote device by hand; kernels.cpp registers them.
#pragma once
#include "dispatch.h"

namespace xpool {

inline Operation &operation_named(const char *name, const char *overload = "") {
  return operation_of(c10::Dispatcher::singleton().findSchemaOrThrow(name, overload));
}

// ---- resizing.cpp

// Another number of bytes under the same storage: what it has and still needs is kept, views stay valid.
void resize_storage(const c10::Storage &storage, uint64_t nbytes);

// ---- copies.cpp

at::Tensor &copy_(at::Tensor &self, const at::Tensor &source, bool non_blocking);
at::Tensor copy_from(const at::Tensor &self, const at::Tensor &to, bool non_blocking);
at::Tensor copy_from_and_resize(const at::Tensor &self, const at::Tensor &to);
at::Scalar local_scalar(const at::Tensor &self);

// ---- attention.cpp

void register_attention();

// ---- composites.cpp

void lstm_cell(const c10::OperatorHandle &handle, Stack *stack);
void lstm_cell_backward(const c10::OperatorHandle &handle, Stack *stack);
void gru_cell(const c10::OperatorHandle &handle, Stack *stack);
void gru_cell_backward(const c10::OperatorHandle &handle, Stack *stack);
void softmax(const c10::OperatorHandle &handle, Stack *stack);
void softmax_backward(const c10::OperatorHandle &handle, Stack *stack);
void histc(const c10::OperatorHandle &handle, Stack *stack);
void convolution(const c10::OperatorHandle &handle, Stack *stack);
void recorded_convolution(const c10::OperatorHandle &handle, Stack *stack);
void use_cudnn_ctc(const c10::OperatorHandle &handle, Stack *stack);

}  // namespace xpool
