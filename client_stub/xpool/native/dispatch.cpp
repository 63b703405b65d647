// Every ATen call on a remote tensor that no composite kernel took apart arrives in `dispatch`.
//
// A call is encoded once into two byte strings: `wire`, what the server gets, and `key`, what decides the results'
// geometry. The geometry comes from a plan under that key; at a miss from the operation's meta kernel; where that
// cannot know, from the server, once per key.
#include "dispatch.h"

#include <ATen/EmptyTensor.h>
#include <ATen/core/List.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/jit_type.h>
#include <ATen/ops/empty_strided.h>

#include <mutex>
#include <shared_mutex>
#include <unordered_map>
#include <unordered_set>

namespace xpool {

static std::atomic<uint64_t> plan_hits{0}, plan_misses{0}, plan_requests{0};
static std::atomic<bool> server_cpu{true};

PlanCounters plan_counters() { return {plan_hits, plan_misses, plan_requests}; }
bool server_is_cpu() { return server_cpu; }
void set_server_is_cpu(bool value) { server_cpu = value; }

bool is_remote(const at::Tensor &tensor) { return tensor.defined() && tensor.device().type() == kRemote; }

uint64_t span_items(c10::IntArrayRef sizes, c10::IntArrayRef strides) {
  uint64_t last = 1;
  for (size_t i = 0; i < sizes.size(); i++) {
    if (sizes[i] == 0)
      return 0;
    last += static_cast<uint64_t>(sizes[i] - 1) * static_cast<uint64_t>(strides[i]);
  }
  return last;
}

// ---------------------------------------------------------------- what the schema says

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
    "aten::native_layer_norm_backward",
    "aten::_fft_r2c",
    "aten::_fft_c2r",
    "aten::_fft_c2c",
    "aten::linalg_eig",
};

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
  must_learn = kLearned.count(wire.name) > 0;
  takes_host_indices = kHostIndices.count(wire.name) > 0;
  scalars_shape = wire.name.rfind("aten::arange", 0) == 0 || wire.name.rfind("aten::range", 0) == 0;
}

Operation &operation_of(const c10::OperatorHandle &handle) {
  static auto *mutex = new std::shared_mutex;
  static auto *operations = new std::unordered_map<const void *, std::unique_ptr<Operation>>;
  thread_local std::unordered_map<const void *, Operation *> known;
  const void *identity = &handle.schema();
  auto found = known.find(identity);
  if (found != known.end())
    return *found->second;
  std::unique_lock<std::shared_mutex> lock(*mutex);
  auto &slot = (*operations)[identity];
  if (!slot)
    slot = std::make_unique<Operation>(handle);
  known[identity] = slot.get();
  return *slot;
}

// ---------------------------------------------------------------- encoding

namespace {

struct Encoding {
  Bytes wire;
  Bytes key;
  std::vector<at::Tensor> uploads;  // kept until the call is recorded: their end is a FREE record
  bool has_host_tensor = false;

  void clear() {
    wire.clear();
    key.clear();
    uploads.clear();
    has_host_tensor = false;
  }
};

bool is_row_major(c10::IntArrayRef sizes, c10::IntArrayRef strides) {
  int64_t step = 1;
  for (size_t i = sizes.size(); i-- > 0;) {
    if (strides[i] != step)
      return false;
    step *= sizes[i] ? sizes[i] : 1;
  }
  return true;
}

void put_geometry(Bytes &to, c10::ScalarType dtype, uint8_t flags, uint64_t offset, c10::IntArrayRef sizes,
                  c10::IntArrayRef strides) {
  const bool row_major = is_row_major(sizes, strides);
  to.uint8(static_cast<uint8_t>(dtype));
  to.uint8(flags | (row_major ? 4 : 0));
  to.uvarint(offset);
  to.uvarint(sizes.size());
  for (const int64_t size : sizes)
    to.uvarint(size);
  for (size_t i = 0; !row_major && i < strides.size(); i++)
    to.uvarint(strides[i]);
}

void put_remote_tensor(Encoding &to, const at::Tensor &tensor) {
  TORCH_CHECK_NOT_IMPLEMENTED(tensor.layout() == c10::kStrided, "xpool: ", tensor.layout(),
                              " tensors are not supported on the remote device");
  const uint8_t flags = (tensor.is_conj() ? 1 : 0) | (tensor.is_neg() ? 2 : 0);
  to.wire.uint8(kTensor);
  to.wire.uvarint(storage_id(tensor.storage()));
  put_geometry(to.wire, tensor.scalar_type(), flags, tensor.storage_offset(), tensor.sizes(), tensor.strides());
  to.key.uint8(kTensor);
  put_geometry(to.key, tensor.scalar_type(), flags, 0, tensor.sizes(), tensor.strides());
}

void put_host_tensor(Encoding &to, const at::Tensor &tensor) {
  const at::Tensor dense = tensor.resolve_conj().resolve_neg().contiguous();
  const bool is_wrapped = tensor.unsafeGetTensorImpl()->is_wrapped_number();
  Bytes head;
  head.uint8(kHostTensor);
  head.uint8(static_cast<uint8_t>(dense.scalar_type()));
  head.uint8(is_wrapped ? 1 : 0);
  head.uvarint(dense.dim());
  for (const int64_t size : dense.sizes())
    head.uvarint(size);
  to.wire.append(head);
  to.wire.raw(dense.const_data_ptr(), dense.nbytes());
  to.key.append(head);
  to.has_host_tensor = true;
}

[[noreturn]] void refuse_host_tensor(const Operation &operation) {
  C10_THROW_ERROR(Error, c10::str("Expected all tensors to be on the same device, but found at least two devices, "
                                  "cuda:0 and cpu! (when calling ",
                                  operation.wire.name, ")"));
}

void put_tensor(Encoding &to, const Operation &operation, bool is_written, const at::Tensor &tensor) {
  if (!tensor.defined()) {
    to.wire.uint8(kNone);
    to.key.uint8(kNone);
  } else if (is_remote(tensor)) {
    put_remote_tensor(to, tensor);
  } else {
    if (!tensor.device().is_cpu() || is_written || (tensor.dim() > 0 && !operation.takes_host_indices))
      refuse_host_tensor(operation);
    if (tensor.nbytes() <= kInlineBytes) {
      put_host_tensor(to, tensor);
    } else {
      to.uploads.push_back(upload(tensor));
      put_remote_tensor(to, to.uploads.back());
    }
  }
}

void put_both(Encoding &to, const Bytes &bytes) {
  to.wire.append(bytes);
  to.key.append(bytes);
}

void put_value(Encoding &to, const Operation &operation, size_t argument, bool is_written, const c10::IValue &value);

template <class List>
void put_items(Encoding &to, const Operation &operation, size_t argument, bool is_written, const List &items) {
  Bytes head;
  head.uint8(kList);
  head.uvarint(items.size());
  put_both(to, head);
  for (const auto &item : items)
    put_value(to, operation, argument, is_written, c10::IValue(item));
}

void put_ints(Encoding &to, c10::IntArrayRef items) {
  Bytes bytes;
  bytes.uint8(items.empty() ? kList : kInts);
  bytes.uvarint(items.size());
  for (const int64_t item : items)
    bytes.svarint(item);
  put_both(to, bytes);
}

// A list is packed if it holds integers only, whatever its static type: the rule looks at the values alone.
void put_list(Encoding &to, const Operation &operation, size_t argument, bool is_written, const c10::IValue &value) {
  if (value.isIntList())
    return put_ints(to, value.toIntVector());
  const auto items = value.toListRef();
  std::vector<int64_t> ints;
  const bool is_code = operation.meanings[argument] != Meaning::kPlain && operation.meanings[argument] != Meaning::kScalar;
  for (const auto &item : items)
    if (!is_code && (item.isInt() || (item.isSymInt() && !item.toSymInt().is_symbolic())))
      ints.push_back(item.isInt() ? item.toInt() : item.toSymInt().expect_int());
  if (!items.empty() && ints.size() == items.size())
    return put_ints(to, ints);
  put_items(to, operation, argument, is_written, items);
}

void put_number(Encoding &to, const Operation &operation, size_t argument, const c10::IValue &value) {
  Bytes bytes;
  if (value.isBool()) {
    bytes.uint8(value.toBool() ? kTrue : kFalse);
  } else if (value.isDouble()) {
    bytes.uint8(kFloat);
    bytes.float64(value.toDouble());
  } else if (value.isComplexDouble()) {
    bytes.uint8(kComplex);
    bytes.float64(value.toComplexDouble().real());
    bytes.float64(value.toComplexDouble().imag());
  } else {
    bytes.uint8(kInt);
    bytes.svarint(value.isInt() ? value.toInt() : value.toSymInt().expect_int());
  }
  to.wire.append(bytes);
  // A Scalar's value does not shape results (but for arange); its type takes part in promotion.
  if (operation.meanings[argument] == Meaning::kScalar && !operation.scalars_shape)
    to.key.uint8(value.isBool() ? kTrue : bytes.str()[0]);
  else
    to.key.append(bytes);
}

void put_code(Encoding &to, Meaning meaning, int64_t code) {
  Bytes bytes;
  bytes.uint8(meaning == Meaning::kDType ? kDType : meaning == Meaning::kLayout ? kLayout : kMemoryFormat);
  bytes.uint8(static_cast<uint8_t>(code));
  put_both(to, bytes);
}

void put_value(Encoding &to, const Operation &operation, size_t argument, bool is_written, const c10::IValue &value) {
  const Meaning meaning = operation.meanings[argument];
  Bytes bytes;
  if (value.isTensor()) {
    put_tensor(to, operation, is_written, value.toTensor());
  } else if (value.isNone()) {
    bytes.uint8(kNone);
    put_both(to, bytes);
  } else if (value.isInt() && meaning != Meaning::kPlain && meaning != Meaning::kScalar) {
    put_code(to, meaning, value.toInt());
  } else if (value.isBool() || value.isInt() || value.isDouble() || value.isComplexDouble() || value.isSymInt()) {
    put_number(to, operation, argument, value);
  } else if (value.isSymFloat()) {
    put_number(to, operation, argument, c10::IValue(value.toSymFloat().expect_float()));
  } else if (value.isSymBool()) {
    put_number(to, operation, argument, c10::IValue(value.toSymBool().expect_bool()));
  } else if (value.isDevice()) {
    TORCH_CHECK(value.toDevice().type() == kRemote, "xpool: ", operation.wire.name, " on a remote tensor was asked to",
                " make its result on ", value.toDevice());
    bytes.uint8(kDevice);
    bytes.uint8(0);
    put_both(to, bytes);
  } else if (value.isString()) {
    bytes.uint8(kText);
    bytes.text(value.toStringRef());
    put_both(to, bytes);
  } else if (value.isList()) {
    put_list(to, operation, argument, is_written, value);
  } else if (value.isGenerator()) {
    const auto &generator = value.toGenerator();
    TORCH_CHECK(generator.device().type() == kRemote, "Expected a 'cuda' device type for generator but found '",
                generator.device().type(), "'");
    bytes.uint8(kGenerator);
    bytes.uvarint(static_cast<RemoteGenerator *>(generator.unsafeGetGeneratorImpl())->id);
    put_both(to, bytes);
  } else {
    TORCH_CHECK_NOT_IMPLEMENTED(false, "xpool: argument '", operation.wire.argument_names[argument], "' of ",
                                operation.wire.name, " is a ", value.tagKind(), ", which can't be sent to a server");
  }
}

// Whether a value equals its schema default and so is left out: same kind and same value.
bool is_default(const c10::IValue &value, const c10::IValue &standard) {
  if (standard.isNone())
    return value.isNone() || (value.isTensor() && !value.toTensor().defined());
  if (standard.isBool())
    return value.isBool() && value.toBool() == standard.toBool();
  if (standard.isInt())
    return value.isInt() && value.toInt() == standard.toInt();
  if (standard.isDouble())
    return value.isDouble() && value.toDouble() == standard.toDouble();
  if (standard.isString())
    return value.isString() && value.toStringRef() == standard.toStringRef();
  if (standard.isIntList())
    return value.isIntList() && value.toIntVector() == standard.toIntVector();
  if (standard.isBoolList())
    return value.isBoolList() && value.toBoolList() == standard.toBoolList();
  if (standard.isDoubleList())
    return value.isDoubleList() && value.toDoubleVector() == standard.toDoubleVector();
  return false;
}

template <class Arguments>
void put_arguments(Encoding &to, const Operation &operation, const Arguments &arguments) {
  const auto &declared = operation.schema.arguments();
  const size_t count_at = to.wire.size();
  uint8_t count = 0;  // schemas have fewer than 128 arguments, so one byte holds it
  to.wire.uint8(0);
  size_t next_written = 0;
  for (size_t i = 0; i < declared.size(); i++) {
    const bool is_written = next_written < operation.written.size() && operation.written[next_written] == int(i);
    next_written += is_written;
    const auto &standard = declared[i].default_value();
    if (standard && is_default(arguments[i], *standard))
      continue;
    to.wire.uvarint(i);
    to.key.uvarint(i);
    put_value(to, operation, i, is_written, arguments[i]);
    count++;
  }
  to.wire.at(count_at) = static_cast<char>(count);
}

// ---------------------------------------------------------------- shape inference

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

void add_leaf(Plan &plan, const at::Tensor &tensor) {
  if (!tensor.defined())
    plan.leaves.push_back({false, c10::ScalarType::Undefined, {}, {}});
  else
    plan.leaves.push_back({true, tensor.scalar_type(), tensor.sizes().vec(), tensor.strides().vec()});
}

// Geometry of the results on the stack; false if some result is no tensor.
bool plan_from(const Operation &operation, const Stack &results, Plan &plan) {
  for (size_t i = 0; i < results.size(); i++) {
    plan.counts.push_back(-1);
    if (operation.return_to_argument[i] >= 0)
      continue;
    if (results[i].isTensor()) {
      add_leaf(plan, results[i].toTensor());
    } else if (results[i].isTensorList()) {
      const auto tensors = results[i].toTensorVector();
      plan.counts.back() = static_cast<int>(tensors.size());
      for (const auto &tensor : tensors)
        add_leaf(plan, tensor);
    } else {
      return false;
    }
  }
  return true;
}

template <class Arguments>
Stack run_meta(const Operation &operation, const Arguments &arguments, Stack &meta_arguments) {
  for (const auto &argument : arguments)
    meta_arguments.push_back(meta_value(argument));
  Stack stack = meta_arguments;
  if (operation.device_argument >= 0)
    stack[operation.device_argument] = c10::Device(c10::kMeta);
  operation.handle.callBoxed(&stack);
  return stack;
}

// An out= tensor of another size is resized as its meta twin was: new storage where the old one is too small.
bool resize_like(const at::Tensor &tensor, const at::Tensor &meta) {
  if (tensor.sizes() == meta.sizes())
    return false;
  const uint64_t needed = span_items(meta.sizes(), meta.strides()) * tensor.element_size();
  auto *impl = tensor.unsafeGetTensorImpl();
  c10::Storage storage = tensor.storage();
  if (storage.nbytes() < needed) {
    storage.set_data_ptr_noswap(storage_allocator()->allocate(needed));
    storage.set_nbytes(needed);
  }
  impl->set_storage_offset(0);
  impl->set_sizes_and_strides(meta.sizes(), meta.strides());
  return true;
}

template <class Arguments>
bool resize_written(const Operation &operation, const Arguments &arguments, const Stack &metas) {
  bool is_resized = false;
  for (const int i : operation.written) {
    if (arguments[i].isTensor() && is_remote(arguments[i].toTensor())) {
      is_resized |= resize_like(arguments[i].toTensor(), metas[i].toTensor());
    } else if (arguments[i].isTensorList()) {
      const auto tensors = arguments[i].toTensorVector();
      const auto twins = metas[i].toTensorVector();
      for (size_t k = 0; k < tensors.size(); k++)
        if (is_remote(tensors[k]))
          is_resized |= resize_like(tensors[k], twins[k]);
    }
  }
  return is_resized;
}

// ---------------------------------------------------------------- plans

constexpr size_t kMaxPlans = 200'000;

std::shared_mutex plans_mutex;
std::unordered_map<std::string, std::shared_ptr<const Plan>> &plans() {
  static auto *all = new std::unordered_map<std::string, std::shared_ptr<const Plan>>;
  return *all;
}

std::shared_ptr<const Plan> find_plan(const std::string &key) {
  std::shared_lock<std::shared_mutex> lock(plans_mutex);
  const auto found = plans().find(key);
  return found == plans().end() ? nullptr : found->second;
}

void remember_plan(const std::string &key, std::shared_ptr<const Plan> plan) {
  std::unique_lock<std::shared_mutex> lock(plans_mutex);
  if (plans().size() >= kMaxPlans)
    plans().clear();
  plans()[key] = std::move(plan);
}

// ---------------------------------------------------------------- recording

void record(Operation &operation, const Bytes &head, const Bytes &tail) {
  leave_room();
  const uint64_t number = Log::instance().append_call(operation.wire, head, tail);
  if (callbacks.trace)
    callbacks.trace(number);
}

at::Tensor result_tensor(const Leaf &leaf) {
  return at::detail::empty_strided_generic(leaf.sizes, leaf.strides, result_allocator(), kKeys, leaf.dtype);
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

template <class Arguments>
uint64_t leaf_count(const Arguments &arguments, int argument) {
  return arguments[argument].isTensorList() ? arguments[argument].toTensorVector().size() : 1;
}

// Results of a call whose new tensors the plan describes, encoded as its outputs.
template <class Arguments>
Stack predicted_results(const Operation &operation, const Arguments &arguments, const Plan &plan, Bytes &wire) {
  Stack results;
  Bytes outputs;
  uint64_t count = 0;
  size_t leaf = 0;
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
    std::vector<at::Tensor> tensors;
    for (int k = 0; k < (number < 0 ? 1 : number); k++, leaf++) {
      const Leaf &one = plan.leaves[leaf];
      tensors.push_back(one.is_defined ? result_tensor(one) : at::Tensor());
      put_output(outputs, tensors.back());
      count++;
    }
    if (number < 0)
      results.emplace_back(tensors[0]);
    else
      results.emplace_back(std::move(tensors));
  }
  wire.uvarint(count);
  wire.append(outputs);
  return results;
}

// ---------------------------------------------------------------- calls that wait

struct Replied {
  std::unordered_map<uint64_t, c10::Storage> storages;  // new ones, and those of the arguments
};

struct Geometry {
  bool is_defined = false;
  uint64_t storage = 0;
  c10::ScalarType dtype = c10::ScalarType::Undefined;
  uint8_t flags = 0;
  int64_t offset = 0;
  std::vector<int64_t> sizes, strides;
};

void check_reply(bool ok) { TORCH_CHECK(ok, "xpool: the server's answer is malformed"); }

Geometry read_geometry(BytesReader &reader) {
  Geometry geometry;
  geometry.is_defined = true;
  geometry.storage = reader.uvarint();
  geometry.dtype = static_cast<c10::ScalarType>(reader.uint8());
  geometry.flags = reader.uint8();
  geometry.offset = reader.uvarint();
  const uint64_t ndim = reader.uvarint();
  check_reply(reader.ok && ndim <= 64 && geometry.dtype < c10::ScalarType::NumOptions);
  for (uint64_t i = 0; i < ndim; i++)
    geometry.sizes.push_back(reader.uvarint());
  geometry.strides.resize(ndim);
  int64_t step = 1;
  for (uint64_t i = ndim; i-- > 0;) {
    geometry.strides[i] = step;
    step *= geometry.sizes[i] ? geometry.sizes[i] : 1;
  }
  for (uint64_t i = 0; !(geometry.flags & 4) && i < ndim; i++)
    geometry.strides[i] = reader.uvarint();
  check_reply(reader.ok);
  return geometry;
}

void note_storages(Replied &replied, const c10::IValue &value) {
  auto note = [&](const at::Tensor &tensor) {
    if (is_remote(tensor))
      replied.storages.emplace(storage_id(tensor.storage()), tensor.storage());
  };
  if (value.isTensor())
    note(value.toTensor());
  else if (value.isTensorList())
    for (const auto &tensor : value.toTensorVector())
      note(tensor);
  else if (value.isOptionalTensorList())
    for (const std::optional<at::Tensor> &tensor : value.toOptionalTensorVector())
      if (tensor)
        note(*tensor);
}

c10::Storage storage_of(Replied &replied, const Geometry &geometry) {
  const uint64_t needed = (geometry.offset + span_items(geometry.sizes, geometry.strides)) *
                          c10::elementSize(geometry.dtype);
  auto found = replied.storages.find(geometry.storage);
  if (found == replied.storages.end()) {
    c10::Storage made(c10::Storage::use_byte_size_t(), needed, adopt_storage(geometry.storage, needed),
                      storage_allocator(), true);
    found = replied.storages.emplace(geometry.storage, std::move(made)).first;
  } else if (found->second.nbytes() < needed) {
    recharge(found->second, needed);
  }
  return found->second;
}

at::Tensor tensor_from(Replied &replied, const Geometry &geometry) {
  if (!geometry.is_defined)
    return {};
  at::Tensor tensor = tensor_over(storage_of(replied, geometry), geometry.dtype, geometry.sizes, geometry.strides,
                                  geometry.offset);
  if (geometry.flags & 1)
    tensor._set_conj(true);
  if (geometry.flags & 2)
    tensor._set_neg(true);
  return tensor;
}

c10::IValue read_result(BytesReader &reader, Replied &replied, const c10::TypePtr &type) {
  const uint8_t tag = reader.uint8();
  switch (tag) {
    case kNone: return type->kind() == c10::TypeKind::TensorType ? c10::IValue(at::Tensor()) : c10::IValue();
    case kFalse: return false;
    case kTrue: return true;
    case kInt: return reader.svarint();
    case kFloat: return reader.float64();
    case kComplex: {
      const double real = reader.float64(), imag = reader.float64();
      return c10::complex<double>(real, imag);
    }
    case kText: return std::string(reader.text());
    case kTensor: return tensor_from(replied, read_geometry(reader));
    case kInts: {
      std::vector<int64_t> ints(std::min<uint64_t>(reader.uvarint(), 65536));
      for (auto &item : ints)
        item = reader.svarint();
      return ints;
    }
    case kList: {
      const uint64_t count = reader.uvarint();
      check_reply(reader.ok && count <= 65536);
      std::vector<at::Tensor> tensors;
      for (uint64_t i = 0; i < count; i++) {
        const c10::IValue item = read_result(reader, replied, c10::TensorType::get());
        check_reply(item.isTensor());
        tensors.push_back(item.toTensor());
      }
      return tensors;
    }
    default: check_reply(false);
  }
  return {};
}

template <class Arguments>
std::vector<at::Tensor> written_leaves(const Operation &operation, const Arguments &arguments) {
  std::vector<at::Tensor> leaves;
  for (const int i : operation.written) {
    if (arguments[i].isTensor())
      leaves.push_back(arguments[i].toTensor());
    else if (arguments[i].isTensorList())
      for (const auto &tensor : arguments[i].toTensorVector())
        leaves.push_back(tensor);
  }
  return leaves;
}

// After the call a written argument may have another size, and so another storage.
void reseat(Replied &replied, const at::Tensor &tensor, const Geometry &geometry) {
  if (!geometry.is_defined || !is_remote(tensor))
    return;
  auto *impl = tensor.unsafeGetTensorImpl();
  const c10::Storage storage = storage_of(replied, geometry);
  if (storage.unsafeGetStorageImpl() != tensor.storage().unsafeGetStorageImpl())
    impl->set_storage_keep_dtype(storage);
  if (tensor.sizes() != c10::IntArrayRef(geometry.sizes) || tensor.strides() != c10::IntArrayRef(geometry.strides) ||
      tensor.storage_offset() != geometry.offset) {
    impl->set_storage_offset(geometry.offset);
    impl->set_sizes_and_strides(geometry.sizes, geometry.strides);
  }
}

template <class Arguments>
Stack requested_results(Operation &operation, const Arguments &arguments, const Encoding &encoding) {
  plan_requests++;
  const uint64_t request = Log::instance().next_request();
  Bytes head;
  head.uint8(kRequestCall);
  head.uvarint(request);
  head.uvarint(Log::instance().next_storage(kReservedIds));
  record(operation, head, encoding.wire);
  Replied replied;
  for (const auto &argument : arguments)
    note_storages(replied, argument);
  for (const auto &tensor : encoding.uploads)
    note_storages(replied, tensor);
  const Answer answer = await(request);
  BytesReader reader(answer.value, answer.value_nbytes);
  check_reply(reader.uint8() == kList && reader.uvarint() == 2);
  const auto &returns = operation.schema.returns();
  const uint8_t form = reader.uint8();  // a list of integers alone comes packed
  check_reply((form == kList || form == kInts) && reader.uvarint() == returns.size());
  Stack results;
  for (size_t i = 0; i < returns.size(); i++)
    results.push_back(form == kInts ? c10::IValue(reader.svarint()) : read_result(reader, replied, returns[i].type()));
  check_reply(reader.uint8() == kList);
  const auto leaves = written_leaves(operation, arguments);
  const uint64_t count = reader.uvarint();
  check_reply(reader.ok && count == leaves.size());
  for (uint64_t i = 0; i < count; i++) {
    const uint8_t tag = reader.uint8();
    check_reply(tag == kNone || tag == kTensor);
    if (tag == kTensor)
      reseat(replied, leaves[i], read_geometry(reader));
  }
  check_reply(reader.ok && reader.exhausted());
  for (size_t i = 0; i < returns.size(); i++)
    if (operation.return_to_argument[i] >= 0)
      results[i] = arguments[operation.return_to_argument[i]];
  return results;
}

// ---------------------------------------------------------------- views

bool make_views(const Operation &operation, Stack *stack) {
  const size_t count = operation.schema.arguments().size();
  const Stack arguments(stack->end() - count, stack->end());
  if (!arguments[0].isTensor())
    return false;
  const at::Tensor &base = arguments[0].toTensor();
  Stack metas;
  Stack results = run_meta(operation, arguments, metas);
  auto over_base = [&](const at::Tensor &meta) {
    at::Tensor view = at::detail::make_tensor<c10::TensorImpl>(c10::TensorImpl::VIEW, c10::Storage(base.storage()),
                                                               base.key_set(),
                                                               c10::scalarTypeToTypeMeta(meta.scalar_type()));
    auto *impl = view.unsafeGetTensorImpl();
    impl->set_storage_offset(meta.storage_offset() +
                             base.storage_offset() * base.element_size() / meta.element_size());
    impl->set_sizes_and_strides(meta.sizes(), meta.strides());
    view._set_conj(meta.is_conj());
    view._set_neg(meta.is_neg());
    return view;
  };
  torch::jit::drop(*stack, count);
  for (const auto &result : results) {
    if (result.isTensor()) {
      stack->emplace_back(over_base(result.toTensor()));
      continue;
    }
    std::vector<at::Tensor> views;
    for (const auto &meta : result.toTensorVector())
      views.push_back(over_base(meta));
    stack->emplace_back(std::move(views));
  }
  return true;
}

// index.Tensor is tagged as dynamic, but is so only with masks.
template <class Arguments>
bool is_gather(const Operation &operation, const Arguments &arguments) {
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
template <class Arguments>
std::shared_ptr<const Plan> infer(const Operation &operation, const Arguments &arguments, bool &is_resized) {
  if (operation.must_learn)
    return nullptr;
  auto plan = std::make_shared<Plan>();
  try {
    Stack metas;
    const Stack results = run_meta(operation, arguments, metas);
    if (operation.has_out)
      is_resized = resize_written(operation, arguments, metas);
    if (!plan_from(operation, results, *plan))
      return nullptr;
  } catch (const std::exception &) {
    // No meta kernel, or one that refuses these arguments: the server decides, and its error is the true one.
    return nullptr;
  }
  return plan;
}

}  // namespace

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
                    encoding.wire);
  record(operation, call_head(), encoding.wire);
}

// ---------------------------------------------------------------- structured operations
//
// torch can infer their results in C++: its composite kernel makes the outputs and calls the out= variant. That kernel
// is run for its shapes alone: outputs are allocated unannounced, the out= call is swallowed, and the functional call
// is recorded with the outputs as its results. If the kernel does anything else meanwhile (an index with a mask runs
// nonzero), the outputs so far are announced and the out= call is recorded as an ordinary one.

struct Structured {
  const Operation *outer;
  std::vector<c10::Storage> unannounced;
  bool is_broken = false, is_swallowed = false;
};
static thread_local Structured *structured = nullptr;

bool in_structured() { return structured && !structured->is_broken && !structured->is_swallowed; }
bool after_structured() { return structured && structured->is_swallowed; }

void note_unannounced(const c10::Storage &storage) {
  structured->unannounced.push_back(storage);
}

static void announce() {
  structured->is_broken = true;
  for (const auto &storage : structured->unannounced) {
    Bytes record;
    record.uint8(kAllocate);
    record.uvarint(storage_id(storage));
    record.uvarint(storage.nbytes());
    Log::instance().append(record);
    mark_known(storage);
  }
}

// Another operation begins inside a structured one.
StructuredPause::StructuredPause() : outer_(structured) {
  if (in_structured())
    announce();
  structured = nullptr;
}
StructuredPause::~StructuredPause() { structured = static_cast<Structured *>(outer_); }

static std::string_view base_name(const std::string &name) {
  std::string_view base(name);
  return base.size() > 1 && base.back() == '_' && base[base.size() - 2] != '_' ? base.substr(0, base.size() - 1) : base;
}

static bool swallow(const Operation &operation, Stack *stack) {
  if (!in_structured() || !operation.has_out ||
      base_name(operation.schema.name()) != base_name(structured->outer->schema.name()))
    return false;
  structured->is_swallowed = true;
  const size_t count = operation.schema.arguments().size();
  const Stack arguments(stack->end() - count, stack->end());
  torch::jit::drop(*stack, count);
  for (const int argument : operation.return_to_argument)
    stack->push_back(arguments[argument]);
  return true;
}

void dispatch_structured(const c10::OperatorHandle &handle, Stack *stack) {
  constexpr auto kComposite = c10::DispatchKey::CompositeExplicitAutogradNonFunctional;
  check_usable();
  StructuredPause pause;
  Operation &operation = operation_of(handle);
  const size_t count = operation.schema.arguments().size();
  const Stack arguments(stack->end() - count, stack->end());
  Structured now{&operation};
  structured = &now;
  try {
    handle.callBoxedForDispatchKey(kComposite, *stack);
  } catch (...) {
    structured = nullptr;
    throw;
  }
  if (!now.is_swallowed && !now.is_broken)
    announce();  // it allocated and called nothing, as new_empty_strided does
  structured = nullptr;
  if (!now.is_swallowed)
    return;
  Encoding encoding;
  put_arguments(encoding, operation, arguments);
  Bytes outputs;
  for (size_t i = 0; i < operation.return_to_argument.size(); i++) {
    if (operation.return_to_argument[i] >= 0)
      outputs.uint8(0);
    else
      put_output(outputs, torch::jit::peek(*stack, i, operation.return_to_argument.size()).toTensor());
  }
  encoding.wire.uvarint(operation.return_to_argument.size());
  encoding.wire.append(outputs);
  record(operation, call_head(), encoding.wire);
  const size_t results = operation.return_to_argument.size();
  mark_results(stack->data() + stack->size() - results, results);
}

void dispatch(const c10::OperatorHandle &handle, Stack *stack) {
  check_usable();
  Operation &operation = operation_of(handle);
  if (swallow(operation, stack))
    return;
  StructuredPause pause;
  if (operation.is_view && make_views(operation, stack))
    return;
  const size_t count = operation.schema.arguments().size();
  const auto arguments = torch::jit::last(*stack, count);
  thread_local std::vector<std::unique_ptr<Encoding>> spare;  // dispatch may be re-entered from a meta kernel
  std::unique_ptr<Encoding> encoding = spare.empty() ? std::make_unique<Encoding>() : std::move(spare.back());
  if (!spare.empty())
    spare.pop_back();
  encoding->clear();
  const void *identity = &operation;
  encoding->key.raw(&identity, sizeof identity);
  put_arguments(*encoding, operation, arguments);
  Stack results;
  const bool needs_no_plan = operation.only_writes && !operation.has_out;
  if (needs_no_plan) {
    static const Plan nothing{{}, std::vector<int>(8, -1)};
    results = predicted_results(operation, arguments, nothing, encoding->wire);
    record(operation, call_head(), encoding->wire);
  } else {
    const bool must_ask = operation.returns_number || (operation.is_dynamic && !is_gather(operation, arguments));
    std::shared_ptr<const Plan> plan = must_ask ? nullptr : find_plan(encoding->key.str());
    plan_hits += plan != nullptr;
    if (!plan && !must_ask) {
      plan_misses++;
      bool is_resized = false;
      plan = infer(operation, arguments, is_resized);
      if (is_resized) {  // encode the out= argument as it is now; the next one of the old size needs the same again
        encoding->clear();
        put_arguments(*encoding, operation, arguments);
      } else if (plan) {
        remember_plan(encoding->key.str(), plan);
      }
    }
    if (plan) {
      results = predicted_results(operation, arguments, *plan, encoding->wire);
      record(operation, call_head(), encoding->wire);
      mark_results(results.data(), results.size());
    } else {
      const std::string key = encoding->key.str();
      results = requested_results(operation, arguments, *encoding);
      auto learned = std::make_shared<Plan>();
      if (!must_ask && !operation.has_out && plan_from(operation, results, *learned))
        remember_plan(key, learned);
    }
  }
  torch::jit::drop(*stack, count);
  for (auto &result : results)
    stack->push_back(std::move(result));
  encoding->clear();
  spare.push_back(std::move(encoding));
}

}  // namespace xpool
