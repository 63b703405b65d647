#include "connection.h"

#include <cstring>

#include "limits.h"
#include "reader.h"

namespace xpool_server {

namespace {

// SPEC.md sections 2, 4 and 8.
constexpr uint8_t kBatchKind = 0x02, kAckKind = 0x43, kReplyKind = 0x44;
constexpr uint8_t kMaxVersion = 1;
constexpr char kNone = 0;

struct Header {
  char magic[2];
  uint8_t version, kind;
  uint16_t flags, frame_count;
  uint64_t number;
};
static_assert(sizeof(Header) == kHeaderBytes);

void append_uvarint(std::string &to, uint64_t value) {
  for (; value >= 0x80; value >>= 7)
    to.push_back(static_cast<char>(value | 0x80));
  to.push_back(static_cast<char>(value));
}

}  // namespace

void Connection::stand_at(uint64_t sequence, uint64_t operation) {
  sequence_ = acknowledged_ = sequence;
  operation_ = operation;
  unacknowledged_bytes_ = 0;
}

std::optional<std::string_view> Connection::next_batch(std::string_view frame, size_t frame_count) const {
  if (frame.size() < kHeaderBytes || frame.size() > MAX_BODY_NBYTES)
    return std::nullopt;
  Header header;
  memcpy(&header, frame.data(), sizeof header);
  if (memcmp(header.magic, "XP", 2) || header.version < 1 || header.version > kMaxVersion ||
      header.kind != kBatchKind || header.flags || header.frame_count != frame_count || header.number != sequence_ + 1)
    return std::nullopt;
  Reader from(reinterpret_cast<const uint8_t *>(frame.data()), frame.size());
  from.go_to(kHeaderBytes);
  try {
    if (from.uvarint(UINT64_MAX) != operation_)
      return std::nullopt;
  } catch (const HandBack &) {
    return std::nullopt;
  }
  return frame.substr(from.position());
}

void Connection::note_executed(size_t nbytes, uint64_t record_count) {
  sequence_++;
  operation_ += record_count;
  unacknowledged_bytes_ += nbytes;
}

std::string Connection::header(uint8_t kind, uint16_t frame_count, uint64_t number) const {
  const Header header{{'X', 'P'}, version_, kind, 0, frame_count, number};
  return std::string(reinterpret_cast<const char *>(&header), sizeof header);
}

std::string Connection::ack() {
  acknowledged_ = sequence_;
  unacknowledged_bytes_ = 0;
  std::string frame = header(kAckKind, 1, sequence_);
  append_uvarint(frame, window_);
  return frame;
}

std::string Connection::reply(uint64_t request) const { return header(kReplyKind, 1, request); }

std::string Connection::read_reply(uint64_t request) const { return header(kReplyKind, 2, request) + kNone; }

}  // namespace xpool_server
