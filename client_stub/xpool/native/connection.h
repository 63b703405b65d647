// The client's side of an open session without I/O: numbers batches, keeps the byte credit, takes note of what arrives.
//
// The twin of ClientConnection (protocol/xpool_protocol/connection.py), which is the oracle: tests/client_stub/native
// gives both the same facts. It reads by itself only what comes often and needs no msgpack: Ack, Reply and Pong. All
// else, malformed bytes among it, is kOther: Python decodes it and finds the right words.
#pragma once
#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <utility>

namespace xpool {

constexpr size_t kHeaderBytes = 16;
constexpr size_t kMaxFrames = 256;

struct Frame {
  const char *data;
  size_t nbytes;
};

struct Received {
  enum Kind { kAck, kReply, kPong, kOther, kRefused } kind;
  uint64_t number = 0;  // of the batch, the request or the ping
  std::string refusal;  // with kRefused: what the peer did wrong
};

class Connection {
 public:
  Connection(uint8_t version, uint64_t window) : version_(version), window_(window) {}

  // Credit is left; one batch may overdraw it.
  bool has_room() const { return in_flight_ < window_; }
  // What stands before the records in the next batch's first frame.
  std::string head(size_t payload_count) const;
  // The next batch is on its way: all its frames count against the credit.
  void note_sent(size_t nbytes, uint64_t record_count);
  Received receive(const Frame *frames, size_t count);

  uint64_t in_flight() const { return in_flight_; }
  uint64_t acknowledged() const { return acknowledged_; }
  uint64_t window() const { return window_; }

 private:
  Received acknowledge(uint64_t sequence, uint64_t window);

  const uint8_t version_;
  uint64_t window_;
  uint64_t acknowledged_ = 0;
  uint64_t next_sequence_ = 1;
  uint64_t next_operation_ = 0;
  uint64_t in_flight_ = 0;
  std::deque<std::pair<uint64_t, uint64_t>> unacknowledged_;  // sequence, bytes
};

}  // namespace xpool
