// The client's end of a device's bulk lane: large ranges straight from and into host memory (SPEC.md section 13).
#pragma once
#include <cstdint>
#include <mutex>

#include "remote.h"

namespace xpool {

constexpr uint64_t kLaneBytes = 1 << 20;  // from here on the lane is worth a system call of its own

class Lane {
 public:
  static Lane &of(int device);

  // Whether bytes can go this way; opens the lane at the first call.
  bool is_open();
  // Fills a range of a storage; `data` is free again on return. False if the lane is broken and nothing was recorded.
  bool upload(uint64_t storage, uint64_t offset, const char *data, uint64_t nbytes);
  // Fetches a range of a storage. False as above.
  bool download(uint64_t storage, uint64_t offset, char *to, uint64_t nbytes);

  // An open stream whose greeting was accepted; -1: there is none. It belongs to the lane from now on.
  void set_stream(int fd) { fd_ = fd; }

  struct Counters {
    uint64_t uploads, downloads;
  };
  Counters counters() const { return {uploads_, downloads_}; }

 private:
  explicit Lane(int device) : device_(device) {}

  const int device_;
  std::once_flag opened_;
  std::mutex uploading_, downloading_;  // order on the stream is order in the log
  std::atomic<int> fd_{-1};
  std::atomic<bool> is_broken_{false};
  std::atomic<uint64_t> uploads_{0}, downloads_{0};  // transfers begun
};

}  // namespace xpool
