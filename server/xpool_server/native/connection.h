// The worker's side of an open session without I/O: which message is the next batch, and what has been acknowledged.
//
// The twin of ServerConnection (protocol/xpool_protocol/connection.py), which is the oracle. It knows by itself only
// what comes often: the very next batch, well formed. For all else, malformed bytes among it, Python
// is asked, which finds the right words; then nothing is left to acknowledge here.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace xpool_server {

constexpr size_t kHeaderBytes = 16;
// An Ack is due at the latest when so much is executed without one: a small part of any window.
constexpr uint64_t kAckBytes = 1 << 20;

class Connection {
 public:
  Connection(uint8_t version, uint64_t window) : version_(version), window_(window) {}

  // Everything up to this batch and this record is executed and acknowledged.
  void stand_at(uint64_t sequence, uint64_t operation);
  uint64_t sequence() const { return sequence_; }
  uint64_t operation() const { return operation_; }

  // The records of the next batch, if the first frame of a message of so many is that; the others are its payload.
  std::optional<std::string_view> next_batch(std::string_view frame, size_t frame_count) const;
  // The next batch, of frames of so many bytes, has been executed.
  void note_executed(size_t nbytes, uint64_t record_count);

  bool owes_ack() const { return acknowledged_ < sequence_; }
  bool must_ack() const { return unacknowledged_bytes_ >= kAckBytes; }
  // One for all that is executed.
  std::string ack();
  // What stands before the payload of the answer to a read.
  std::string read_reply(uint64_t request) const;
  // What stands before the value of an answer without payload.
  std::string reply(uint64_t request) const;

 private:
  std::string header(uint8_t kind, uint16_t frame_count, uint64_t number) const;

  const uint8_t version_;
  const uint64_t window_;
  uint64_t sequence_ = 0, operation_ = 0;
  uint64_t acknowledged_ = 0;
  uint64_t unacknowledged_bytes_ = 0;
};

}  // namespace xpool_server
