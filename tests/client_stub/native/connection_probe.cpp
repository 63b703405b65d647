// The native connection without I/O, for ctypes: test_connection_agrees.py gives it the facts that it gives its twin.
#include <cstring>

#include "connection.h"

using xpool::Connection;
using xpool::Frame;

struct Standing {
  uint64_t in_flight, acknowledged, window;
  int32_t has_room;
};

struct Outcome {
  int32_t kind;
  uint64_t number;
  char refusal[256];
};

extern "C" {

void *probe_new(uint8_t version, uint64_t window) { return new Connection(version, window); }
void probe_delete(Connection *connection) { delete connection; }

// Writes what stands before the records and returns its length.
uint64_t probe_batch(Connection *connection, uint64_t payload_count, uint64_t nbytes, uint64_t record_count, char *to) {
  const std::string head = connection->head(payload_count);
  memcpy(to, head.data(), head.size());
  connection->note_sent(head.size() + nbytes, record_count);
  return head.size();
}

void probe_receive(Connection *connection, const char *const *data, const uint64_t *sizes, uint64_t count,
                   Outcome *outcome) {
  std::string copies[300];  // exactly as long as the frame: a sanitizer sees every byte too many that is read
  Frame frames[300];
  for (uint64_t i = 0; i < count; i++) {
    copies[i].assign(data[i], sizes[i]);
    frames[i] = {copies[i].data(), copies[i].size()};
  }
  const xpool::Received received = connection->receive(frames, count);
  outcome->kind = received.kind;
  outcome->number = received.number;
  strncpy(outcome->refusal, received.refusal.c_str(), sizeof outcome->refusal - 1);
}

void probe_standing(const Connection *connection, Standing *standing) {
  *standing = {connection->in_flight(), connection->acknowledged(), connection->window(), connection->has_room()};
}

}  // extern "C"
