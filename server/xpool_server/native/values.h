// Wire values to what an operation takes (protocol/SPEC.md section 4): decoded and checked against the schema at once.
#pragma once
#include <ATen/core/stack.h>
#include <c10/core/Device.h>

#include "operation.h"
#include "reader.h"
#include "storages.h"

namespace xpool_server {

// A tensor as a client names it, with the bytes that say its geometry.
struct Geometry {
  c10::ScalarType dtype;
  uint8_t flags;
  uint64_t offset;
  c10::SmallVector<int64_t, 5> sizes, strides;
  std::string_view bytes;

  // From the first item to the end of the last, in bytes; more than any storage has if it does not fit 64 bits.
  uint64_t span_nbytes() const;
};

// After the storage id; throws HandBack for what section 4 refuses.
void read_geometry(Reader &from, Geometry &to);

class Values {
 public:
  Values(Storages &storages, c10::Device device) : storages_(storages), device_(device) {}

  // The arguments of a call put over its defaults; throws HandBack unless Python would take them all.
  void read_arguments(Reader &from, const Operation &operation, torch::jit::Stack &stack);
  // Storages that the call writes, of the operation that was read last, if it reshapes.
  const std::vector<Entry *> &written() const { return written_; }

  at::Tensor over(const c10::Storage &storage, const Geometry &geometry, uint64_t offset) const;

 private:
  c10::IValue read_value(Reader &from, const Operation &operation, const Parameter &parameter);
  c10::IValue read_list(Reader &from, const Operation &operation, const Parameter &parameter, uint8_t tag);
  c10::IValue read_item(Reader &from, const Operation &operation, const Parameter &parameter, uint8_t tag);
  at::Tensor read_tensor(Reader &from, bool is_own, bool is_written);
  at::Tensor make_tensor(const Entry &entry, const Geometry &geometry) const;

  Storages &storages_;
  const c10::Device device_;
  std::vector<Entry *> written_;
};

}  // namespace xpool_server
