// What a schema says of an operation: read once, at its first call.
#include <ATen/core/jit_type.h>

#include <mutex>
#include <unordered_map>
#include <unordered_set>

#include "at_fork.h"
#include "dispatch.h"

namespace xpool {

// Meta kernels of these model CUDA where other devices differ (empty statistics in evaluation, offsets), or cannot know
// which layout a server's library chooses (convolutions): the first call of each geometry asks.
static const std::unordered_set<std::string> kLearned = {
    "aten::convolution",
    "aten::convolution_backward",
    "aten::native_batch_norm",
    "aten::_native_batch_norm_legit",
    "aten::_native_batch_norm_legit.no_stats",
    "aten::_native_batch_norm_legit_no_training",
    "aten::_batch_norm_with_update",
    "aten::_batch_norm_with_update_functional",
    "aten::_batch_norm_no_update",
    "aten::batch_norm_with_update",
    "aten::_embedding_bag",
    "aten::_embedding_bag_forward_only",
    "aten::native_group_norm",
    "aten::native_layer_norm",
    "aten::native_layer_norm_backward",
    "aten::_fft_r2c",
    "aten::_fft_c2r",
    "aten::_fft_c2c",
    "aten::linalg_eig",
    "aten::_linalg_svd",
    "aten::log_sigmoid_forward",
    "aten::max_unpool2d",
    "aten::max_unpool3d",
    "aten::multilabel_margin_loss_forward",
    "aten::native_layer_norm",
    "aten::nonzero_static",
};

// In-place, and still they give `self` the size of what is added to it.
static const std::unordered_set<std::string> kGrowing = {"aten::addbmm_"};

// Their results hold numbers, sequence lengths, which are learned with the geometry.
static const std::unordered_set<std::string> kFixedNumbers = {"aten::_scaled_dot_product_flash_attention",
                                                              "aten::_scaled_dot_product_cudnn_attention"};

// torch's composites hand these an empty tensor to fill.
static const std::unordered_set<std::string> kFilling = {"aten::arange.start_out", "aten::range.out", "aten::eye.out",
                                                         "aten::eye.m_out"};

static const std::unordered_set<std::string> kHostIndices = {
    "aten::index.Tensor",        "aten::index.Tensor_out",  "aten::index_put",
    "aten::index_put_",          "aten::index_put.out",     "aten::_index_put_impl_",
    "aten::_unsafe_index.Tensor", "aten::_unsafe_index_put",
};

static Meaning meaning_of(c10::TypePtr type) {
  while (true) {
    if (auto optional = type->cast<c10::OptionalType>())
      type = optional->getElementType();
    else if (auto list = type->cast<c10::ListType>())
      type = list->getElementType();
    else
      break;
  }
  switch (type->kind()) {
    case c10::TypeKind::ScalarTypeType: return Meaning::kDType;
    case c10::TypeKind::LayoutType: return Meaning::kLayout;
    case c10::TypeKind::MemoryFormatType: return Meaning::kMemoryFormat;
    case c10::TypeKind::NumberType: return Meaning::kScalar;
    default: return Meaning::kPlain;
  }
}

static bool holds_tensors(const c10::TypePtr &type) {
  if (auto optional = type->cast<c10::OptionalType>())
    return holds_tensors(optional->getElementType());
  if (auto list = type->cast<c10::ListType>())
    return holds_tensors(list->getElementType());
  return type->kind() == c10::TypeKind::TensorType;
}

Operation::Operation(const c10::OperatorHandle &op) : handle(op), schema(op.schema()) {
  wire.name = schema.name() + (schema.overload_name().empty() ? "" : "." + schema.overload_name());
  const auto &arguments = schema.arguments();
  for (size_t i = 0; i < arguments.size(); i++) {
    wire.argument_names.push_back(arguments[i].name());
    meanings.push_back(meaning_of(arguments[i].real_type()));
    const bool is_written = arguments[i].alias_info() && arguments[i].alias_info()->isWrite();
    if (is_written)
      written.push_back(i);
    has_out |= is_written && arguments[i].is_out();
    if (arguments[i].real_type()->str().find("Device") == 0)
      device_argument = i;
  }
  only_writes = true;
  for (const auto &result : schema.returns()) {
    int argument = -1;
    if (const auto *alias = result.alias_info()) {
      is_view |= !alias->isWrite();
      for (size_t i = 0; i < arguments.size(); i++)
        if (alias->isWrite() && arguments[i].alias_info() &&
            arguments[i].alias_info()->beforeSets() == alias->beforeSets())
          argument = i;
    }
    only_writes &= argument >= 0;
    returns_number |= argument < 0 && !holds_tensors(result.type());
    return_to_argument.push_back(argument);
  }
  only_writes &= !written.empty();
  is_view &= written.empty();
  is_dynamic = handle.hasTag(at::Tag::dynamic_output_shape) || handle.hasTag(at::Tag::data_dependent_output);
  grows_written = kGrowing.count(wire.name) > 0;
  has_fixed_numbers = kFixedNumbers.count(wire.name) > 0;
  must_learn = has_fixed_numbers || kLearned.count(wire.name) > 0;
  fills_out = kFilling.count(wire.name) > 0;
  takes_host_indices = kHostIndices.count(wire.name) > 0;
  scalars_shape = wire.name.rfind("aten::arange", 0) == 0 || wire.name.rfind("aten::range", 0) == 0;
}

static std::mutex operations_mutex;
static const bool operations_survive = survives_fork<operations_mutex>();

Operation &operation_of(const c10::OperatorHandle &handle) {
  static auto *operations = new std::unordered_map<const void *, std::unique_ptr<Operation>>;
  thread_local std::array<std::pair<const void *, Operation *>, 256> known{};  // used last
  const void *identity = &handle.schema();
  auto &place = known[reinterpret_cast<uintptr_t>(identity) / alignof(std::max_align_t) % known.size()];
  if (place.first == identity)
    return *place.second;
  std::lock_guard<std::mutex> lock(operations_mutex);
  auto &slot = (*operations)[identity];
  if (!slot)
    slot = std::make_unique<Operation>(handle);
  place = {identity, slot.get()};
  return *slot;
}

}  // namespace xpool
