// The worker's native connection for ctypes: test_connection_agrees.py gives it the facts that it gives its twin.
#include "connection.h"

#include <cstring>

using xpool_server::Connection;

extern "C" {

Connection *probe_new(uint8_t version, uint64_t window) { return new Connection(version, window); }
void probe_delete(Connection *connection) { delete connection; }
void probe_stand_at(Connection *connection, uint64_t sequence, uint64_t operation) {
  connection->stand_at(sequence, operation);
}

// Where the records begin in the frame; -1 if it is Python's.
int64_t probe_next_batch(const Connection *connection, const char *data, uint64_t nbytes, uint64_t frame_count) {
  const std::string copy(data, nbytes);  // exactly as long: a sanitizer sees every byte too many that is read
  const auto records = connection->next_batch(copy, frame_count);
  return records ? static_cast<int64_t>(records->data() - copy.data()) : -1;
}

void probe_note_executed(Connection *connection, uint64_t nbytes, uint64_t record_count) {
  connection->note_executed(nbytes, record_count);
}

int32_t probe_owes_ack(const Connection *connection) { return connection->owes_ack(); }
int32_t probe_must_ack(const Connection *connection) { return connection->must_ack(); }

// Both write a frame and return its length.
uint64_t probe_ack(Connection *connection, char *to) {
  const std::string frame = connection->ack();
  memcpy(to, frame.data(), frame.size());
  return frame.size();
}
uint64_t probe_read_reply(const Connection *connection, uint64_t request, char *to) {
  const std::string frame = connection->read_reply(request);
  memcpy(to, frame.data(), frame.size());
  return frame.size();
}

}  // extern "C"
