#include "operation.h"

#include <ATen/core/jit_type.h>

namespace xpool_server {

namespace {

Kind kind_of(const c10::TypePtr &type) {
  switch (type->kind()) {
    case c10::TypeKind::TensorType: return Kind::kTensor;
    case c10::TypeKind::IntType:
    case c10::TypeKind::SymIntType: return Kind::kInt;
    case c10::TypeKind::BoolType: return Kind::kBool;
    case c10::TypeKind::FloatType: return Kind::kFloat;
    case c10::TypeKind::NumberType: return Kind::kNumber;
    case c10::TypeKind::StringType: return Kind::kText;
    case c10::TypeKind::ScalarTypeType: return Kind::kDType;
    case c10::TypeKind::LayoutType: return Kind::kLayout;
    case c10::TypeKind::MemoryFormatType: return Kind::kMemoryFormat;
    case c10::TypeKind::DeviceObjType: return Kind::kDevice;
    case c10::TypeKind::GeneratorType: return Kind::kGenerator;
    default: return Kind::kOther;
  }
}

// Autograd hands a way back undefined tensors where the schema says Tensor, as for attention without a bias.
bool is_way_back(const std::string &name) {
  constexpr std::string_view kEnd = "_backward";
  return name.size() >= kEnd.size() && name.compare(name.size() - kEnd.size(), kEnd.size(), kEnd) == 0;
}

Parameter parameter_of(const c10::Argument &argument, size_t order, bool takes_numbers) {
  Parameter made;
  made.order = order;
  made.is_known = true;
  made.is_required = !argument.default_value();
  made.is_written = argument.alias_info() && argument.alias_info()->isWrite();
  c10::TypePtr type = argument.real_type();
  if (auto optional = type->cast<c10::OptionalType>()) {
    made.is_optional = true;
    type = optional->getElementType();
  }
  if (auto list = type->cast<c10::ListType>()) {
    made.is_list = true;
    type = list->getElementType();
    if (auto optional = type->cast<c10::OptionalType>()) {
      made.has_optional_items = true;
      type = optional->getElementType();
    }
  }
  made.kind = kind_of(type);
  made.takes_numbers = takes_numbers && !made.is_list && made.kind == Kind::kTensor;
  if (made.has_optional_items && made.kind != Kind::kTensor)
    made.kind = Kind::kOther;
  return made;
}

}  // namespace

Operation::Operation(const c10::OperatorHandle &op, const std::vector<std::string> &argument_names, bool takes_numbers)
    : handle(op), parameters(argument_names.size()) {
  const auto &declared = handle.schema().arguments();
  const bool is_back = is_way_back(handle.schema().name());
  for (size_t order = 0; order < declared.size(); order++) {
    Parameter made = parameter_of(declared[order], order, takes_numbers);
    made.may_be_undefined = is_back && made.kind == Kind::kTensor && !made.is_list && !made.is_written;
    required_count += made.is_required;
    reshapes |= declared[order].kwarg_only() && made.is_written;
    defaults.push_back(declared[order].default_value().value_or(c10::IValue()));
    for (size_t i = 0; i < argument_names.size(); i++)
      if (argument_names[i] == declared[order].name())
        parameters[i] = made;
  }
  reshapes |= handle.hasTag(at::Tag::inplace_view);
  for (const auto &result : handle.schema().returns()) {
    const auto list = result.type()->cast<c10::ListType>();
    returns_list.push_back(list && list->getElementType()->kind() == c10::TypeKind::TensorType);
    returns_tensor.push_back(result.type()->kind() == c10::TypeKind::TensorType);
  }
}

}  // namespace xpool_server
