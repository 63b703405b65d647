// The client's replay and nothing else, for test_replay.py.
#include "replay.h"

using xpool::Replay;

namespace {

struct Probe {
  explicit Probe(bool with_early) : replay(requests, with_early) {}
  std::atomic<uint64_t> requests{1};
  Replay replay;
  std::string out;
};

}  // namespace

extern "C" {

Probe *probe_new(int with_early) { return new Probe(with_early); }
void probe_delete(Probe *probe) { delete probe; }

uint32_t probe_append(Probe *probe, const char *record, uint64_t nbytes) {
  return probe->replay.append({record, nbytes}, probe->out);
}
uint64_t probe_request(Probe *probe, uint64_t storage, uint64_t offset, uint64_t nbytes) {
  return probe->replay.request_for_read(storage, offset, nbytes);
}
uint64_t probe_next_request(Probe *probe) { return probe->requests++; }
void probe_flush(Probe *probe) { probe->replay.flush(probe->out); }

// What has been put out since the last time; the memory lives until the next call of any function.
const char *probe_take(Probe *probe, uint64_t *nbytes) {
  static std::string taken;
  taken = std::exchange(probe->out, {});
  *nbytes = taken.size();
  return taken.data();
}

// Abandoned requests; `to` has room for so many.
uint64_t probe_abandoned(Probe *probe, uint64_t *to, uint64_t room) {
  const auto all = probe->replay.take_abandoned();
  for (size_t i = 0; i < all.size() && i < room; i++)
    to[i] = all[i];
  return all.size();
}

void probe_counters(Probe *probe, xpool::ReplayCounters *to) { *to = probe->replay.counters(); }
}
