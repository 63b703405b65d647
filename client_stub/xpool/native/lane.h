// The client's end of a device's bulk lane: large ranges straight from and into host memory (SPEC.md section 13).
#pragma once
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <unordered_set>

#include "remote.h"
#include "shared_ring.h"

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

  // What the server has already: a length of 64 bits and a digest of 32 bytes each. Before set_stream.
  void set_known(const char *contents, uint64_t nbytes);
  // An open stream whose greeting was accepted, and what is shared with the server, or -1; all belong to the lane now.
  void set_stream(int fd, int memory, int freed);

  struct Counters {
    uint64_t uploads, downloads, known;
  };
  Counters counters() const { return {uploads_, downloads_, known_uploads_}; }

 private:
  explicit Lane(int device) : device_(device) {}
  // Names bytes that the server has already instead of sending them; false if it has not.
  bool upload_known(uint64_t storage, uint64_t offset, const char *data, uint64_t nbytes);

  const int device_;
  std::once_flag opened_;
  std::mutex uploading_, downloading_;  // order on the stream is order in the log
  std::unique_ptr<SharedRing> ring_;     // where the bytes go on one host; null: over the stream. Set before fd_.
  std::atomic<int> fd_{-1};
  std::atomic<bool> is_broken_{false};
  std::atomic<uint64_t> uploads_{0}, downloads_{0}, known_uploads_{0};  // transfers begun
  std::unordered_map<uint64_t, std::unordered_set<std::string>> known_;  // digests by length
};

}  // namespace xpool
