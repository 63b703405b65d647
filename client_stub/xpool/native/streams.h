// Moving bytes over a stream while signals come.
#pragma once
#include <cstdint>

namespace xpool {

enum class End { kDone, kBroken, kInterrupted };

// All of them or an end that says why not. A signal ends the wait only if the stream stands still.
End send_all(int fd, const void *data, uint64_t nbytes, int flags = 0);
End receive_all(int fd, void *to, uint64_t nbytes);
// At least one byte and at most so many; how many is in `count`.
End receive_some(int fd, void *to, uint64_t nbytes, uint64_t &count);

}  // namespace xpool
