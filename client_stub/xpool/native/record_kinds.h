// Numbers of the log's records.
#pragma once
#include <cstdint>

namespace xpool {

// Record numbers of SPEC.md section 5.
enum Record : uint8_t {
  kDefineOperation = 1,
  kCall = 2,
  kRequestCall = 3,
  kAllocate = 4,
  kFree = 5,
  kWrite = 6,
  kRead = 7,
  kFence = 8,
  kStatistics = 9,
  kNewGenerator = 10,
  kSeedGenerator = 11,
  kReadGenerator = 12,
  kWriteGenerator = 13,
  kFreeGenerator = 14,
  kDefineGraph = 25,
  kRunGraph = 26,
  kFreeGraph = 27,
  kDefinePlan = 28,
  kRunPlan = 29,
  kFreePlan = 30,
  kDefinePeer = 15,
  kSend = 16,
  kReceive = 17,
  kUpload = 36,
  kDownload = 37,
  kUploadKnown = 39,
};

}  // namespace xpool
