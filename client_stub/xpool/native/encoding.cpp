// A call's arguments as bytes, as in protocol/SPEC.md sections 4 and 5.
#include "encoding.h"

#include <ATen/core/List.h>
#include <c10/core/DefaultDtype.h>

#include "capturing.h"
#include "sparse.h"

namespace xpool {

static std::vector<std::unique_ptr<Encoding>> &spare_encodings() {
  thread_local std::vector<std::unique_ptr<Encoding>> spare;
  return spare;
}

LentEncoding::LentEncoding() {
  auto &spare = spare_encodings();
  if (spare.empty()) {
    mine_ = std::make_unique<Encoding>();
    return;
  }
  mine_ = std::move(spare.back());
  spare.pop_back();
}

LentEncoding::~LentEncoding() {
  mine_->clear();
  spare_encodings().push_back(std::move(mine_));
}

static bool is_row_major(c10::IntArrayRef sizes, c10::IntArrayRef strides) {
  int64_t step = 1;
  for (size_t i = sizes.size(); i-- > 0;) {
    if (strides[i] != step)
      return false;
    step *= sizes[i] ? sizes[i] : 1;
  }
  return true;
}

// Dtypes of SPEC.md section 4: quantized and sub-byte ones do not cross the wire.
static uint8_t dtype_code(c10::ScalarType dtype) {
  const auto code = static_cast<uint8_t>(dtype);
  TORCH_CHECK_NOT_IMPLEMENTED(code <= 11 || code == 15 || (code >= 23 && code <= 29), "xpool: tensors of dtype ", dtype,
                              " are not supported on the remote device");
  return code;
}

void put_geometry(Bytes &to, c10::ScalarType dtype, uint8_t flags, uint64_t offset, c10::IntArrayRef sizes,
                  c10::IntArrayRef strides) {
  const bool row_major = is_row_major(sizes, strides);
  to.uint8(dtype_code(dtype));
  to.uint8(flags | (row_major ? 4 : 0));
  to.uvarint(offset);
  to.uvarint(sizes.size());
  for (const int64_t size : sizes)
    to.uvarint(size);
  for (size_t i = 0; !row_major && i < strides.size(); i++)
    to.uvarint(strides[i]);
}

namespace {

[[noreturn]] void refuse_mixture(const Operation &operation, c10::Device one, c10::Device other) {
  C10_THROW_ERROR(Error, c10::str("Expected all tensors to be on the same device, but found at least two devices, ",
                                  one, " and ", other, "! (when calling ", operation.wire.name, ")"));
}

// An argument lies there: so must all others.
void claim(Encoding &to, const Operation &operation, int device) {
  if (to.device >= 0 && to.device != device)
    refuse_mixture(operation, remote_device(to.device), remote_device(device));
  to.device = device;
}

void put_both(Encoding &to, const Bytes &bytes) {
  to.wire.append(bytes);
  to.key.append(bytes);
}

// A storage and a geometry over it. The plan does not depend on where in its storage a tensor lies.
void put_strided(Encoding &to, const Operation &operation, const at::Tensor &tensor) {
  claim(to, operation, tensor.device().index());
  TORCH_CHECK_NOT_IMPLEMENTED(tensor.layout() == c10::kStrided, "xpool: ", tensor.layout(),
                              " tensors are not supported on the remote device");
  const uint8_t flags = (tensor.is_conj() ? 1 : 0) | (tensor.is_neg() ? 2 : 0);
  to.wire.uvarint(storage_id(tensor.storage()));
  const size_t begin = to.wire.size();
  put_geometry(to.wire, tensor.scalar_type(), flags, tensor.storage_offset(), tensor.sizes(), tensor.strides());
  if (tensor.storage_offset() == 0)
    to.key.raw(&to.wire.at(begin), to.wire.size() - begin);
  else
    put_geometry(to.key, tensor.scalar_type(), flags, 0, tensor.sizes(), tensor.strides());
}

void put_sparse(Encoding &to, const Operation &operation, const at::Tensor &tensor) {
  const SparseShape shape = sparse_shape(tensor);
  Bytes head;
  head.uint8(kSparse);
  head.uint8(static_cast<uint8_t>(shape.layout));
  head.uint8(shape.is_coalesced ? 1 : 0);
  head.uvarint(shape.dense_dim);
  head.uvarint(shape.sizes.size());
  for (const int64_t size : shape.sizes)
    head.uvarint(size);
  put_both(to, head);
  for (const auto &part : sparse_parts(tensor)) {
    to.uploads.push_back(part.resolve_conj().resolve_neg());  // a new one if it was lazy
    put_strided(to, operation, to.uploads.back());
  }
}

void put_remote_tensor(Encoding &to, const Operation &operation, const at::Tensor &tensor) {
  if (is_sparse(tensor))
    return put_sparse(to, operation, tensor);
  to.wire.uint8(kTensor);
  to.key.uint8(kTensor);
  put_strided(to, operation, tensor);
}

void put_host_tensor(Encoding &to, const at::Tensor &tensor) {
  const at::Tensor dense = tensor.resolve_conj().resolve_neg().contiguous();
  const bool is_wrapped = tensor.unsafeGetTensorImpl()->is_wrapped_number();
  Bytes head;
  head.uint8(kHostTensor);
  head.uint8(dtype_code(dense.scalar_type()));
  head.uint8(is_wrapped ? 1 : 0);
  head.uvarint(dense.dim());
  for (const int64_t size : dense.sizes())
    head.uvarint(size);
  to.wire.append(head);
  to.wire.raw(dense.const_data_ptr(), dense.nbytes());
  to.key.append(head);
  to.has_host_tensor = true;
}

void put_tensor(Encoding &to, const Operation &operation, bool is_written, const at::Tensor &tensor) {
  if (!tensor.defined()) {
    to.wire.uint8(kNone);
    to.key.uint8(kNone);
  } else if (is_remote(tensor)) {
    put_remote_tensor(to, operation, tensor);
  } else {
    if (!tensor.device().is_cpu() || is_written || (tensor.dim() > 0 && !operation.takes_host_indices))
      refuse_mixture(operation, remote_device(to.where()), tensor.device());
    if (tensor.nbytes() <= kInlineBytes) {
      put_host_tensor(to, tensor);
    } else {
      to.uploads.push_back(upload(tensor, to.where()));
      put_remote_tensor(to, operation, to.uploads.back());
    }
  }
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
  if (operation.meanings[argument] == Meaning::kScalar && !operation.scalars_shape && !to.keys_values)
    to.key.uint8(value.isBool() ? kTrue : bytes.str()[0]);
  else
    to.key.append(bytes);
}

void put_code(Encoding &to, Meaning meaning, int64_t code) {
  Bytes bytes;
  bytes.uint8(meaning == Meaning::kDType ? kDType : meaning == Meaning::kLayout ? kLayout : kMemoryFormat);
  bytes.uint8(meaning == Meaning::kDType ? dtype_code(static_cast<c10::ScalarType>(code)) : static_cast<uint8_t>(code));
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
    claim(to, operation, index_of(value.toDevice()));
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
    claim(to, operation, generator.device().index());
    keep_generator(generator.device().index(), generator);
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

}  // namespace

void put_surroundings(Encoding &to) {
  to.key.uint8(server_is_cpu(to.where()));  // what was learned of one kind of server holds for no other
  to.key.uint8(static_cast<uint8_t>(c10::get_default_dtype_as_scalartype()));
}

void put_arguments(Encoding &to, const Operation &operation, Arguments arguments) {
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

}  // namespace xpool
