// Loaded before `import torch`, which caches the hooks: guard, hooks, generators, pinned memory and the allocators.
#include "remote.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/util/Exception.h>

#include <dlfcn.h>
#include <pthread.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <mutex>
#include <unordered_set>

namespace xpool {

Callbacks callbacks;

// ---- asking the server

static std::atomic<bool> forked{false};

static std::atomic<const std::string *> over{nullptr};

void end_session(const char *text) {
  const std::string *expected = nullptr, *reason = new std::string(text);  // kept: other threads may be reading it
  if (!over.compare_exchange_strong(expected, reason))
    delete reason;
}

void check_usable() {
  // After the interpreter's exit handlers a daemon thread must not come back to report errors: it waits for the end.
  if (Log::instance().closed() && !forked && callbacks.wait_for_room)
    callbacks.wait_for_room();
  TORCH_CHECK(!forked, "Cannot re-initialize CUDA in forked subprocess. To use CUDA with multiprocessing, you must use "
                       "the 'spawn' start method");
  if (const std::string *reason = over)
    C10_THROW_ERROR(Error, *reason);
  TORCH_CHECK(!Log::instance().closed(), "xpool: the session is closed; no remote operation can run any more");
}

void leave_room() {
  check_usable();
  if (Log::instance().queued_bytes() > kTransferBytes && callbacks.wait_for_room)
    callbacks.wait_for_room();
}

[[noreturn]] static void raise(const Answer &answer) {
  const std::string kind = answer.exception ? answer.exception : "", text = answer.text ? answer.text : "";
  if (kind == "IndexError")
    C10_THROW_ERROR(IndexError, text);
  if (kind == "ValueError")
    C10_THROW_ERROR(ValueError, text);
  if (kind == "TypeError")
    C10_THROW_ERROR(TypeError, text);
  if (kind == "NotImplementedError")
    C10_THROW_ERROR(NotImplementedError, text);
  if (kind == "OutOfMemoryError")
    C10_THROW_ERROR(OutOfMemoryError, text);
  if (kind == "LinAlgError")
    C10_THROW_ERROR(LinAlgError, text);
  C10_THROW_ERROR(Error, text);
}

static void deliver_again(int signal) {
  using Deliver = int (*)(int);
  static const auto deliver = reinterpret_cast<Deliver>(dlsym(RTLD_DEFAULT, "PyErr_SetInterruptEx"));
  if (deliver && signal)
    deliver(signal);
}

Answer await(uint64_t request) {
  check_usable();
  TORCH_CHECK(callbacks.request, "xpool: no session is open; run the program with `xpool run`, or call xpool.init()");
  Answer answer;
  callbacks.request(request, &answer);
  // A signal handler raised while Python waited, inside a callback from which nothing can be raised. The signal is
  // delivered again, to be handled as soon as the error below has ended this call.
  if (answer.status == 3)
    deliver_again(answer.signal);
  if (answer.status != 0)
    raise(answer);
  return answer;
}

void read_storage(uint64_t storage, uint64_t offset, char *to, uint64_t nbytes) {
  std::vector<uint64_t> requests;
  std::vector<uint64_t> lengths;
  for (uint64_t at = 0; at < nbytes; at += kTransferBytes) {
    const uint64_t length = std::min<uint64_t>(kTransferBytes, nbytes - at);
    requests.push_back(Log::instance().next_request());
    lengths.push_back(length);
    Bytes record;
    record.uint8(kRead);
    record.uvarint(requests.back());
    record.uvarint(storage);
    record.uvarint(offset + at);
    record.uvarint(length);
    Log::instance().append(record);
  }
  for (size_t i = 0; i < requests.size(); i++) {
    const Answer answer = await(requests[i]);
    uint64_t got = 0;
    for (uint64_t k = 0; k < answer.payload_count; k++) {
      TORCH_CHECK(answer.payload_nbytes[k] <= lengths[i] - got, "xpool: the server sent more bytes than were asked for");
      memcpy(to + got, answer.payloads[k], answer.payload_nbytes[k]);
      got += answer.payload_nbytes[k];
    }
    TORCH_CHECK(got == lengths[i], "xpool: the server sent ", got, " bytes where ", lengths[i], " were asked for");
    to += got;
  }
}

// ---- storages

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
  if (!forked) {
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

// ---- pinned host memory: ordinary, but remembered

namespace {

std::mutex pinned_mutex;

std::unordered_set<const void *> &pinned() {
  static auto *addresses = new std::unordered_set<const void *>;
  return *addresses;
}

struct PinnedAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t nbytes) override {
    void *address = nullptr;
    TORCH_CHECK(posix_memalign(&address, 64, nbytes ? nbytes : 1) == 0, "out of host memory");
    std::lock_guard<std::mutex> lock(pinned_mutex);
    pinned().insert(address);
    return {address, address, &release_pinned, c10::Device(c10::kCPU)};
  }
  static void release_pinned(void *address) {
    {
      std::lock_guard<std::mutex> lock(pinned_mutex);
      pinned().erase(address);
    }
    free(address);
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release_pinned; }
  void copy_data(void *to, const void *from, std::size_t nbytes) const override { memcpy(to, from, nbytes); }
};

PinnedAllocator pinned_allocator;

// ---- guard: this thread's device and stream. Everything runs in one order, so streams and events only have names.

thread_local int current_device_index = 0;
thread_local int64_t current_stream_id = 0;

struct Moment {  // what an event holds: when it was recorded, as this client saw it
  std::chrono::steady_clock::time_point at;
};

struct RemoteGuard final : c10::impl::DeviceGuardImplInterface {
  static c10::Stream stream(c10::Device device, int64_t id) {
    const int index = device.has_index() ? device.index() : current_device_index;
    return c10::Stream(c10::Stream::UNSAFE, remote_device(index), id);
  }
  c10::DeviceType type() const override { return kRemote; }
  c10::Device exchangeDevice(c10::Device device) const override {
    const auto before = remote_device(current_device_index);
    setDevice(device);
    return before;
  }
  c10::Device getDevice() const override { return remote_device(current_device_index); }
  void setDevice(c10::Device device) const override {
    TORCH_CHECK(device.index() < 1, "CUDA error: invalid device ordinal");
    if (device.has_index())
      current_device_index = device.index();
  }
  void uncheckedSetDevice(c10::Device device) const noexcept override {
    if (device.has_index())
      current_device_index = device.index();
  }
  c10::Stream getStream(c10::Device device) const override { return stream(device, current_stream_id); }
  c10::Stream getDefaultStream(c10::Device device) const override { return stream(device, 0); }
  c10::Stream getStreamFromGlobalPool(c10::Device device, bool) const override { return getNewStream(device, 0); }
  c10::Stream getNewStream(c10::Device device, int) const override {
    static std::atomic<int64_t> next{1};
    return stream(device, next++);
  }
  c10::Stream exchangeStream(c10::Stream stream_now) const override {
    const auto before = current_stream_id;
    current_stream_id = stream_now.id();
    return stream(stream_now.device(), before);
  }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
  void record(void **event, const c10::Stream &, const c10::DeviceIndex, const c10::EventFlag) const override {
    if (!*event)
      *event = new Moment;
    static_cast<Moment *>(*event)->at = std::chrono::steady_clock::now();
  }
  void block(void *, const c10::Stream &) const override {}
  bool queryEvent(void *) const override { return true; }
  void destroyEvent(void *event, const c10::DeviceIndex) const noexcept override {
    delete static_cast<Moment *>(event);
  }
  bool queryStream(const c10::Stream &) const override { return true; }
  bool isStreamCapturing(const c10::Stream &) const override { return false; }
  void synchronizeStream(const c10::Stream &) const override { fence(); }
  void synchronizeEvent(void *) const override { fence(); }
  void synchronizeDevice(const c10::DeviceIndex) const override { fence(); }
  void recordDataPtrOnStream(const c10::DataPtr &, const c10::Stream &) const override {}
  double elapsedTime(void *begin, void *end, const c10::DeviceIndex) const override {
    TORCH_CHECK(begin && end, "Both events must be recorded before calculating elapsed time.");
    return std::chrono::duration<double, std::milli>(static_cast<Moment *>(end)->at - static_cast<Moment *>(begin)->at)
        .count();
  }

  static void fence() {
    const uint64_t request = Log::instance().next_request();
    Bytes record;
    record.uint8(kFence);
    record.uvarint(request);
    Log::instance().append(record);
    await(request);
  }
};

RemoteGuard remote_guard;

thread_local bool next_generator_is_default = false;

const at::Generator &default_generator() {
  static auto *generator = new at::Generator(at::make_generator<RemoteGenerator>(0));
  return *generator;
}

// ---- hooks: what makes at::getAccelerator() answer CUDA

struct RemoteHooks final : at::CUDAHooksInterface {
  explicit RemoteHooks(at::CUDAHooksArgs) {}
  void init() const override {}
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasCUDA() const override { return true; }
  bool hasCUDART() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  const at::Generator &getDefaultGenerator(c10::DeviceIndex) const override { return default_generator(); }
  at::Generator getNewGenerator(c10::DeviceIndex) const override {
    if (std::exchange(next_generator_is_default, false))
      return default_generator();
    const uint64_t id = Log::instance().next_generator();
    Bytes record;
    record.uint8(kNewGenerator);
    record.uvarint(id);
    Log::instance().append(record);
    return at::make_generator<RemoteGenerator>(id);
  }
  at::Device getDeviceFromPtr(void *) const override { return remote_device(); }
  bool isPinnedPtr(const void *address) const override {
    std::lock_guard<std::mutex> lock(pinned_mutex);
    return pinned().count(address) > 0;
  }
  at::Allocator *getPinnedMemoryAllocator() const override { return &pinned_allocator; }
  at::Allocator *getCUDADeviceAllocator() const override { return storage_allocator(); }
  c10::DeviceIndex current_device() const override { return current_device_index; }
  c10::DeviceIndex deviceCount() const override { return 1; }
  c10::DeviceIndex getCurrentDevice() const override { return current_device_index; }
  void setCurrentDevice(c10::DeviceIndex index) const override { remote_guard.setDevice(remote_device(index)); }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex index) const override {
    return remote_guard.exchangeDevice(remote_device(index)).index();
  }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex index) const override {
    return index < 0 ? current_device_index : exchangeDevice(index);
  }
  int getNumGPUs() const override { return 1; }
  void deviceSynchronize(c10::DeviceIndex) const override { RemoteGuard::fence(); }
};

const bool registered = [] {
  c10::impl::registerDeviceGuard(kRemote, &remote_guard);
  pthread_atfork(nullptr, nullptr, [] { forked = true; });
  return true;
}();

}  // namespace

// ---- generators

RemoteGenerator::RemoteGenerator(uint64_t number)
    : GeneratorImpl(remote_device(), c10::DispatchKeySet(c10::DispatchKey::CUDA)), id(number) {}

RemoteGenerator::~RemoteGenerator() {
  if (forked || id == 0)
    return;
  Bytes record;
  record.uint8(kFreeGenerator);
  record.uvarint(id);
  Log::instance().append(record);
}

void RemoteGenerator::set_current_seed(uint64_t value) {
  seed_ = value;
  if (forked)  // a DataLoader worker seeds every device it sees; it has none to seed
    return;
  Bytes record;
  record.uint8(kSeedGenerator);
  record.uvarint(id);
  record.uint64(value);
  Log::instance().append(record);
}

uint64_t RemoteGenerator::seed() {
  set_current_seed(c10::detail::getNonDeterministicRandom(true));
  return seed_;
}

void RemoteGenerator::set_offset(uint64_t) {
  TORCH_CHECK_NOT_IMPLEMENTED(false, "xpool: a remote generator has no offset; use get_state and set_state");
}

uint64_t RemoteGenerator::get_offset() const {
  TORCH_CHECK_NOT_IMPLEMENTED(false, "xpool: a remote generator has no offset; use get_state and set_state");
}

void RemoteGenerator::set_state(const c10::TensorImpl &state) {
  TORCH_CHECK_TYPE(state.dtype() == caffe2::TypeMeta::Make<uint8_t>() && state.is_cpu() && state.is_contiguous(),
                   "RNG state must be a torch.ByteTensor");
  Bytes record;
  record.uint8(kWriteGenerator);
  record.uvarint(id);
  record.text({static_cast<const char *>(state.data()), static_cast<size_t>(state.numel())});
  Log::instance().append(record);
}

c10::intrusive_ptr<c10::TensorImpl> RemoteGenerator::get_state() const {
  const uint64_t request = Log::instance().next_request();
  Bytes record;
  record.uint8(kReadGenerator);
  record.uvarint(request);
  record.uvarint(id);
  Log::instance().append(record);
  const Answer answer = await(request);
  TORCH_CHECK(answer.payload_count == 1, "xpool: the server sent no generator state");
  at::TensorBase state = at::detail::empty_cpu({static_cast<int64_t>(answer.payload_nbytes[0])}, c10::kByte);
  memcpy(state.mutable_data_ptr(), answer.payloads[0], answer.payload_nbytes[0]);
  return state.getIntrusivePtr();
}

RemoteGenerator *RemoteGenerator::clone_impl() const {
  const uint64_t number = Log::instance().next_generator();
  Bytes record;
  record.uint8(kNewGenerator);
  record.uvarint(number);
  Log::instance().append(record);
  auto *copy = new RemoteGenerator(number);
  const auto state = get_state();
  copy->set_state(*state);
  copy->seed_ = seed_;
  return copy;
}

void expect_default_generator() { next_generator_is_default = true; }
int current_device() { return current_device_index; }
int64_t current_stream() { return current_stream_id; }
void set_current_stream(int64_t id) { current_stream_id = id; }

}  // namespace xpool

// The registry's macro names its types without a namespace.
namespace at {
using xpool::RemoteHooks;
C10_REGISTER_TYPED_CLASS(CUDAHooksRegistry, "CUDAHooks", RemoteHooks)
}  // namespace at
