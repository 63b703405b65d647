// The client's end of a lane through memory that it shares with a server on its host (SPEC.md section 13): a ring of
// slots for each direction. The stream says how many bytes the next slot holds; a socket beside it that one is free.
#pragma once
#include <cstdint>

#include "streams.h"

namespace xpool {

class SharedRing {
 public:
  // Both descriptors belong to the ring from now on.
  SharedRing(int memory, int freed);
  ~SharedRing();
  SharedRing(const SharedRing &) = delete;
  SharedRing &operator=(const SharedRing &) = delete;

  // Copies into slots and says so on the stream; one thread at a time.
  End send(int stream, const char *data, uint64_t nbytes);
  // Copies out of the server's slots; one thread at a time, beside one that sends.
  End receive(int stream, char *to, uint64_t nbytes);

 private:
  End await_free_slot();

  char *memory_ = nullptr;
  const int freed_;
  uint64_t sent_ = 0, confirmed_ = 0, received_ = 0;  // slots, since the lane was opened
};

}  // namespace xpool
