#include "streams.h"

#include <poll.h>
#include <sys/socket.h>

#include <cerrno>

namespace xpool {
namespace {

constexpr int kPatienceMs = 500;  // after a signal: how long a stream may stand still before the wait ends

// Waits until the stream can go on. A signal ends the wait only if the stream stands still.
End await_stream(int fd, short events, bool &is_interrupted) {
  while (true) {
    pollfd one{fd, events, 0};
    const int ready = poll(&one, 1, is_interrupted ? kPatienceMs : -1);
    if (ready > 0)
      return End::kDone;
    if (ready == 0)
      return End::kInterrupted;
    if (errno != EINTR)
      return End::kBroken;
    is_interrupted = true;
  }
}

template <class Move>
End move_all(int fd, short events, uint64_t nbytes, Move move) {
  bool is_interrupted = false;
  for (uint64_t at = 0; at < nbytes;) {
    const ssize_t count = move(at, nbytes - at);
    if (count > 0) {
      at += count;
    } else if (count == 0) {
      return End::kBroken;
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      const End end = await_stream(fd, events, is_interrupted);
      if (end != End::kDone)
        return end;
    } else if (errno == EINTR) {
      is_interrupted = true;
    } else {
      return End::kBroken;
    }
  }
  return End::kDone;
}

}  // namespace

End send_all(int fd, const void *data, uint64_t nbytes, int flags) {
  return move_all(fd, POLLOUT, nbytes, [&](uint64_t at, uint64_t left) {
    return send(fd, static_cast<const char *>(data) + at, left, MSG_NOSIGNAL | MSG_DONTWAIT | flags);
  });
}

End receive_all(int fd, void *to, uint64_t nbytes) {
  return move_all(fd, POLLIN, nbytes, [&](uint64_t at, uint64_t left) {
    return recv(fd, static_cast<char *>(to) + at, left, MSG_DONTWAIT);
  });
}

End receive_some(int fd, void *to, uint64_t nbytes, uint64_t &count) {
  count = 0;
  return move_all(fd, POLLIN, 1, [&](uint64_t, uint64_t) {
    const ssize_t got = recv(fd, to, nbytes, MSG_DONTWAIT);
    if (got > 0)
      count = got;
    return got;
  });
}

}  // namespace xpool
