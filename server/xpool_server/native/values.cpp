#include "values.h"

#include <ATen/core/List.h>
#include <ATen/ops/_conj.h>
#include <ATen/ops/_neg_view.h>
#include <ATen/ops/empty.h>
#include <ATen/ScalarOps.h>
#include <c10/core/TensorImpl.h>
#include <c10/core/TensorOptions.h>

namespace xpool_server {

namespace {

enum Tag : uint8_t {
  kNone, kFalse, kTrue, kInt, kFloat, kComplex, kText, kList, kInts, kTensor, kHostTensor, kDType, kDevice, kLayout,
  kMemoryFormat, kGenerator,
};

constexpr uint8_t FLAG_CONJ = 1, FLAG_NEG = 2, FLAG_ROW_MAJOR = 4, FLAG_WRAPPED = 1;

c10::ScalarType read_dtype(Reader &from) {
  const uint8_t code = from.uint8();
  // The codes of section 4: c10's, less quantized and sub-byte types.
  const bool is_known = code <= 11 || code == 15 || (code >= 23 && code <= 29);
  if (!is_known)
    throw HandBack{};
  return static_cast<c10::ScalarType>(code);
}

void read_sizes(Reader &from, c10::SmallVectorImpl<int64_t> &sizes) {
  const uint64_t ndim = from.uvarint(MAX_DIMS);
  unsigned __int128 items = 1;
  for (uint64_t i = 0; i < ndim; i++) {
    const uint64_t size = from.uvarint(MAX_EXTENT);
    items *= size ? size : 1;
    if (items > MAX_ITEMS)
      throw HandBack{};
    sizes.push_back(static_cast<int64_t>(size));
  }
}

void put_row_major(c10::IntArrayRef sizes, c10::SmallVectorImpl<int64_t> &strides) {
  strides.resize(sizes.size());
  int64_t step = 1;
  for (size_t i = sizes.size(); i-- > 0;) {
    strides[i] = step;
    step *= sizes[i] ? sizes[i] : 1;
  }
}

struct HostTensor {
  c10::ScalarType dtype;
  bool is_wrapped;
  c10::SmallVector<int64_t, 5> sizes;
  size_t nbytes;
  const uint8_t *data;
};

HostTensor read_host_tensor(Reader &from) {
  HostTensor made;
  made.dtype = read_dtype(from);
  const uint8_t flags = from.uint8();
  if (flags & ~FLAG_WRAPPED)
    throw HandBack{};
  read_sizes(from, made.sizes);
  made.is_wrapped = flags;
  if (flags && !made.sizes.empty())
    throw HandBack{};
  unsigned __int128 nbytes = c10::elementSize(made.dtype);
  for (const int64_t size : made.sizes)
    nbytes *= static_cast<uint64_t>(size);
  if (nbytes > MAX_HOST_TENSOR_NBYTES)
    throw HandBack{};
  made.nbytes = static_cast<size_t>(nbytes);
  made.data = from.raw(made.nbytes);
  return made;
}

// The Python number that a wrapped host tensor is; the client's encoders send these four types.
c10::Scalar number_of(const HostTensor &from) {
  auto as = [&](auto value) {
    memcpy(&value, from.data, sizeof value);
    return value;
  };
  switch (from.dtype) {
    case c10::ScalarType::Long: return as(int64_t());
    case c10::ScalarType::Double: return as(double());
    case c10::ScalarType::ComplexDouble: return as(c10::complex<double>());
    case c10::ScalarType::Bool:
      if (*from.data > 1)
        throw HandBack{};
      return c10::Scalar(*from.data == 1);
    default: throw HandBack{};
  }
}

at::Tensor tensor_of(const HostTensor &from) {
  at::Tensor made = at::empty(from.sizes, at::TensorOptions(from.dtype));
  if (from.nbytes)
    memcpy(made.mutable_data_ptr(), from.data, from.nbytes);
  return made;
}

// A number in the place of a tensor, as torch's Python bindings make it.
at::Tensor wrapped(const c10::Scalar &number) {
  at::Tensor made = at::scalar_to_tensor(number);
  made.unsafeGetTensorImpl()->set_wrapped_number(true);
  return made;
}

c10::complex<double> read_complex(Reader &from) {
  const double real = from.float64();
  return {real, from.float64()};
}

c10::Scalar read_number(Reader &from, uint8_t tag) {
  switch (tag) {
    case kFalse: return false;
    case kTrue: return true;
    case kInt: return from.svarint();
    case kFloat: return from.float64();
    case kComplex: return read_complex(from);
    case kHostTensor: {
      const HostTensor host = read_host_tensor(from);
      if (!host.is_wrapped)
        throw HandBack{};
      return number_of(host);
    }
    default: throw HandBack{};
  }
}

c10::IValue read_text(Reader &from) {
  const uint64_t nbytes = from.uvarint(MAX_STRING_NBYTES);
  const char *data = reinterpret_cast<const char *>(from.raw(nbytes));
  for (uint64_t i = 0; i < nbytes; i++)
    if (data[i] & 0x80)  // whether it is UTF-8 is Python's to say
      throw HandBack{};
  return c10::IValue(std::string(data, nbytes));
}

void expect(bool is_met) {
  if (!is_met)
    throw HandBack{};
}

}  // namespace

uint64_t Geometry::span_nbytes() const {
  unsigned __int128 last = 1;
  for (size_t i = 0; i < sizes.size(); i++) {
    if (sizes[i] == 0)
      return 0;
    last += static_cast<unsigned __int128>(sizes[i] - 1) * static_cast<uint64_t>(strides[i]);
  }
  last *= c10::elementSize(dtype);
  return last > UINT64_MAX / 2 ? UINT64_MAX / 2 : static_cast<uint64_t>(last);
}

void read_geometry(Reader &from, Geometry &to) {
  const uint8_t *begin = from.here();
  to.dtype = read_dtype(from);
  to.flags = from.uint8();
  if (to.flags & ~(FLAG_CONJ | FLAG_NEG | FLAG_ROW_MAJOR))
    throw HandBack{};
  to.offset = from.uvarint(MAX_EXTENT);
  to.sizes.clear();
  read_sizes(from, to.sizes);
  put_row_major(to.sizes, to.strides);
  if (!(to.flags & FLAG_ROW_MAJOR)) {
    bool is_row_major = true;
    for (int64_t &stride : to.strides) {
      const int64_t given = static_cast<int64_t>(from.uvarint(MAX_EXTENT));
      is_row_major &= given == stride;
      stride = given;
    }
    if (is_row_major)
      throw HandBack{};
  }
  to.flags &= ~FLAG_ROW_MAJOR;
  to.bytes = {reinterpret_cast<const char *>(begin), static_cast<size_t>(from.here() - begin)};
}

at::Tensor Values::over(const c10::Storage &storage, const Geometry &geometry, uint64_t offset) const {
  const auto key = c10::computeDispatchKey(geometry.dtype, c10::kStrided, device_);
  at::Tensor made = at::detail::make_tensor<c10::TensorImpl>(c10::Storage(storage), c10::DispatchKeySet(key),
                                                             c10::scalarTypeToTypeMeta(geometry.dtype));
  made.unsafeGetTensorImpl()->set_sizes_and_strides(geometry.sizes, geometry.strides, static_cast<int64_t>(offset));
  if (geometry.flags & FLAG_CONJ)
    made = at::_conj(made);
  if (geometry.flags & FLAG_NEG)
    made = at::_neg_view(made);
  return made;
}

at::Tensor Values::make_tensor(const Entry &entry, const Geometry &geometry) const {
  const uint64_t span = geometry.span_nbytes();
  // Offsets are below 2^46 items and items below 2^4 bytes: no sum here leaves 64 bits.
  if (geometry.offset * c10::elementSize(geometry.dtype) + span <= entry.nbytes)
    return over(entry.storage, geometry, geometry.offset);
  // torch lets an empty view stand anywhere. Ours begins at 0: were it an out= argument, its offset would count when
  // it is resized.
  expect(span == 0);
  return over(entry.storage, geometry, 0);
}

at::Tensor Values::read_tensor(Reader &from, bool is_own, bool is_written) {
  Entry *entry = storages_.find(from.uvarint(MAX_STORAGE_ID));
  expect(entry && entry->is_usable());
  if (is_own && is_written)
    written_.push_back(entry);
  if (!is_own)
    for (const View &view : entry->views)
      if (from.takes(view.geometry))
        return view.tensor;
  Geometry geometry;
  read_geometry(from, geometry);
  at::Tensor made = make_tensor(*entry, geometry);
  if (!is_own) {
    if (entry->views.size() >= MAX_VIEWS)
      entry->views.clear();
    entry->views.push_back({std::string(geometry.bytes), made});
  }
  return made;
}

c10::IValue Values::read_item(Reader &from, const Operation &operation, const Parameter &parameter, uint8_t tag) {
  switch (parameter.kind) {
    case Kind::kTensor: {
      if (tag == kTensor)
        return read_tensor(from, operation.reshapes && parameter.is_written, parameter.is_written);
      expect(tag == kHostTensor && !parameter.is_written);
      const HostTensor host = read_host_tensor(from);
      if (!host.is_wrapped)
        return tensor_of(host);
      expect(parameter.takes_numbers);
      return wrapped(number_of(host));
    }
    case Kind::kInt: expect(tag == kInt); return from.svarint();
    case Kind::kBool: expect(tag == kTrue || tag == kFalse); return tag == kTrue;
    case Kind::kFloat:
      if (tag == kFloat)
        return from.float64();
      expect(tag == kInt);
      return static_cast<double>(from.svarint());
    case Kind::kNumber: return read_number(from, tag);
    case Kind::kText: expect(tag == kText); return read_text(from);
    case Kind::kDType: expect(tag == kDType); return read_dtype(from);
    case Kind::kLayout: expect(tag == kLayout && from.uint8() == 0); return c10::kStrided;
    case Kind::kMemoryFormat: {
      expect(tag == kMemoryFormat);
      const uint8_t code = from.uint8();
      expect(code <= 3);
      return static_cast<c10::MemoryFormat>(code);
    }
    case Kind::kDevice: expect(tag == kDevice && from.uint8() == 0); return device_;
    case Kind::kGenerator:
    case Kind::kOther: break;
  }
  throw HandBack{};
}

namespace {

template <class Items, class Read>
c10::IValue filled(Items items, uint64_t count, Read read) {
  // What a client counts takes room only when it has come.
  for (uint64_t i = 0; i < count; i++)
    items.push_back(read());
  return c10::IValue(std::move(items));
}

}  // namespace

c10::IValue Values::read_list(Reader &from, const Operation &operation, const Parameter &parameter, uint8_t tag) {
  expect(tag == kList || tag == kInts);
  const uint64_t count = from.uvarint(MAX_LIST);
  const bool is_packed = tag == kInts;
  expect(!is_packed || count > 0);
  bool is_ints = count > 0;
  auto next = [&]() {
    const uint8_t item_tag = is_packed ? uint8_t(kInt) : from.uint8();
    is_ints &= item_tag == kInt;
    return item_tag;
  };
  c10::IValue made;
  switch (parameter.kind) {
    case Kind::kTensor:
      if (parameter.has_optional_items)
        made = filled(c10::List<std::optional<at::Tensor>>(), count, [&]() -> std::optional<at::Tensor> {
          const uint8_t item_tag = next();
          if (item_tag == kNone)
            return std::nullopt;
          return read_item(from, operation, parameter, item_tag).toTensor();
        });
      else
        made = filled(c10::List<at::Tensor>(), count,
                      [&] { return read_item(from, operation, parameter, next()).toTensor(); });
      break;
    case Kind::kInt:
      made = filled(c10::List<int64_t>(), count, [&] { return read_item(from, operation, parameter, next()).toInt(); });
      break;
    case Kind::kFloat:
      made = filled(c10::List<double>(), count, [&] { return read_item(from, operation, parameter, next()).toDouble(); });
      break;
    case Kind::kBool:
      made = filled(c10::List<bool>(), count, [&] { return read_item(from, operation, parameter, next()).toBool(); });
      break;
    case Kind::kNumber:
      made = filled(c10::impl::GenericList(c10::NumberType::get()), count,
                    [&] { return read_item(from, operation, parameter, next()); });
      break;
    default: throw HandBack{};
  }
  expect(is_packed || !is_ints);  // integers alone travel packed
  return made;
}

c10::IValue Values::read_value(Reader &from, const Operation &operation, const Parameter &parameter) {
  const uint8_t tag = from.uint8();
  if (tag == kNone && parameter.is_optional)
    return c10::IValue();
  if (tag == kNone && parameter.may_be_undefined)
    return at::Tensor();
  if (parameter.is_list)
    return read_list(from, operation, parameter, tag);
  return read_item(from, operation, parameter, tag);
}

void Values::read_arguments(Reader &from, const Operation &operation, torch::jit::Stack &stack) {
  written_.clear();
  const uint64_t count = from.uvarint(MAX_ARGUMENTS);
  size_t required = 0;
  int64_t before = -1;
  for (uint64_t i = 0; i < count; i++) {
    const int64_t position = static_cast<int64_t>(from.uvarint(MAX_ARGUMENTS - 1));
    expect(position > before && static_cast<size_t>(position) < operation.parameters.size());
    before = position;
    const Parameter &parameter = operation.parameters[position];
    expect(parameter.is_known);
    required += parameter.is_required;
    stack[parameter.order] = read_value(from, operation, parameter);
  }
  expect(required == operation.required_count);
}

}  // namespace xpool_server
