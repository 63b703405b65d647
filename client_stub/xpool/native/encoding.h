// A call's two byte strings: `wire`, what the server gets, and `key`, what decides the results' geometry.
#pragma once
#include "dispatch.h"

namespace xpool {

struct Encoding {
  Bytes wire;
  Bytes key;
  std::vector<at::Tensor> uploads;  // kept until the call is recorded: their end is a FREE record
  bool has_host_tensor = false;
  bool keys_values = false;  // numbers are in the key as they are: they may decide what torch says of the call
  Stack results;
  int device = -1;  // where all of it lies; -1: no argument has said so

  // Where the call runs.
  int where() const { return device < 0 ? current_device() : device; }

  void clear() {
    device = -1;
    wire.clear();
    key.clear();
    uploads.clear();
    has_host_tensor = keys_values = false;
    results.clear();
  }
};

// An encoding of this thread's, empty; calls within calls have others.
class LentEncoding {
 public:
  LentEncoding();
  ~LentEncoding();
  LentEncoding(const LentEncoding &) = delete;
  LentEncoding &operator=(const LentEncoding &) = delete;
  Encoding &operator*() { return *mine_; }

 private:
  std::unique_ptr<Encoding> mine_;
};

void put_geometry(Bytes &to, c10::ScalarType dtype, uint8_t flags, uint64_t offset, c10::IntArrayRef sizes,
                  c10::IntArrayRef strides);
void put_arguments(Encoding &to, const Operation &operation, Arguments arguments);
// What else than arguments decides results' geometry, into the key.
void put_surroundings(Encoding &to);

}  // namespace xpool
