#include "shared_ring.h"

#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

namespace xpool {
namespace {

// As in xpool_protocol/lane.py.
constexpr uint64_t kSlotBytes = 1 << 20, kSlots = 4, kMemoryBytes = 2 * kSlots * kSlotBytes;
constexpr char kFreed = '.';

uint64_t slot_at(uint64_t number) { return number % kSlots * kSlotBytes; }

}  // namespace

SharedRing::SharedRing(int memory, int freed) : freed_(freed) {
  void *address = mmap(nullptr, kMemoryBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, memory, 0);
  if (address != MAP_FAILED)
    memory_ = static_cast<char *>(address);
  close(memory);
}

SharedRing::~SharedRing() {
  if (memory_)
    munmap(memory_, kMemoryBytes);
  close(freed_);
}

End SharedRing::await_free_slot() {
  while (sent_ - confirmed_ >= kSlots) {
    char told[kSlots];
    uint64_t count;
    const End end = receive_some(freed_, told, sizeof told, count);
    if (end != End::kDone)
      return end;
    confirmed_ += count;
  }
  return End::kDone;
}

End SharedRing::send(int stream, const char *data, uint64_t nbytes) {
  if (!memory_)
    return End::kBroken;
  for (uint64_t at = 0; at < nbytes; at += kSlotBytes) {
    if (const End end = await_free_slot(); end != End::kDone)
      return end;
    const auto count = static_cast<uint32_t>(std::min(kSlotBytes, nbytes - at));
    memcpy(memory_ + slot_at(sent_++), data + at, count);
    if (const End end = send_all(stream, &count, sizeof count); end != End::kDone)
      return end;
  }
  return End::kDone;
}

End SharedRing::receive(int stream, char *to, uint64_t nbytes) {
  if (!memory_)
    return End::kBroken;
  for (uint64_t at = 0; at < nbytes;) {
    uint32_t count;
    if (const End end = receive_all(stream, &count, sizeof count); end != End::kDone)
      return end;
    if (count == 0 || count > kSlotBytes || count > nbytes - at)
      return End::kBroken;
    memcpy(to + at, memory_ + kSlots * kSlotBytes + slot_at(received_++), count);
    at += count;
    if (const End end = send_all(freed_, &kFreed, 1); end != End::kDone)
      return end;
  }
  return End::kDone;
}

}  // namespace xpool
