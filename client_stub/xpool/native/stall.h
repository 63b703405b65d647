// A server that takes nothing: when to tell the user; the twin of xpool/stall.py, which explains it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

namespace xpool {

constexpr int64_t kStallNs = 5'000'000'000;

// One wait for room. Decides; the caller has the clock and says it.
class Stall {
 public:
  Stall(uint64_t sent_bytes, int64_t now_ns) : sent_bytes_(sent_bytes), since_ns_(now_ns) {}

  // What to say now; empty if there is nothing.
  std::string notice(uint64_t sent_bytes, size_t queued_bytes, int64_t now_ns) {
    if (sent_bytes != sent_bytes_) {
      sent_bytes_ = sent_bytes;
      since_ns_ = now_ns;
      is_told_ = false;
    }
    if (is_told_ || now_ns - since_ns_ < kStallNs)
      return {};
    is_told_ = true;
    return "xpool: the server has taken nothing for " + std::to_string(kStallNs / 1'000'000'000) + " s; " +
           std::to_string(queued_bytes >> 20) + " MiB are queued, and the program waits for it";
  }

 private:
  uint64_t sent_bytes_;
  int64_t since_ns_;
  bool is_told_ = false;
};

}  // namespace xpool
