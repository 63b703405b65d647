#include "zmq_router.h"

#include <cstring>

namespace xpool_server {

namespace {

constexpr size_t kMaxFrames = 256;
constexpr size_t kPeerBytes = 5;  // libzmq's own names begin with a zero

bool is_own_name(std::string_view peer) { return peer.size() == kPeerBytes && peer[0] == 0; }

}  // namespace

ZmqRouter::Arrival ZmqRouter::receive(Messages &frames) {
  using Found = xpool_protocol::Arrival;
  const Found found = receive_message(api_, socket_, {1, kMaxFrames, max_message_nbytes_}, frames);
  if (found == Found::kNothing || found == Found::kBroken)
    return found == Found::kNothing ? kNothing : kBroken;
  const bool is_good = found == Found::kMessage && frames.size() > 1;
  return is_good && is_own_name(frames.front().bytes()) ? kMessage : kRefused;
}

bool ZmqRouter::send_frame(std::string_view bytes, bool is_last) {
  Message message(api_);
  message.make_room(bytes.size());
  if (!bytes.empty())
    memcpy(message.data(), bytes.data(), bytes.size());
  return message.send(socket_, is_last);
}

bool ZmqRouter::send(std::string_view peer, std::string_view first, std::string_view payload) {
  return send_frame(peer, false) && send_frame(first, payload.empty()) && (payload.empty() || send_frame(payload, true));
}

}  // namespace xpool_server
