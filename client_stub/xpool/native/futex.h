// Waiting for a word to change, so that a signal can end the wait: condition variables go on waiting.
#pragma once
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <climits>
#include <cstdint>
#include <ctime>

namespace xpool {

enum class Woken { kChanged, kSignal, kTimeout };

// Returns when `word` is no longer `expected` (kChanged, also spuriously), a signal came, or the time is over.
inline Woken wait_for_change(std::atomic<uint32_t> &word, uint32_t expected, int timeout_ms) {
  static_assert(sizeof word == sizeof(uint32_t));
  const timespec timeout{timeout_ms / 1000, timeout_ms % 1000 * 1'000'000L};
  if (syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, expected, &timeout, nullptr, 0) == 0 || errno == EAGAIN)
    return Woken::kChanged;
  return errno == ETIMEDOUT ? Woken::kTimeout : Woken::kSignal;
}

// `word` may be gone by now, as the kernel only compares its address, or null.
inline void wake_waiters(std::atomic<uint32_t> *word) {
  if (word)
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}

}  // namespace xpool
