// Loaded before `import torch`, which caches the hooks: guard, hooks and pinned memory of the remote device.
#include "remote.h"

#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/util/Exception.h>

#include <pthread.h>

#include <chrono>
#include <cstdlib>
#include <mutex>
#include <unordered_set>

namespace xpool {

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
  pthread_atfork(nullptr, nullptr, &note_fork);
  return true;
}();

}  // namespace

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
