// The native stall for ctypes: test_stalls_agree.py gives it the facts that it gives its twin.
#include "stall.h"

#include <cstring>

using xpool::Stall;

extern "C" {

Stall *probe_new(uint64_t sent_bytes, int64_t now_ns) { return new Stall(sent_bytes, now_ns); }
void probe_delete(Stall *stall) { delete stall; }
void probe_notice(Stall *stall, uint64_t sent_bytes, uint64_t queued_bytes, int64_t now_ns, char *to, size_t room) {
  const std::string said = stall->notice(sent_bytes, queued_bytes, now_ns);
  strncpy(to, said.c_str(), room);
}

}  // extern "C"
