// The bounds of protocol/SPEC.md section 8 that records meet; tests compare them with xpool_protocol/limits.py.
#pragma once
#include <cstdint>

namespace xpool_server {

constexpr uint64_t MAX_FRAMES = 256;
constexpr uint64_t MAX_FRAME_NBYTES = 16 << 20;
constexpr uint64_t MAX_BODY_NBYTES = 8 << 20;
constexpr uint64_t MAX_STORAGE_ID = (1ull << 62) - 1;
constexpr uint64_t MAX_STORAGE_NBYTES = 1ull << 46;
constexpr uint64_t MAX_DIMS = 64;
constexpr uint64_t MAX_EXTENT = 1ull << 46;
constexpr uint64_t MAX_ITEMS = 1ull << 62;
constexpr uint64_t MAX_ARGUMENTS = 64;
constexpr uint64_t MAX_OUTPUTS = 65536;
constexpr uint64_t MAX_LIST = 65536;
constexpr uint64_t MAX_STRING_NBYTES = 64 << 10;
constexpr uint64_t MAX_HOST_TENSOR_NBYTES = 4 << 20;
constexpr uint64_t MAX_OPERATIONS = 8192;
constexpr uint64_t INLINE_NBYTES = 64 << 10;
constexpr uint64_t CHUNK_NBYTES = 1 << 20;
constexpr uint64_t MAX_PLAN_RECORDS = 16384;
constexpr uint64_t MAX_PLAN_VARIABLES = 131072;
constexpr uint64_t MAX_PLAN_VALUES_NBYTES = 2 << 20;
constexpr uint64_t MAX_EXPANDED_NBYTES = 8 << 20;
constexpr uint64_t TRANSFER_NBYTES = 16 << 20;

// Of xpool_server/storages.py.
constexpr uint64_t GRANULE_NBYTES = 512;
constexpr uint64_t MAX_VIEWS = 8;

}  // namespace xpool_server
