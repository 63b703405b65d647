// Storages on the server under addresses that are only names, and the ledger of the slice's memory.
#include "remote.h"

#include <c10/util/Exception.h>

namespace xpool {

namespace {

std::atomic<uint64_t> next_address{1ull << 60};  // not canonical on x86-64 or arm64: touching it faults at once
std::atomic<uint64_t> allocated{0}, peak{0}, quota{~0ull}, allocation_count{0};

uint64_t charged_bytes(uint64_t nbytes) {
  return (std::max<uint64_t>(nbytes, 1) + kGranule - 1) / kGranule * kGranule;
}

void charge(uint64_t nbytes) {
  const uint64_t limit = quota;
  uint64_t before = allocated;
  do {
    if (nbytes > limit || before > limit - nbytes) {
      C10_THROW_ERROR(OutOfMemoryError,
                      c10::str("CUDA out of memory. Tried to allocate ", nbytes, " bytes on the slice; its quota is ",
                               limit, " bytes, of which ", before,
                               " are allocated. Ask for more with `xpool run --memory`"));
    }
  } while (!allocated.compare_exchange_weak(before, before + nbytes));
  uint64_t highest = peak;
  while (highest < before + nbytes && !peak.compare_exchange_weak(highest, before + nbytes)) {
  }
  allocation_count++;
}

void release(void *context) {
  auto *name = static_cast<StorageName *>(context);
  if (!is_forked()) {
    allocated -= name->charged;
    if (name->is_known) {
      Bytes record;
      record.uint8(kFree);
      record.uvarint(name->id);
      Log::instance().append(record);
    }
  }
  delete name;
}

c10::DataPtr named(uint64_t id, uint64_t nbytes, bool is_known) {
  const uint64_t charged = charged_bytes(nbytes);
  charge(charged);
  auto *name = new StorageName{id, charged, is_known};
  auto *address = reinterpret_cast<void *>(next_address.fetch_add(charged));
  return {address, name, &release, remote_device()};
}

struct RemoteAllocator final : c10::Allocator {
  explicit RemoteAllocator(bool is_recorded) : is_recorded_(is_recorded) {}
  c10::DataPtr allocate(size_t nbytes) override {
    leave_room();
    const uint64_t id = Log::instance().next_storage();
    auto data = named(id, nbytes, is_recorded_);
    if (is_recorded_) {
      Bytes record;
      record.uint8(kAllocate);
      record.uvarint(id);
      record.uvarint(nbytes);
      Log::instance().append(record);
    }
    return data;
  }
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }  // the context is not the address
  void copy_data(void *, const void *, std::size_t) const override {
    TORCH_CHECK(false, "xpool: bytes of a remote storage can't be copied by address");
  }

 private:
  bool is_recorded_;
};

}  // namespace

c10::Allocator *storage_allocator() {
  static RemoteAllocator allocator(true);
  return &allocator;
}

c10::Allocator *result_allocator() {
  static RemoteAllocator allocator(false);
  return &allocator;
}

c10::DataPtr adopt_storage(uint64_t id, uint64_t nbytes) { return named(id, nbytes, true); }

void recharge(const c10::Storage &storage, uint64_t nbytes) {
  auto *name = static_cast<StorageName *>(storage.data_ptr().get_context());
  const uint64_t charged = charged_bytes(nbytes);
  if (charged > name->charged) {
    const uint64_t now = allocated += charged - name->charged;  // the server has found room for it
    name->charged = charged;
    uint64_t highest = peak;
    while (highest < now && !peak.compare_exchange_weak(highest, now)) {
    }
  }
  storage.unsafeGetStorageImpl()->set_nbytes(nbytes);
}

void mark_known(const c10::Storage &storage) {
  static_cast<StorageName *>(storage.data_ptr().get_context())->is_known = true;
}

uint64_t storage_id(const c10::Storage &storage) {
  auto *name = static_cast<StorageName *>(storage.data_ptr().get_context());
  if (!name) {  // a storage made empty by hand: it has no name yet
    auto *impl = storage.unsafeGetStorageImpl();
    impl->set_data_ptr_noswap(storage_allocator()->allocate(storage.nbytes()));
    name = static_cast<StorageName *>(storage.data_ptr().get_context());
  }
  return name->id;
}

MemoryCounters memory_counters() { return {allocated, peak, quota, allocation_count}; }
void set_memory_quota(uint64_t nbytes) { quota = nbytes; }
void reset_peak_memory() { peak = allocated.load(); }

}  // namespace xpool
