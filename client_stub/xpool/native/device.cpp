// Loaded before `import torch`, which caches the hooks: guard, hooks and pinned memory of the remote device.
#include "at_fork.h"
#include "capturing.h"

#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/util/Exception.h>

#include <pthread.h>

#include <array>
#include <chrono>
#include <cstdlib>
#include <mutex>
#include <unordered_set>
#include <utility>

namespace xpool {

// ---- pinned host memory: ordinary, but remembered

namespace {

std::mutex pinned_mutex;
const bool pinned_survives = survives_fork<pinned_mutex>();  // a loader's worker frees pinned tensors

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

std::atomic<int> devices{1};
thread_local int current_device_index = 0;
thread_local std::array<int64_t, kMaxDevices> current_stream_ids{};

struct Moment {  // what an event holds: where and when it was recorded, as this client saw it
  int device = 0;
  int64_t stream = 0;
  std::chrono::steady_clock::time_point at;
};

struct RemoteGuard final : c10::impl::DeviceGuardImplInterface {
  static c10::Stream stream(c10::Device device, int64_t id) {
    return c10::Stream(c10::Stream::UNSAFE, remote_device(index_of(device)), id);
  }
  c10::DeviceType type() const override { return kRemote; }
  c10::Device exchangeDevice(c10::Device device) const override {
    const auto before = remote_device(current_device_index);
    setDevice(device);
    return before;
  }
  c10::Device getDevice() const override { return remote_device(current_device_index); }
  void setDevice(c10::Device device) const override {
    current_device_index = index_of(device);
  }
  void uncheckedSetDevice(c10::Device device) const noexcept override {
    if (device.has_index())
      current_device_index = device.index();
  }
  c10::Stream getStream(c10::Device device) const override {
    return stream(device, current_stream_ids[index_of(device)]);
  }
  c10::Stream getDefaultStream(c10::Device device) const override { return stream(device, 0); }
  c10::Stream getStreamFromGlobalPool(c10::Device device, bool) const override { return getNewStream(device, 0); }
  c10::Stream getNewStream(c10::Device device, int) const override {
    static std::atomic<int64_t> next{1};
    return stream(device, next++);
  }
  c10::Stream exchangeStream(c10::Stream stream_now) const override {
    return stream(stream_now.device(), std::exchange(current_stream_ids[stream_now.device_index()], stream_now.id()));
  }
  c10::DeviceIndex deviceCount() const noexcept override { return devices; }
  void record(void **event, const c10::Stream &on, const c10::DeviceIndex, const c10::EventFlag) const override {
    if (!*event)
      *event = new Moment;
    *static_cast<Moment *>(*event) = {on.device_index(), on.id(), std::chrono::steady_clock::now()};
  }
  void block(void *event, const c10::Stream &on) const override {
    if (const auto *moment = static_cast<Moment *>(event); moment && moment->device == on.device_index())
      follow_capture(moment->device, on.id(), moment->stream);
  }
  bool queryEvent(void *) const override { return true; }
  void destroyEvent(void *event, const c10::DeviceIndex) const noexcept override {
    delete static_cast<Moment *>(event);
  }
  bool queryStream(const c10::Stream &) const override { return true; }
  // Asked from torch 2.12 on: before, there is nothing to override.
  bool isStreamCapturing(const c10::Stream &stream) const {
    return is_stream_capturing(stream.device_index(), stream.id());
  }
  void synchronizeStream(const c10::Stream &stream) const override { fence(stream.device_index()); }
  void synchronizeEvent(void *event) const override {
    if (event)
      fence(static_cast<Moment *>(event)->device);
  }
  void synchronizeDevice(const c10::DeviceIndex index) const override { fence(index_of(remote_device(index))); }
  void recordDataPtrOnStream(const c10::DataPtr &, const c10::Stream &) const override {}
  double elapsedTime(void *begin, void *end, const c10::DeviceIndex) const override {
    TORCH_CHECK(begin && end, "Both events must be recorded before calculating elapsed time.");
    return std::chrono::duration<double, std::milli>(static_cast<Moment *>(end)->at - static_cast<Moment *>(begin)->at)
        .count();
  }

  static void fence(int device) {
    refuse_capture(device);
    Log &log = Log::of(device);
    const uint64_t request = log.next_request();
    Bytes record;
    record.uint8(kFence);
    record.uvarint(request);
    log.append(record);
    await(device, request, "synchronize");
  }
};

RemoteGuard remote_guard;

thread_local bool next_generator_is_default = false;

const at::Generator &default_generator(int device) {
  static const auto *generators = [] {
    auto *made = new std::vector<at::Generator>;
    for (int i = 0; i < kMaxDevices; i++)
      made->push_back(at::make_generator<RemoteGenerator>(i, 0));
    return made;
  }();
  return (*generators)[device];
}

int index_of(c10::DeviceIndex index) { return xpool::index_of(remote_device(index)); }

// ---- hooks: what makes at::getAccelerator() answer CUDA

// Those of a CUDA build, which answer what is known without a device; on a CPU build the ones that have no answers.
const at::CUDAHooksInterface &hooks_of_torch() {
  static const auto *hooks = [] {
    auto *registry = at::CUDAHooksRegistry();
    return registry->Has("CUDAHooks") ? registry->Create("CUDAHooks", at::CUDAHooksArgs{}).release()
                                      : new at::CUDAHooksInterface;
  }();
  return *hooks;
}

struct RemoteHooks final : at::CUDAHooksInterface {
  explicit RemoteHooks(at::CUDAHooksArgs) {}
  // Versions and caches of libraries on this host: nothing of theirs is used, but programs print them.
  long versionCuDNN() const override { return hooks_of_torch().versionCuDNN(); }
  long versionRuntimeCuDNN() const override { return hooks_of_torch().versionRuntimeCuDNN(); }
  long versionCUDART() const override { return hooks_of_torch().versionCUDART(); }
  std::string showConfig() const override { return hooks_of_torch().showConfig(); }
  int64_t cuFFTGetPlanCacheMaxSize(c10::DeviceIndex index) const override {
    return hooks_of_torch().cuFFTGetPlanCacheMaxSize(index);
  }
  void cuFFTSetPlanCacheMaxSize(c10::DeviceIndex index, int64_t size) const override {
    hooks_of_torch().cuFFTSetPlanCacheMaxSize(index, size);
  }
  int64_t cuFFTGetPlanCacheSize(c10::DeviceIndex index) const override {
    return hooks_of_torch().cuFFTGetPlanCacheSize(index);
  }
  void cuFFTClearPlanCache(c10::DeviceIndex index) const override { hooks_of_torch().cuFFTClearPlanCache(index); }
  void init() const override {}
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasCUDA() const override { return true; }
  bool hasCUDART() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  const at::Generator &getDefaultGenerator(c10::DeviceIndex index) const override {
    return default_generator(index_of(index));
  }
  at::Generator getNewGenerator(c10::DeviceIndex index) const override {
    const int device = index_of(index);
    if (std::exchange(next_generator_is_default, false))
      return default_generator(device);
    const uint64_t id = Log::of(device).next_generator();
    Bytes record;
    record.uint8(kNewGenerator);
    record.uvarint(id);
    Log::of(device).append(record);
    return at::make_generator<RemoteGenerator>(device, id);
  }
  at::Device getDeviceFromPtr(void *) const override { return remote_device(current_device_index); }
  bool isPinnedPtr(const void *address) const override {
    std::lock_guard<std::mutex> lock(pinned_mutex);
    return pinned().count(address) > 0;
  }
  at::Allocator *getPinnedMemoryAllocator() const override { return &pinned_allocator; }
  at::Allocator *getCUDADeviceAllocator() const override { return current_allocator(); }
  c10::DeviceIndex current_device() const override { return current_device_index; }
  c10::DeviceIndex deviceCount() const override { return devices; }
  c10::DeviceIndex getCurrentDevice() const override { return current_device_index; }
  void setCurrentDevice(c10::DeviceIndex index) const override { remote_guard.setDevice(remote_device(index)); }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex index) const override {
    return remote_guard.exchangeDevice(remote_device(index)).index();
  }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex index) const override {
    return index < 0 ? current_device_index : exchangeDevice(index);
  }
  int getNumGPUs() const override { return devices; }
  void deviceSynchronize(c10::DeviceIndex index) const override { RemoteGuard::fence(index_of(index)); }
};

const bool registered = [] {
  hooks_of_torch();  // before ours are registered in their place
  c10::impl::registerDeviceGuard(kRemote, &remote_guard);
  pthread_atfork(nullptr, nullptr, &note_fork);
  return true;
}();

}  // namespace

void expect_default_generator() { next_generator_is_default = true; }
int current_device() { return current_device_index; }
void set_current_device(int index) { remote_guard.setDevice(remote_device(index)); }
int device_count() { return devices; }
void set_device_count(int count) { devices = count; }
int64_t current_stream(int device) { return current_stream_ids[device]; }
void set_current_stream(int device, int64_t id) { current_stream_ids[device] = id; }

int index_of(std::optional<c10::Device> device) {
  if (!device || !device->has_index())
    return current_device_index;
  TORCH_CHECK(device->index() < devices, "CUDA error: invalid device ordinal");
  return device->index();
}

}  // namespace xpool

// The registry's macro names its types without a namespace. Preferred: a CUDA build has registered its own before.
namespace at {
using xpool::RemoteHooks;
C10_REGISTER_TYPED_CLASS_WITH_PRIORITY(CUDAHooksRegistry, "CUDAHooks", c10::REGISTRY_PREFERRED, RemoteHooks)
}  // namespace at
