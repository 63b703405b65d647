// A call's two byte strings: `wire`, what the server gets, and `key`, what decides the results' geometry.
#pragma once
#include "dispatch.h"

namespace xpool {

struct Encoding {
  Bytes wire;
  Bytes key;
  std::vector<at::Tensor> uploads;  // kept until the call is recorded: their end is a FREE record
  bool has_host_tensor = false;
  int device = -1;  // where all of it lies; -1: no argument has said so

  // Where the call runs.
  int where() const { return device < 0 ? current_device() : device; }

  void clear() {
    device = -1;
    wire.clear();
    key.clear();
    uploads.clear();
    has_host_tensor = false;
  }
};

void put_geometry(Bytes &to, c10::ScalarType dtype, uint8_t flags, uint64_t offset, c10::IntArrayRef sizes,
                  c10::IntArrayRef strides);
void put_arguments(Encoding &to, const Operation &operation, Arguments arguments);

}  // namespace xpool
