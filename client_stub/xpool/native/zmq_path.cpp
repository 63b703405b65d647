#include "zmq_path.h"

#include <cstring>
#include <ctime>

namespace xpool {

constexpr uint16_t kEventDisconnected = 0x0200;  // of zmq.h, which is not there where only pyzmq's wheel is

bool ZmqPath::send(const std::string &first, const std::string &more,
                   const std::vector<std::pair<char *, size_t>> &payloads) {
  Message head(api_);
  head.make_room(first.size() + more.size());
  memcpy(head.data(), first.data(), first.size());
  memcpy(head.data() + first.size(), more.data(), more.size());
  // Every payload is given away before any can fail, so that each has one owner.
  Messages frames;
  frames.reserve(payloads.size());
  for (const auto &[data, nbytes] : payloads)
    frames.emplace_back(api_).take(data, nbytes);
  if (!head.send(sockets_.socket, frames.empty()))
    return false;
  for (size_t i = 0; i < frames.size(); i++)
    if (!frames[i].send(sockets_.socket, i + 1 == frames.size()))
      return false;
  return true;
}

Arrival ZmqPath::receive(Messages &frames) {
  return receive_message(api_, sockets_.socket, {0, kMaxFrames, sockets_.max_message_nbytes}, frames);
}

bool ZmqPath::is_disconnected() {
  bool is_gone = false;
  while (true) {
    Message event(api_);  // a frame of event (16 bits) and value, then one with the address
    if (!event.receive(sockets_.monitor))
      return is_gone;
    uint16_t number = 0;
    if (event.has_more() && event.size() >= sizeof number) {
      memcpy(&number, event.data(), sizeof number);
      is_gone = is_gone || number == kEventDisconnected;
    }
  }
}

ZmqPath::Woken ZmqPath::wait(int other, int64_t timeout_ns) const {
  pollfd fds[] = {{sockets_.socket_fd, POLLIN, 0}, {sockets_.monitor_fd, POLLIN, 0}, {other, POLLIN, 0}};
  const timespec timeout{timeout_ns / 1'000'000'000, timeout_ns % 1'000'000'000};
  if (::ppoll(fds, 3, timeout_ns < 0 ? nullptr : &timeout, nullptr) <= 0)
    return kNobody;
  return fds[2].revents ? kOther : kPath;
}

}  // namespace xpool
