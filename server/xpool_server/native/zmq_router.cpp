#include "zmq_router.h"

#include <cerrno>
#include <cstring>
#include <new>

namespace xpool_server {

namespace {

// Of zmq.h, which is not there where only pyzmq's wheel is.
constexpr int kDontWait = 1, kSendMore = 2;

constexpr size_t kMaxFrames = 256;
constexpr size_t kPeerBytes = 5;  // libzmq's own names begin with a zero

bool is_own_name(std::string_view peer) { return peer.size() == kPeerBytes && peer[0] == 0; }

}  // namespace

ZmqRouter::Arrival ZmqRouter::receive(Messages &frames) {
  frames.clear();
  size_t count = 0, nbytes = 0;
  bool is_more = true;
  while (is_more) {
    Message frame(api_);
    while (api_.msg_recv(frame.raw_, socket_, kDontWait) < 0) {
      if (errno == EAGAIN)
        return kNothing;
      if (errno != EINTR)
        return kBroken;
    }
    is_more = api_.msg_more(frame.raw_);
    if (count)
      nbytes += frame.bytes().size();
    // Frames beyond the limits are dropped at once: they can't pile up here.
    if (++count <= kMaxFrames + 1 && nbytes <= max_message_nbytes_)
      frames.push_back(std::move(frame));
  }
  const bool is_good = count > 1 && count <= kMaxFrames + 1 && nbytes <= max_message_nbytes_;
  return is_good && is_own_name(frames.front().bytes()) ? kMessage : kRefused;
}

bool ZmqRouter::send_frame(std::string_view bytes, bool is_last) {
  Message message(api_);
  if (api_.msg_init_size(message.raw_, bytes.size()))
    throw std::bad_alloc();
  if (!bytes.empty())
    memcpy(api_.msg_data(message.raw_), bytes.data(), bytes.size());
  int sent;
  do
    sent = api_.msg_send(message.raw_, socket_, is_last ? kDontWait : kDontWait | kSendMore);
  while (sent < 0 && errno == EINTR);
  return sent >= 0;
}

bool ZmqRouter::send(std::string_view peer, std::string_view first, std::string_view payload) {
  return send_frame(peer, false) && send_frame(first, payload.empty()) && (payload.empty() || send_frame(payload, true));
}

}  // namespace xpool_server
