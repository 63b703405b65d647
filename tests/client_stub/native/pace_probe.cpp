// The native pace for ctypes: test_pace_agrees.py gives it the facts that it gives its twin.
#include "pace.h"

using xpool::Pace;

extern "C" {

Pace *probe_new() { return new Pace(); }
void probe_delete(Pace *pace) { delete pace; }
int64_t probe_delay_ns(const Pace *pace, int64_t now_ns, uint64_t queued_bytes, int32_t is_awaited) {
  return pace->delay_ns(now_ns, queued_bytes, is_awaited);
}
void probe_note_sent(Pace *pace, int64_t now_ns, int32_t is_awaited) { pace->note_sent(now_ns, is_awaited); }

}  // extern "C"
