// Calls that wait: only the server knows what their results are.
#include "recording.h"

#include <ATen/core/Tensor.h>

#include <unordered_map>

#include "sparse.h"

namespace xpool {

namespace {

struct Replied {
  int device;
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
    if (!is_remote(tensor))
      return;
    for (const auto &part : is_sparse(tensor) ? sparse_parts(tensor) : std::vector<at::Tensor>{tensor})
      replied.storages.emplace(storage_id(part.storage()), part.storage());
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
    c10::Storage made(c10::Storage::use_byte_size_t(), needed, adopt_storage(replied.device, geometry.storage, needed),
                      storage_allocator(replied.device), true);
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

struct SparseReply {
  SparseShape shape;
  std::vector<at::Tensor> parts;
};

SparseReply read_sparse(BytesReader &reader, Replied &replied) {
  SparseReply sparse;
  const uint8_t layout = reader.uint8();
  check_reply(layout == 1 || layout == 2 || (layout >= 4 && layout <= 6));
  sparse.shape.layout = static_cast<c10::Layout>(layout);
  sparse.shape.is_coalesced = reader.uint8() & 1;
  sparse.shape.dense_dim = reader.uvarint();
  const uint64_t ndim = reader.uvarint();
  check_reply(reader.ok && ndim <= 64 && sparse.shape.dense_dim <= static_cast<int64_t>(ndim));
  for (uint64_t i = 0; i < ndim; i++)
    sparse.shape.sizes.push_back(reader.uvarint());
  for (int i = 0; i < (layout == 1 ? 2 : 3); i++)
    sparse.parts.push_back(tensor_from(replied, read_geometry(reader)));
  check_reply(reader.ok);
  return sparse;
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
    case kSparse: {
      const SparseReply sparse = read_sparse(reader, replied);
      return sparse_over(sparse.shape, sparse.parts);
    }
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

std::vector<at::Tensor> written_leaves(const Operation &operation, Arguments arguments) {
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

// After the call a written argument may have another size, and so another storage, or be conjugated.
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
  tensor._set_conj(geometry.flags & 1);
  tensor._set_neg(geometry.flags & 2);
}

}  // namespace

Stack requested_results(Operation &operation, Arguments arguments, const Encoding &encoding) {
  count_request();
  const int device = encoding.where();
  const uint64_t request = Log::of(device).next_request();
  Bytes head;
  head.uint8(kRequestCall);
  head.uvarint(request);
  head.uvarint(Log::of(device).next_storage(kReservedIds));
  record(device, operation, head, encoding.wire);
  Replied replied{device};
  for (const auto &argument : arguments)
    note_storages(replied, argument);
  for (const auto &tensor : encoding.uploads)
    note_storages(replied, tensor);
  const Answer answer = await(device, request, operation.wire.name.c_str());
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
    check_reply(tag == kNone || tag == kTensor || tag == kSparse);
    if (tag == kSparse) {
      const SparseReply sparse = read_sparse(reader, replied);
      check_reply(leaves[i].defined() && leaves[i].layout() == sparse.shape.layout);
      reseat_sparse(leaves[i], sparse.shape, sparse.parts);
    } else if (tag == kTensor)
      reseat(replied, leaves[i], read_geometry(reader));
  }
  check_reply(reader.ok && reader.exhausted());
  for (size_t i = 0; i < returns.size(); i++)
    if (operation.return_to_argument[i] >= 0)
      results[i] = arguments[operation.return_to_argument[i]];
  return results;
}

}  // namespace xpool
