// An operation as a session has defined it: what its arguments must be, read once from the schema.
#pragma once
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>

#include <string>
#include <vector>

namespace xpool_server {

enum class Kind : uint8_t {
  kOther,  // Python knows what to say
  kTensor,
  kInt,
  kBool,
  kFloat,
  kNumber,
  kText,
  kDType,
  kLayout,
  kMemoryFormat,
  kDevice,
  kGenerator,
};

struct Parameter {
  size_t order = 0;  // position in the server's schema
  Kind kind = Kind::kOther;
  bool is_known = false;  // the server's schema has it
  bool is_optional = false;
  bool is_list = false;
  bool has_optional_items = false;
  bool is_required = false;
  bool is_written = false;
  bool takes_numbers = false;  // a Python number may stand for the tensor
  bool may_be_undefined = false;  // a way back, where an absent tensor is an undefined one
};

struct Operation {
  c10::OperatorHandle handle;
  std::vector<Parameter> parameters;  // in the client's order
  size_t required_count = 0;
  bool reshapes = false;  // a written tensor's sizes or its storage may change
  torch::jit::Stack defaults;
  std::vector<bool> returns_list;  // one per result: a list of tensors
  std::vector<bool> returns_tensor;

  Operation(const c10::OperatorHandle &handle, const std::vector<std::string> &argument_names, bool takes_numbers);
};

}  // namespace xpool_server
