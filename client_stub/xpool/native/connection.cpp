#include "connection.h"

#include <cstring>

#include "bytes.h"

namespace xpool {

namespace {

// SPEC.md sections 2 and 8.
constexpr uint8_t kBatchKind = 0x02, kAckKind = 0x43, kReplyKind = 0x44, kPongKind = 0x47;
constexpr uint8_t kMaxVersion = 1;
constexpr size_t kMaxFrameBytes = 16 << 20, kMaxBodyBytes = 8 << 20, kMaxMessageBytes = 96 << 20;
constexpr uint64_t kMinWindow = 32 << 20;

struct Header {
  char magic[2];
  uint8_t version, kind;
  uint16_t flags, frame_count;
  uint64_t number;
};
static_assert(sizeof(Header) == kHeaderBytes);

// False for anything that Python has to look at.
bool read_header(const Frame *frames, size_t count, Header &header) {
  if (count < 1 || count > kMaxFrames || frames[0].nbytes < kHeaderBytes || frames[0].nbytes > kMaxBodyBytes)
    return false;
  memcpy(&header, frames[0].data, sizeof header);
  size_t total = frames[0].nbytes;
  for (size_t i = 1; i < count; i++) {
    if (frames[i].nbytes > kMaxFrameBytes)
      return false;
    total += frames[i].nbytes;
  }
  const bool is_version_known = (header.version >= 1 && header.version <= kMaxVersion) || header.kind == kPongKind;
  return !memcmp(header.magic, "XP", 2) && is_version_known && !header.flags && header.frame_count == count &&
         total <= kMaxMessageBytes;
}

// One uvarint that fills the bytes exactly and has the shortest form.
bool read_only_uvarint(const char *data, size_t nbytes, uint64_t &value) {
  BytesReader reader(data, nbytes);
  value = reader.uvarint();
  return reader.ok && reader.exhausted() && (nbytes == 1 || data[nbytes - 1] != 0);
}

Received refused(std::string why) { return {Received::kRefused, 0, std::move(why)}; }

}  // namespace

std::string Connection::head(size_t payload_count) const {
  const Header header{{'X', 'P'}, version_, kBatchKind, 0, static_cast<uint16_t>(1 + payload_count), next_sequence_};
  Bytes head;
  head.raw(&header, sizeof header);
  head.uvarint(next_operation_);
  return std::string(head.str());
}

void Connection::note_sent(size_t nbytes, uint64_t record_count) {
  unacknowledged_.emplace_back(next_sequence_, nbytes);
  in_flight_ += nbytes;
  next_sequence_++;
  next_operation_ += record_count;
}

Received Connection::receive(const Frame *frames, size_t count) {
  Header header;
  if (!read_header(frames, count, header))
    return {Received::kOther};
  const char *body = frames[0].data + kHeaderBytes;
  const size_t body_nbytes = frames[0].nbytes - kHeaderBytes;
  if (header.kind == kReplyKind)
    return {Received::kReply, header.number};
  if (header.kind == kPongKind && count == 1 && !body_nbytes)
    return {Received::kPong, header.number};
  uint64_t window;
  if (header.kind == kAckKind && count == 1 && read_only_uvarint(body, body_nbytes, window))
    return acknowledge(header.number, window);
  return {Received::kOther};
}

Received Connection::acknowledge(uint64_t sequence, uint64_t window) {
  using std::to_string;
  if (sequence < acknowledged_ || sequence >= next_sequence_)
    return refused("Ack of batch " + to_string(sequence) + ": batches up to " + to_string(acknowledged_) +
                   " are acknowledged, up to " + to_string(next_sequence_ - 1) + " were sent");
  if (window < kMinWindow)
    return refused("a window of " + to_string(window) + " bytes cannot hold one batch");
  if (window < window_)  // what is in flight was sent against the larger one
    return refused("the window shrank from " + to_string(window_) + " to " + to_string(window) + " bytes");
  window_ = window;
  acknowledged_ = sequence;
  while (!unacknowledged_.empty() && unacknowledged_.front().first <= sequence) {
    in_flight_ -= unacknowledged_.front().second;
    unacknowledged_.pop_front();
  }
  return {Received::kAck, sequence};
}

}  // namespace xpool
