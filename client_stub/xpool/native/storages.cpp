// Storages on the server under addresses that are only names, and the ledger of the slice's memory.
#include "addresses.h"
#include "ahead.h"
#include "at_fork.h"
#include "capture.h"

#include <c10/util/Exception.h>

#include <mutex>
#include <unordered_map>

namespace xpool {

namespace {

std::atomic<uint64_t> next_address{1ull << 60};  // not canonical on x86-64 or arm64: touching it faults at once

void raise_to(std::atomic<uint64_t> &highest, uint64_t value) {
  uint64_t known = highest;
  while (known < value && !highest.compare_exchange_weak(known, value)) {
  }
}

}  // namespace

// Whether to look for room once more; may take its time. Null: never.
int32_t (*on_out_of_memory)(int32_t device, uint64_t nbytes, uint32_t attempt) = nullptr;

namespace {

struct Ledger {  // of one device's slice
  std::atomic<uint64_t> allocated{0}, peak{0}, quota{~0ull}, allocation_count{0};
  std::atomic<uint64_t> allocated_total{0}, released_count{0}, peak_count{0}, refused_count{0};
};
std::array<Ledger, kMaxDevices> ledgers;

uint64_t charged_bytes(uint64_t nbytes) {
  return (std::max<uint64_t>(nbytes, 1) + kGranule - 1) / kGranule * kGranule;
}

void charge(Ledger &ledger, uint64_t nbytes) {
  uint64_t limit = ledger.quota;
  uint64_t before = ledger.allocated;
  uint32_t attempt = 0;
  while (true) {
    if (nbytes <= limit && before <= limit - nbytes) {
      if (ledger.allocated.compare_exchange_weak(before, before + nbytes))
        break;
    } else if (Ahead::of(static_cast<int>(&ledger - ledgers.data())).drop()) {  // nobody has asked for that yet
      before = ledger.allocated;
    } else if (on_out_of_memory &&
               on_out_of_memory(static_cast<int32_t>(&ledger - ledgers.data()), nbytes, attempt++)) {
      limit = ledger.quota;  // there may be room by now
      before = ledger.allocated;
    } else {
      ledger.refused_count++;
      C10_THROW_ERROR(OutOfMemoryError,
                      c10::str("CUDA out of memory. Tried to allocate ", nbytes, " bytes on the slice; its quota is ",
                               limit, " bytes, of which ", before,
                               " are allocated. Ask for more with `xpool run --memory`"));
    }
  }
  raise_to(ledger.peak, before + nbytes);
  ledger.allocated_total += nbytes;
  raise_to(ledger.peak_count, ++ledger.allocation_count - ledger.released_count);
}

// The storage's tensors are gone.
void release(void *context) {
  auto *name = static_cast<StorageName *>(context);
  if (name->born && !is_forked()) {
    std::lock_guard<std::mutex> lock(captures_mutex());
    if (Capture *capture = name->born.exchange(nullptr))
      capture->note_end(name);
  }
  drop_storage(name);
}

c10::DataPtr named(int device, uint64_t id, uint64_t nbytes, bool is_known) {
  const uint64_t charged = charged_bytes(nbytes);
  charge(ledgers[device], charged);
  auto *name = new StorageName{device, id, charged, is_known, nbytes};
  auto *address = reinterpret_cast<void *>(next_address.fetch_add(charged));
  return {address, name, &release, remote_device(device)};
}

struct RemoteAllocator final : c10::Allocator {
  RemoteAllocator(int device, bool is_recorded) : device_(device), is_recorded_(is_recorded) {}
  c10::DataPtr allocate(size_t nbytes) override {
    const int device = device_ < 0 ? current_device() : device_;
    leave_room(device);
    Log &log = Log::of(device);
    const uint64_t id = log.next_storage();
    Capture *capture = capturing(device);
    auto data = named(device, id, nbytes, is_recorded_ && !capture);
    auto *name = static_cast<StorageName *>(data.get_context());
    if (capture) {
      capture->note_birth(name);
      if (is_recorded_)
        capture->append_allocate(name, nbytes);
    } else if (is_recorded_) {
      Bytes record;
      record.uint8(kAllocate);
      record.uvarint(id);
      record.uvarint(nbytes);
      log.append(record);
    }
    return data;
  }
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }  // the context is not the address
  void copy_data(void *, const void *, std::size_t) const override {
    TORCH_CHECK(false, "xpool: bytes of a remote storage can't be copied by address");
  }

 private:
  const int device_;  // -1: the current one
  const bool is_recorded_;
};

// One for each device, and one for the current device at the end.
c10::Allocator *allocator(int device, bool is_recorded) {
  static auto *all = [] {
    auto *made = new std::vector<RemoteAllocator *>;
    for (int i = 0; i <= kMaxDevices; i++)
      for (const bool recorded : {false, true})
        made->push_back(new RemoteAllocator(i < kMaxDevices ? i : -1, recorded));
    return made;
  }();
  return (*all)[2 * device + is_recorded];
}

}  // namespace

void drop_storage(StorageName *name) {
  if (--name->keepers > 0)
    return;
  if (name->is_gone)
    *name->is_gone = true;
  if (!is_forked()) {
    ledgers[name->device].allocated -= name->charged;
    ledgers[name->device].released_count++;
    if (name->is_known) {
      Bytes record;
      record.uint8(kFree);
      record.uvarint(name->id);
      Log::of(name->device).append(record);
    }
  }
  delete name;
}

c10::Allocator *storage_allocator(int device) { return allocator(device, true); }
c10::Allocator *result_allocator(int device) { return allocator(device, false); }
c10::Allocator *current_allocator() { return allocator(kMaxDevices, true); }

c10::DataPtr adopt_storage(int device, uint64_t id, uint64_t nbytes) { return named(device, id, nbytes, true); }

// A storage whose memory is charged elsewhere: an array's, which a later record names.
c10::DataPtr share_storage(int device, uint64_t id, uint64_t nbytes) {
  ledgers[device].allocation_count++;  // its end counts, too
  auto *name = new StorageName{device, id, 0, true, nbytes};
  auto *address = reinterpret_cast<void *>(next_address.fetch_add(charged_bytes(nbytes)));
  return {address, name, &release, remote_device(device)};
}

// ---- bare addresses: some of torch asks its CUDA allocator directly, and that knows no contexts

namespace {

std::mutex addresses_mutex;
const bool addresses_survive = survives_fork<addresses_mutex>();

std::unordered_map<const void *, StorageName *> &addresses() {
  static auto *all = new std::unordered_map<const void *, StorageName *>;
  return *all;
}

}  // namespace

StorageName *storage_name(const c10::Storage &storage) {
  const c10::DataPtr &data = storage.data_ptr();
  if (data.get_deleter() == &release || !data.get_context())
    return static_cast<StorageName *>(data.get_context());
  std::lock_guard<std::mutex> lock(addresses_mutex);
  const auto found = addresses().find(data.get());
  TORCH_CHECK(found != addresses().end(),
              "xpool: this tensor lies over an address that other code has given, not over memory of the pool");
  return found->second;
}

void *allocate_address(int device, uint64_t nbytes) {
  c10::DataPtr data = storage_allocator(device)->allocate(nbytes);
  void *address = data.get();
  std::lock_guard<std::mutex> lock(addresses_mutex);
  addresses()[address] = static_cast<StorageName *>(data.release_context());
  return address;
}

void free_address(void *address) {
  StorageName *name = nullptr;
  {
    std::lock_guard<std::mutex> lock(addresses_mutex);
    const auto found = addresses().find(address);
    if (found == addresses().end())
      return;
    name = found->second;
    addresses().erase(found);
  }
  release(name);
}

void recharge(const c10::Storage &storage, uint64_t nbytes) {
  auto *name = storage_name(storage);
  const uint64_t charged = charged_bytes(nbytes);
  if (charged > name->charged) {
    Ledger &ledger = ledgers[name->device];
    ledger.allocated_total += charged - name->charged;
    raise_to(ledger.peak, ledger.allocated += charged - name->charged);  // the server has found room for it
    name->charged = charged;
  }
  storage.unsafeGetStorageImpl()->set_nbytes(nbytes);
}

void mark_known(const c10::Storage &storage) {
  auto *name = storage_name(storage);
  if (Capture *capture = name->born)
    capture->note_made(name);
  else
    name->is_known = true;
}

uint64_t storage_id(const c10::Storage &storage) {
  auto *name = storage_name(storage);
  if (!name) {  // a storage made empty by hand: it has no name yet
    auto *impl = storage.unsafeGetStorageImpl();
    impl->set_data_ptr_noswap(storage_allocator(storage.device().index())->allocate(storage.nbytes()));
    name = storage_name(storage);
  }
  Capture *capture = capturing(name->device);
  return capture ? capture->number(name) : name->id;
}

MemoryCounters memory_counters(int device) {
  const Ledger &of = ledgers[device];
  return {of.allocated,       of.peak,           of.quota,      of.allocation_count,
          of.allocated_total, of.released_count, of.peak_count, of.refused_count};
}
void set_memory_quota(int device, uint64_t nbytes) { ledgers[device].quota = nbytes; }
void reset_peak_memory(int device) {
  Ledger &ledger = ledgers[device];
  ledger.peak = ledger.allocated.load();
  ledger.peak_count = ledger.allocation_count - ledger.released_count;
}
void charge_for_a_moment(int device, uint64_t nbytes) {
  if (nbytes == 0)
    return;
  charge(ledgers[device], nbytes);
  ledgers[device].allocated -= nbytes;
  ledgers[device].released_count++;
}

}  // namespace xpool
