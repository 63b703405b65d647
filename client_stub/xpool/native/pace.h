// When a log's records leave: small messages are gathered while the program streams, and nothing waits that somebody
// waits for. Decides by its arguments alone; the twin of xpool/pace.py.
//
// A message costs both ends tens of microseconds whatever it holds, and a program that streams makes a record every few
// of them. So after a burst of a few messages there is one every `kPaceNs` (the generic cell rate algorithm): a device
// that has nothing to do gets its first records at once, and later ones late by that much at most, which no distance
// makes longer.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace xpool {

constexpr int64_t kPaceNs = 100'000;
constexpr int64_t kBurst = 3;
constexpr size_t kPaceBytes = 16 << 10;  // worth a message at any time

class Pace {
 public:
  // Nanoseconds until what is queued may leave; 0 is now.
  int64_t delay_ns(int64_t now_ns, size_t queued_bytes, bool is_awaited) const {
    if (is_awaited || queued_bytes >= kPaceBytes)
      return 0;
    return std::max<int64_t>(0, due_ns_ - (kBurst - 1) * kPaceNs - now_ns);
  }

  void note_sent(int64_t now_ns) {
    // What had to leave at once is no debt beyond the burst.
    due_ns_ = std::min(std::max(due_ns_, now_ns) + kPaceNs, now_ns + kBurst * kPaceNs);
  }

 private:
  int64_t due_ns_ = 0;  // when messages sent evenly would leave from now on
};

}  // namespace xpool
