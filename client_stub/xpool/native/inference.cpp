// Where results' geometry comes from: plans, and meta kernels at a miss.
#include "inference.h"

#include <ATen/EmptyTensor.h>
#include <ATen/core/List.h>
#include <ATen/ops/empty_strided.h>

#include <mutex>
#include <shared_mutex>
#include <string>
#include <unordered_map>

#include "encoding.h"

namespace xpool {

namespace {

at::Tensor meta_of(const at::Tensor &tensor) {
  // A wrapped number stays what it is: meta kernels in Python take it as a number, and a meta tensor has no value.
  if (!tensor.defined() || tensor.unsafeGetTensorImpl()->is_wrapped_number())
    return tensor;
  const auto options = at::TensorOptions(tensor.scalar_type()).device(c10::kMeta);
  at::Tensor meta = at::empty_strided(tensor.sizes(), tensor.strides(), options);
  if (tensor.is_conj())
    meta._set_conj(true);
  if (tensor.is_neg())
    meta._set_neg(true);
  return meta;
}

c10::IValue meta_value(const c10::IValue &value) {
  if (value.isTensor())
    return meta_of(value.toTensor());
  if (value.isTensorList()) {
    std::vector<at::Tensor> metas;
    for (const auto &tensor : value.toTensorVector())
      metas.push_back(meta_of(tensor));
    return metas;
  }
  if (value.isOptionalTensorList()) {
    c10::List<std::optional<at::Tensor>> metas;
    for (const std::optional<at::Tensor> &tensor : value.toOptionalTensorVector())
      metas.push_back(tensor ? std::optional<at::Tensor>(meta_of(*tensor)) : std::nullopt);
    return metas;
  }
  if (value.isDevice())
    return c10::Device(c10::kMeta);
  if (value.isGenerator())
    return c10::IValue();
  return value;
}

Leaf leaf_of(const at::Tensor &tensor) {
  Leaf leaf{true, tensor.scalar_type(), tensor.sizes().vec(), tensor.strides().vec()};
  leaf.nbytes = at::detail::computeStorageNbytes(leaf.sizes, leaf.strides, tensor.itemsize());
  put_geometry(leaf.geometry, leaf.dtype, 0, 0, leaf.sizes, leaf.strides);
  return leaf;
}

void add_leaf(Plan &plan, const at::Tensor &tensor) {
  if (!tensor.defined())
    plan.leaves.push_back({false, c10::ScalarType::Undefined, {}, {}});
  else
    plan.leaves.push_back(leaf_of(tensor));
}

}  // namespace

// Geometry of the results on the stack; false if some result is no strided tensor.
bool plan_from(const Operation &operation, const Stack &results, Plan &plan) {
  for (size_t i = 0; i < results.size(); i++) {
    plan.counts.push_back(kOneTensor);
    if (operation.return_to_argument[i] >= 0)
      continue;
    if (results[i].isTensor()) {
      if (results[i].toTensor().defined() && results[i].toTensor().layout() != c10::kStrided)
        return false;
      add_leaf(plan, results[i].toTensor());
    } else if (results[i].isTensorList()) {
      const auto tensors = results[i].toTensorVector();
      plan.counts.back() = static_cast<int>(tensors.size());
      for (const auto &tensor : tensors)
        add_leaf(plan, tensor);
    } else if (operation.has_fixed_numbers && results[i].isInt()) {
      plan.counts.back() = kNumber;
      plan.numbers.push_back(results[i]);
    } else {
      return false;
    }
  }
  return true;
}

Stack run_meta(const Operation &operation, Arguments arguments, Stack &meta_arguments) {
  for (const auto &argument : arguments)
    meta_arguments.push_back(meta_value(argument));
  Stack stack = meta_arguments;
  if (operation.device_argument >= 0)
    stack[operation.device_argument] = c10::Device(c10::kMeta);
  operation.handle.callBoxed(&stack);
  return stack;
}

namespace {

bool has_other_size(const at::Tensor &tensor, const at::Tensor &meta) {
  return is_remote(tensor) && tensor.sizes() != meta.sizes();
}

// Whether the call resizes an out= tensor. Into which layout only the server knows: meta kernels do not say.
bool resizes_written(const Operation &operation, Arguments arguments, const Stack &metas) {
  for (const int i : operation.written) {
    if (arguments[i].isTensor() && has_other_size(arguments[i].toTensor(), metas[i].toTensor()))
      return true;
    if (!arguments[i].isTensorList())
      continue;
    const auto tensors = arguments[i].toTensorVector();
    const auto twins = metas[i].toTensorVector();
    for (size_t k = 0; k < tensors.size(); k++)
      if (has_other_size(tensors[k], twins[k]))
        return true;
  }
  return false;
}

}  // namespace

// ---------------------------------------------------------------- plans

static constexpr size_t kMaxPlans = 200'000;

static std::shared_mutex plans_mutex;
static std::unordered_map<std::string, std::shared_ptr<const Plan>> &plans() {
  static auto *all = new std::unordered_map<std::string, std::shared_ptr<const Plan>>;
  return *all;
}

static std::atomic<uint64_t> plans_forgotten{0};

namespace {

uint64_t hash_of(std::string_view bytes) {
  constexpr uint64_t kFactor = 0x9e3779b97f4a7c15ull;
  uint64_t hash = bytes.size() * kFactor, word;
  const char *at = bytes.data(), *const end = at + bytes.size();
  for (; end - at >= 8; at += 8) {
    memcpy(&word, at, 8);
    hash = (hash ^ word) * kFactor;
    hash ^= hash >> 32;
  }
  word = 0;
  memcpy(&word, at, end - at);
  hash = (hash ^ word) * kFactor;
  return hash ^ hash >> 32;
}

// What this thread has used last: found without a lock.
struct UsedPlan {
  uint64_t hash = 0, forgotten = 0;
  std::string key;
  std::shared_ptr<const Plan> plan;
};
constexpr size_t kUsedPlans = 1024;

UsedPlan &used_plan(uint64_t hash) {
  thread_local std::vector<UsedPlan> used(kUsedPlans);
  return used[hash % kUsedPlans];
}

}  // namespace

std::shared_ptr<const Plan> find_plan(std::string_view key) {
  const uint64_t hash = hash_of(key), forgotten = plans_forgotten.load(std::memory_order_acquire);
  UsedPlan &used = used_plan(hash);
  if (used.plan && used.hash == hash && used.forgotten == forgotten && used.key == key)
    return used.plan;
  std::shared_lock<std::shared_mutex> lock(plans_mutex);
  const auto found = plans().find(std::string(key));
  if (found == plans().end())
    return nullptr;
  used = {hash, forgotten, found->first, found->second};
  return found->second;
}

void remember_plan(std::string_view key, std::shared_ptr<const Plan> plan) {
  std::unique_lock<std::shared_mutex> lock(plans_mutex);
  if (plans().size() >= kMaxPlans)
    plans().clear();
  auto &place = plans()[std::string(key)];
  if (place)
    plans_forgotten++;
  place = std::move(plan);
}

void forget_plans() {
  std::unique_lock<std::shared_mutex> lock(plans_mutex);
  plans().clear();
  plans_forgotten++;
}

// index.Tensor is tagged as dynamic, but is so only with masks.
bool is_gather(const Operation &operation, Arguments arguments) {
  if (!operation.takes_host_indices)
    return false;
  for (const auto &argument : arguments) {
    if (!argument.isOptionalTensorList())
      continue;
    for (const std::optional<at::Tensor> &index : argument.toOptionalTensorVector())
      if (index && index->defined() && (index->scalar_type() == at::kBool || index->scalar_type() == at::kByte))
        return false;
  }
  return true;
}

// The plan of a call without one yet: from the meta kernel, or null where the server must say.
std::shared_ptr<const Plan> infer(const Operation &operation, Arguments arguments) {
  if (operation.must_learn)
    return nullptr;
  auto plan = std::make_shared<Plan>();
  try {
    Stack metas;
    const Stack results = run_meta(operation, arguments, metas);
    if (operation.has_out && resizes_written(operation, arguments, metas))
      return nullptr;
    if (!plan_from(operation, results, *plan))
      return nullptr;
  } catch (const std::exception &) {
    // No meta kernel, or one that refuses these arguments: the server decides, and its error is the true one.
    return nullptr;
  }
  return plan;
}

}  // namespace xpool
