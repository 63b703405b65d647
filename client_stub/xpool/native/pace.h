// When a log's records leave: small messages are gathered while the program streams, and nothing waits that somebody
// waits for. Decides by its arguments alone; the twin of xpool/pace.py.
//
// A message costs both ends tens of microseconds whatever it holds, and a program that streams makes a record every few
// of them. So after a burst of a few messages they are spaced out (the generic cell rate algorithm): by `kPaceNs`, and
// by an eighth of the time for which the stream has run as that grows, up to `kMostNs`. A device that has nothing to do
// gets its first records at once, and later ones late by so much at most, which no distance makes longer. A stream
// begins anew after a pause of `kPauseNs`, and after what somebody waits for, as the device rests then.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace xpool {

constexpr int64_t kPaceNs = 100'000;
constexpr int64_t kMostNs = 400'000;
constexpr int64_t kAgeShare = 8;
constexpr int64_t kBurst = 3;
constexpr int64_t kPauseNs = 5'000'000;
constexpr size_t kPaceBytes = 16 << 10;  // worth a message at any time

class Pace {
 public:
  // Nanoseconds until what is queued may leave; 0 is now.
  int64_t delay_ns(int64_t now_ns, size_t queued_bytes, bool is_awaited) const {
    if (is_awaited || queued_bytes >= kPaceBytes)
      return 0;
    return std::max<int64_t>(0, due_ns_ - kAheadNs - now_ns);
  }

  void note_sent(int64_t now_ns, bool is_awaited) {
    if (is_awaited || now_ns >= due_ns_ + kPauseNs)
      began_ns_ = now_ns;
    const int64_t space_ns = std::clamp((now_ns - began_ns_) / kAgeShare, kPaceNs, kMostNs);
    // What had to leave at once is no debt beyond the burst.
    due_ns_ = std::min(std::max(due_ns_, now_ns), now_ns + kAheadNs) + space_ns;
  }

 private:
  static constexpr int64_t kAheadNs = (kBurst - 1) * kPaceNs;

  int64_t began_ns_ = 0;  // the stream
  int64_t due_ns_ = 0;    // when messages sent evenly would leave from now on
};

}  // namespace xpool
