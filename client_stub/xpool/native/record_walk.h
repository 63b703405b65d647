// Where the numbers of a record stand that may differ from one repetition to the next (protocol/SPEC.md section 5).
//
// Everything else about a record is its shape: kind, operation, positions and kinds of arguments, dtypes, dimensions.
// Two records of one shape have one signature, and their spots correspond. Knows bytes and nothing else.
#pragma once
#include <cstdint>
#include <string_view>
#include <vector>

namespace xpool {

enum class SpotKind : uint8_t {
  kStorage,  // a uvarint that names a storage
  kNumber,   // any other varint: an integer, a size, a stride, an offset
  kRaw,      // bytes of fixed length: a float, the items of a host tensor
  kRequest,  // a uvarint that names the answer to a Read
};

struct Spot {
  uint32_t at, nbytes;
  SpotKind kind;
};

struct Walk {
  // Of a kind that a plan may hold.
  bool is_plannable = false;
  // The spots name all the storages that the record has to do with.
  bool names_all_storages = false;
  uint64_t signature = 0;
  std::vector<Spot> spots;
};

// Reads a record that this process has encoded.
void walk_record(std::string_view record, Walk &to);

// The uvarint at a position, which is known to hold one.
inline uint64_t number_at(const char *at) {
  uint64_t value = 0;
  for (int shift = 0;; shift += 7, at++) {
    value |= static_cast<uint64_t>(static_cast<uint8_t>(*at) & 0x7f) << shift;
    if (!(*at & 0x80))
      return value;
  }
}

}  // namespace xpool
