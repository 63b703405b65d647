// An accelerator as a vendor brings one to torch: kernels, allocator, streams, events and generators under
// PrivateUse1. It computes on the host, and its memory is the host's; its time is its own. Each kernel takes kKernelNs
// of it, in the order of submission and behind it, so that events and synchronize say what a real device's would. All
// processes that name one file in ABACUS_QUEUES share its devices, as they would share real ones.

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/resize_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <torch/library.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <thread>

namespace {

using at::Tensor;
using c10::DeviceIndex;
using c10::IntArrayRef;

constexpr DeviceIndex kDevices = 2;
constexpr int64_t kKernelNs = 500'000;
constexpr int64_t kMemoryNbytes = 256 << 20;

thread_local DeviceIndex current = 0;
// Within a kernel its own copies are no transfers: the host does not wait for them.
thread_local bool is_in_kernel = false;

// Of each device: until when it has work. Of this process alone if nobody names a file.
std::atomic<int64_t> *map_queues() {
  const char *path = std::getenv("ABACUS_QUEUES");
  const int file = path ? open(path, O_RDWR | O_CREAT, 0600) : memfd_create("abacus", 0);
  TORCH_CHECK(file >= 0 && ftruncate(file, 4096) == 0, "the device's file cannot be opened");
  void *page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  TORCH_CHECK(page != MAP_FAILED, "the device's file cannot be mapped");
  return static_cast<std::atomic<int64_t> *>(page);
}

std::atomic<int64_t> *const queues = map_queues();

struct Chip {
  std::atomic<int64_t> kernels{0};
  std::atomic<int64_t> own_until_ns{0};
  std::atomic<int64_t> allocated{0};
  std::atomic<int64_t> limit{kMemoryNbytes};
};

std::array<Chip, kDevices> chips;

Chip &chip_of(DeviceIndex index) { return chips.at(index < 0 ? current : index); }


int64_t now_ns() { return std::chrono::steady_clock::now().time_since_epoch().count(); }

void wait_until(int64_t at_ns) {
  std::this_thread::sleep_until(std::chrono::steady_clock::time_point(std::chrono::nanoseconds(at_ns)));
}

std::atomic<int64_t> &queue_of(DeviceIndex index) { return queues[index < 0 ? current : index]; }

void wait_for(DeviceIndex index) { wait_until(chip_of(index).own_until_ns); }

void submit(DeviceIndex index) {
  int64_t before = queue_of(index), until;
  do
    until = std::max(now_ns(), before) + kKernelNs;
  while (!queue_of(index).compare_exchange_weak(before, until));
  Chip &chip = chip_of(index);
  chip.own_until_ns = until;
  chip.kernels++;
}

// ---- memory ----

struct Block {
  void *data;
  int64_t nbytes;
  DeviceIndex index;
};

struct ChipAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t nbytes) override {
    const c10::Device device(c10::DeviceType::PrivateUse1, current);
    if (nbytes == 0)
      return {nullptr, device};
    Chip &chip = chip_of(current);
    const auto size = static_cast<int64_t>(nbytes);
    TORCH_CHECK_WITH(OutOfMemoryError, size <= chip.limit - chip.allocated, "abacus:", current, " has no ", nbytes,
                     " bytes left of the ", chip.limit.load(), " that this process may have");
    chip.allocated += size;
    auto *block = new Block{c10::GetCPUAllocator()->raw_allocate(nbytes), size, current};
    return {block->data, block, &give_back, device};
  }

  static void give_back(void *context) {
    std::unique_ptr<Block> block(static_cast<Block *>(context));
    chip_of(block->index).allocated -= block->nbytes;
    c10::GetCPUAllocator()->raw_deallocate(block->data);
  }

  void copy_data(void *to, const void *from, size_t nbytes) const override { default_copy_data(to, from, nbytes); }
};

ChipAllocator allocator;
const int registered_allocator = (c10::SetAllocator(c10::DeviceType::PrivateUse1, &allocator), 0);

// ---- devices, streams, events ----

struct Guard final : c10::impl::DeviceGuardImplInterface {
  static constexpr auto kType = c10::DeviceType::PrivateUse1;
  c10::DeviceType type() const override { return kType; }
  c10::Device exchangeDevice(c10::Device to) const override {
    const c10::Device before = getDevice();
    setDevice(to);
    return before;
  }
  c10::Device getDevice() const override { return {kType, current}; }
  void setDevice(c10::Device to) const override {
    TORCH_CHECK(to.index() >= 0 && to.index() < kDevices, "there is no abacus:", to.index());
    current = to.index();
  }
  void uncheckedSetDevice(c10::Device to) const noexcept override { current = to.index(); }
  c10::DeviceIndex deviceCount() const noexcept override { return kDevices; }
  c10::Stream getStream(c10::Device of) const override { return c10::Stream(c10::Stream::DEFAULT, of); }
  c10::Stream getDefaultStream(c10::Device of) const override { return getStream(of); }
  c10::Stream getNewStream(c10::Device of, int) const override { return getStream(of); }
  c10::Stream exchangeStream(c10::Stream stream) const override { return getStream(stream.device()); }
  bool queryStream(const c10::Stream &stream) const override {
    return now_ns() >= chip_of(stream.device_index()).own_until_ns;
  }
  void synchronizeStream(const c10::Stream &stream) const override { wait_for(stream.device_index()); }
  void synchronizeDevice(DeviceIndex index) const override { wait_for(index); }
  void record(void **event, const c10::Stream &stream, DeviceIndex, c10::EventFlag) const override {
    if (*event == nullptr)
      *event = new int64_t;
    *static_cast<int64_t *>(*event) = std::max(now_ns(), queue_of(stream.device_index()).load());
  }
  void block(void *, const c10::Stream &) const override {}  // there is one stream
  bool queryEvent(void *event) const override { return now_ns() >= *static_cast<int64_t *>(event); }
  void synchronizeEvent(void *event) const override { wait_until(*static_cast<int64_t *>(event)); }
  double elapsedTime(void *first, void *last, DeviceIndex) const override {
    return static_cast<double>(*static_cast<int64_t *>(last) - *static_cast<int64_t *>(first)) / 1e6;
  }
  void destroyEvent(void *event, DeviceIndex) const noexcept override { delete static_cast<int64_t *>(event); }
};

C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard)

// ---- random numbers ----

struct ChipGenerator final : at::CPUGeneratorImpl {
  explicit ChipGenerator(DeviceIndex index) {
    device_ = c10::Device(c10::DeviceType::PrivateUse1, index);
    key_set_ = c10::DispatchKeySet(c10::DispatchKey::PrivateUse1);
  }
};

at::Generator new_generator(DeviceIndex index) { return at::make_generator<ChipGenerator>(index < 0 ? current : index); }

const at::Generator &default_generator(DeviceIndex index) {
  static const std::array<at::Generator, kDevices> all{new_generator(0), new_generator(1)};
  return all.at(index < 0 ? current : index);
}

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  DeviceIndex deviceCount() const override { return kDevices; }
  DeviceIndex getCurrentDevice() const override { return current; }
  void setCurrentDevice(DeviceIndex index) const override { Guard().setDevice({Guard::kType, index}); }
  DeviceIndex exchangeDevice(DeviceIndex index) const override { return std::exchange(current, index); }
  DeviceIndex maybeExchangeDevice(DeviceIndex index) const override { return exchangeDevice(index); }
  at::Allocator *getPinnedMemoryAllocator() const override { return c10::GetCPUAllocator(); }
  at::Generator getNewGenerator(DeviceIndex index) const override { return new_generator(index); }
  const at::Generator &getDefaultGenerator(DeviceIndex index) const override { return default_generator(index); }
};

const int registered_hooks = (at::RegisterPrivateUse1HooksInterface(new Hooks), 0);

// ---- kernels of its own ----

constexpr c10::DispatchKeySet kKeys(c10::DispatchKey::PrivateUse1);

Tensor empty(IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
             std::optional<at::Device> device, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  const c10::DeviceGuard guard(c10::device_or_default(device));
  return at::detail::empty_generic(size, &allocator, kKeys, c10::dtype_or_default(dtype), format);
}

Tensor empty_strided(IntArrayRef size, IntArrayRef stride, std::optional<at::ScalarType> dtype,
                     std::optional<at::Layout>, std::optional<at::Device> device, std::optional<bool>) {
  const c10::DeviceGuard guard(c10::device_or_default(device));
  return at::detail::empty_strided_generic(size, stride, &allocator, kKeys, c10::dtype_or_default(dtype));
}

// The same memory as a tensor of the host's.
Tensor on_host(const Tensor &tensor) {
  if (!tensor.is_privateuseone())
    return tensor;
  return at::from_blob(tensor.data_ptr(), tensor.sizes(), tensor.strides(), tensor.options().device(at::kCPU));
}

Tensor copy_from(const Tensor &from, const Tensor &to, bool) {
  if (from.numel() == 0)
    return to;
  if (!is_in_kernel) {
    for (const Tensor &one : {from, to})
      if (one.is_privateuseone())
        submit(one.device().index());
    if (from.is_privateuseone() && !to.is_privateuseone())
      wait_for(from.device().index());
  }
  on_host(to).copy_(on_host(from));
  return to;
}

Tensor copy_from_and_resize(const Tensor &from, const Tensor &to) {
  to.resize_(from.sizes());
  return copy_from(from, to, false);
}

at::Scalar local_scalar(const Tensor &tensor) {
  wait_for(tensor.device().index());
  return on_host(tensor).item();
}

// Everything else: torch's own way to compute on the host what a device has no kernel for.
void fallback(const c10::OperatorHandle &op, torch::jit::Stack *stack) {
  const auto &arguments = op.schema().arguments();
  const size_t first = stack->size() - arguments.size();
  DeviceIndex index = current;
  std::optional<at::Generator> mine, hosts;
  const auto wants_generator = c10::OptionalType::create(c10::GeneratorType::get());
  for (size_t i = 0; i < arguments.size(); i++) {
    c10::IValue &value = (*stack)[first + i];
    if (value.isTensor() && value.toTensor().is_privateuseone())
      index = value.toTensor().device().index();
    if (value.isDevice() && value.toDevice().has_index())
      index = value.toDevice().index();
    if (*arguments[i].type() == *wants_generator) {
      mine = value.isNone() ? default_generator(index) : value.toGenerator();
      hosts = at::detail::createCPUGenerator();
      hosts->set_state(mine->get_state());
      value = *hosts;
    }
  }
  const bool was_in_kernel = std::exchange(is_in_kernel, true);
  try {
    at::native::cpu_fallback(op, stack);
  } catch (...) {
    is_in_kernel = was_in_kernel;
    throw;
  }
  is_in_kernel = was_in_kernel;
  if (hosts)
    mine->set_state(hosts->get_state());
  if (!was_in_kernel)
    submit(index);
}

}  // namespace

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", empty);
  m.impl("empty_strided", empty_strided);
  m.impl("as_strided", at::native::as_strided_tensorimpl);
  m.impl("view", at::native::view);
  m.impl("_reshape_alias", at::native::_reshape_alias);
  m.impl("resize_", at::native::resize_);
  m.impl("set_.source_Storage", static_cast<Tensor &(*)(Tensor &, at::Storage)>(at::native::set_));
  m.impl("set_.source_Storage_storage_offset", at::native::set_storage_cpu_);
  m.impl("set_.source_Tensor", at::native::set_tensor_);
  m.impl("_copy_from", copy_from);
  m.impl("_copy_from_and_resize", copy_from_and_resize);
  m.impl("_local_scalar_dense", local_scalar);
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>()); }

TORCH_LIBRARY(abacus, m) {
  m.def("default_generator(int index) -> Generator?", [](int64_t index) { return default_generator(index); });
  m.def("kernels(int index) -> int", [](int64_t index) { return chip_of(index).kernels.load(); });
  m.def("allocated(int index) -> int", [](int64_t index) { return chip_of(index).allocated.load(); });
  m.def("memory_nbytes() -> int", [] { return kMemoryNbytes; });
  m.def("limit(int index, int nbytes) -> ()", [](int64_t index, int64_t nbytes) { chip_of(index).limit = nbytes; });
  m.def("device() -> int", [] { return static_cast<int64_t>(current); });
  m.def("set_device(int index) -> ()", [](int64_t index) { Guard().setDevice({Guard::kType, DeviceIndex(index)}); });
  m.def("synchronize(int index) -> ()", [](int64_t index) { wait_for(index); });
}
