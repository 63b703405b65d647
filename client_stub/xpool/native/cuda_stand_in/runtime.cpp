// A stand-in for the CUDA runtime and the CUDA driver, for a CUDA build of torch whose device is remote.
//
// Loaded for all to see before torch's own libraries, it is found first by them, and by whoever opens libcuda.so.1 (its
// soname): a local driver is never mapped. It answers what host code asks in passing: devices, streams and events
// that are done at once. Whatever would touch a device - a launch, a copy, an allocation - has escaped the dispatcher:
// it is counted and fails. A function that is missing here is found in the real runtime, which then finds no driver.
//
// No header of CUDA is needed, so one source serves every version. Results are cudaError_t; functions that ignore
// their arguments declare none, which the calling conventions of x86-64 and arm64 allow.
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <atomic>
#include <cstdint>

#define STAND_IN extern "C" __attribute__((visibility("default"))) int

namespace {

enum { kSuccess = 0, kInvalidValue = 1, kNoDevice = 100, kInvalidDevice = 101, kNotSupported = 801 };

constexpr int kDevices = 64;  // as many as a job can have; which of them it has, torch is told elsewhere
std::atomic<int> runtime_version{0};
std::atomic<uint64_t> escapes{0}, device_count_calls{0}, next_handle{1 << 20};
std::atomic<const char *> last_escape{""};
std::atomic<uint64_t> total_memory{0};
thread_local int last_error = kSuccess;
thread_local int current_device = 0;

int escaped(const char *what) {
  escapes++;
  last_escape = what;
  return last_error = kNotSupported;
}

// Handles are never looked into, so a number will do.
int give_handle(void **handle) {
  *handle = reinterpret_cast<void *>(next_handle.fetch_add(16));
  return kSuccess;
}

bool is_remote(const void *address) { return reinterpret_cast<uintptr_t>(address) >= 1ull << 60; }

// The part of cudaDeviceProp that CUDA 12 and 13 have in common; its rest stays as the caller made it.
struct PropertiesHead {
  char name[256];
  char uuid[16];
  char luid[8];
  unsigned int luid_device_node_mask;
  size_t total_global_memory;
  size_t shared_memory_per_block;
  int registers_per_block;
  int warp_size;
  size_t memory_pitch;
  int max_threads_per_block;
  int max_threads_dim[3];
  int max_grid_size[3];
  int clock_rate_or_padding;
  size_t total_constant_memory;
  int major;
  int minor;
};
static_assert(sizeof(PropertiesHead) == 368);

int properties(void *to) {
  PropertiesHead head;
  memcpy(&head, to, sizeof head);
  memset(head.name, 0, sizeof head.name);
  strcpy(head.name, "xpool remote device");
  head.total_global_memory = total_memory;
  head.warp_size = 32;
  head.max_threads_per_block = 1024;
  head.major = head.minor = 0;  // no kernel image fits: what is chosen by capability is not chosen
  memcpy(to, &head, sizeof head);
  return kSuccess;
}

}  // namespace

// ---------------------------------------------------------------- for xpool itself

STAND_IN xpool_stand_in_abi() { return 1; }
STAND_IN xpool_stand_in_expect(int version, uint64_t memory) {
  runtime_version = version;
  total_memory = memory;
  return kSuccess;
}
extern "C" __attribute__((visibility("default"))) uint64_t xpool_stand_in_escapes() { return escapes; }
extern "C" __attribute__((visibility("default"))) uint64_t xpool_stand_in_asked() { return device_count_calls; }
extern "C" __attribute__((visibility("default"))) const char *xpool_stand_in_last_escape() { return last_escape; }

// ---------------------------------------------------------------- device and errors

STAND_IN cudaGetDeviceCount(int *count) {
  device_count_calls++;
  *count = kDevices;
  return kSuccess;
}
STAND_IN cudaGetDevice(int *device) {
  *device = current_device;
  return kSuccess;
}
STAND_IN cudaSetDevice(int device) {
  if (device < 0 || device >= kDevices)
    return last_error = kInvalidDevice;
  current_device = device;
  return kSuccess;
}
STAND_IN cudaDriverGetVersion(int *version) {
  *version = runtime_version;
  return kSuccess;
}
STAND_IN cudaRuntimeGetVersion(int *version) {
  *version = runtime_version;
  return kSuccess;
}
STAND_IN cudaGetDeviceProperties(void *to, int) { return properties(to); }
STAND_IN cudaGetDeviceProperties_v2(void *to, int) { return properties(to); }
STAND_IN cudaDeviceGetAttribute(int *value, int, int) {
  *value = 0;
  return kSuccess;
}
STAND_IN cudaDeviceGetPCIBusId(char *to, int length, int) {
  if (length < 1)
    return kInvalidValue;
  *to = 0;
  return kSuccess;
}
STAND_IN cudaDeviceCanAccessPeer(int *can, int, int) {
  *can = 0;
  return kSuccess;
}
STAND_IN cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
  *least = *greatest = 0;
  return kSuccess;
}
STAND_IN cudaMemGetInfo(size_t *available, size_t *total) {
  *available = *total = total_memory;
  return kSuccess;
}
STAND_IN cudaDeviceSynchronize() { return kSuccess; }
STAND_IN cudaProfilerStart() { return kSuccess; }
STAND_IN cudaProfilerStop() { return kSuccess; }

STAND_IN cudaGetLastError() {
  const int error = last_error;
  last_error = kSuccess;
  return error;
}
STAND_IN cudaPeekAtLastError() { return last_error; }

extern "C" __attribute__((visibility("default"))) const char *cudaGetErrorName(int error) {
  switch (error) {
    case kSuccess: return "cudaSuccess";
    case kInvalidValue: return "cudaErrorInvalidValue";
    case kNoDevice: return "cudaErrorNoDevice";
    case kInvalidDevice: return "cudaErrorInvalidDevice";
    case kNotSupported: return "cudaErrorNotSupported";
    default: return "cudaErrorUnknown";
  }
}
extern "C" __attribute__((visibility("default"))) const char *cudaGetErrorString(int error) {
  static thread_local char text[200];
  switch (error) {
    case kSuccess: return "no error";
    case kInvalidDevice: return "invalid device ordinal";
    case kNotSupported:
      snprintf(text, sizeof text, "xpool: %s was called on this host, which has no device of its own here", last_escape.load());
      return text;
    default: return cudaGetErrorName(error);
  }
}

// ---------------------------------------------------------------- streams and events: all done at once

STAND_IN cudaStreamCreate(void **stream) { return give_handle(stream); }
STAND_IN cudaStreamCreateWithFlags(void **stream, unsigned) { return give_handle(stream); }
STAND_IN cudaStreamCreateWithPriority(void **stream, unsigned, int) { return give_handle(stream); }
STAND_IN cudaStreamDestroy() { return kSuccess; }
STAND_IN cudaStreamGetPriority(void *, int *priority) {
  *priority = 0;
  return kSuccess;
}
STAND_IN cudaStreamQuery() { return kSuccess; }
STAND_IN cudaStreamSynchronize() { return kSuccess; }
STAND_IN cudaStreamWaitEvent() { return kSuccess; }
STAND_IN cudaStreamIsCapturing(void *, int *status) {
  *status = 0;
  return kSuccess;
}
STAND_IN cudaStreamGetCaptureInfo(void *, int *status) {
  *status = 0;
  return kSuccess;
}
STAND_IN cudaStreamGetCaptureInfo_v2(void *, int *status) {
  *status = 0;
  return kSuccess;
}
STAND_IN cudaThreadExchangeStreamCaptureMode() { return kSuccess; }
STAND_IN cudaEventCreate(void **event) { return give_handle(event); }
STAND_IN cudaEventCreateWithFlags(void **event, unsigned) { return give_handle(event); }
STAND_IN cudaEventDestroy() { return kSuccess; }
STAND_IN cudaEventQuery() { return kSuccess; }
STAND_IN cudaEventRecord() { return kSuccess; }
STAND_IN cudaEventRecordWithFlags() { return kSuccess; }
STAND_IN cudaEventSynchronize() { return kSuccess; }
STAND_IN cudaEventElapsedTime(float *milliseconds, void *, void *) {
  *milliseconds = 0;
  return kSuccess;
}

// ---------------------------------------------------------------- host memory

STAND_IN cudaHostAlloc(void **address, size_t nbytes, unsigned) {
  return posix_memalign(address, 4096, nbytes ? nbytes : 1) == 0 ? kSuccess : 2;
}
STAND_IN cudaMallocHost(void **address, size_t nbytes) { return cudaHostAlloc(address, nbytes, 0); }
STAND_IN cudaFreeHost(void *address) {
  free(address);
  return kSuccess;
}
STAND_IN cudaHostRegister() { return kSuccess; }
STAND_IN cudaHostUnregister() { return kSuccess; }

struct PointerAttributes {  // the head that CUDA 12 and 13 have in common
  int type;
  int device;
  void *device_pointer;
  void *host_pointer;
};

STAND_IN cudaPointerGetAttributes(PointerAttributes *to, const void *address) {
  const bool remote = is_remote(address);
  *to = {remote ? 2 : 0, remote ? 0 : -2, remote ? const_cast<void *>(address) : nullptr, nullptr};
  return kSuccess;
}

// Between host addresses this is memcpy; a device's bytes are not here.
STAND_IN cudaMemcpy(void *to, const void *from, size_t nbytes, int) {
  if (is_remote(to) || is_remote(from))
    return escaped("cudaMemcpy");
  memmove(to, from, nbytes);
  return kSuccess;
}
STAND_IN cudaMemcpyAsync(void *to, const void *from, size_t nbytes, int kind, void *) {
  return cudaMemcpy(to, from, nbytes, kind);
}

// ---------------------------------------------------------------- what would touch a device

#define ESCAPES(name) \
  STAND_IN name() { return escaped(#name); }

ESCAPES(cudaLaunchKernel)
ESCAPES(cudaLaunchKernelExC)
ESCAPES(__cudaLaunchKernel)
ESCAPES(cudaLaunchCooperativeKernel)
ESCAPES(cudaLaunchHostFunc)
ESCAPES(cudaStreamAddCallback)
ESCAPES(cudaMalloc)
ESCAPES(cudaMallocAsync)
ESCAPES(cudaMallocFromPoolAsync)
ESCAPES(cudaMallocManaged)
ESCAPES(cudaMemset)
ESCAPES(cudaMemsetAsync)
ESCAPES(cudaMemcpy2DAsync)
ESCAPES(cudaMemcpyPeerAsync)
ESCAPES(cudaMemcpyToSymbol)
ESCAPES(cudaMemcpyToSymbolAsync)
ESCAPES(cudaGetSymbolAddress)
ESCAPES(cudaFuncGetAttributes)
ESCAPES(cudaFuncSetAttribute)
ESCAPES(cudaKernelSetAttributeForDevice)
ESCAPES(cudaLibraryLoadData)
ESCAPES(cudaOccupancyMaxActiveBlocksPerMultiprocessor)
ESCAPES(cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags)
ESCAPES(cudaDeviceEnablePeerAccess)
ESCAPES(cudaDeviceGetDefaultMemPool)
ESCAPES(cudaIpcGetMemHandle)
ESCAPES(cudaIpcOpenMemHandle)
ESCAPES(cudaIpcGetEventHandle)
ESCAPES(cudaIpcOpenEventHandle)
ESCAPES(cudaStreamBeginCapture)
ESCAPES(cudaStreamBeginCaptureToGraph)
ESCAPES(cudaStreamEndCapture)
ESCAPES(cudaGraphInstantiateWithFlags)
ESCAPES(cudaGraphLaunch)

// Nothing was allocated, so there is nothing to free.
STAND_IN cudaFree(void *address) { return address ? escaped("cudaFree") : kSuccess; }
STAND_IN cudaFreeAsync(void *address, void *) { return cudaFree(address); }
STAND_IN cudaIpcCloseMemHandle() { return kSuccess; }

// ---------------------------------------------------------------- the driver

// The libraries beside torch (cuBLAS, cuDNN, NCCL) begin with this; so does the real runtime.
STAND_IN cuInit(unsigned) {
  escaped("cuInit");
  return kNoDevice;
}
STAND_IN cuDriverGetVersion(int *version) {
  *version = runtime_version;
  return kSuccess;
}
STAND_IN cuDeviceGetCount(int *count) {
  *count = 0;
  return kNoDevice;
}
STAND_IN cuDevicePrimaryCtxGetState(int, unsigned *flags, int *active) {
  *flags = 0;
  *active = 1;
  return kSuccess;
}
STAND_IN cuCtxGetCurrent(void **context) {
  *context = nullptr;
  return kSuccess;
}
STAND_IN cuGetErrorString(int error, const char **text) {
  *text = cudaGetErrorString(error);
  return kSuccess;
}

namespace {

// Only functions of this file: any other name of the process would be the wrong one.
int own_function(const char *name, void **function) {
  static const struct {
    const char *name;
    void *function;
  } known[] = {
      {"cuInit", reinterpret_cast<void *>(&cuInit)},
      {"cuDriverGetVersion", reinterpret_cast<void *>(&cuDriverGetVersion)},
      {"cuDeviceGetCount", reinterpret_cast<void *>(&cuDeviceGetCount)},
      {"cuDevicePrimaryCtxGetState", reinterpret_cast<void *>(&cuDevicePrimaryCtxGetState)},
      {"cuCtxGetCurrent", reinterpret_cast<void *>(&cuCtxGetCurrent)},
      {"cuGetErrorString", reinterpret_cast<void *>(&cuGetErrorString)},
  };
  *function = nullptr;
  for (const auto &one : known)
    if (strcmp(one.name, name) == 0)
      *function = one.function;
  return *function ? kSuccess : kNotSupported;
}

}  // namespace

STAND_IN cudaGetDriverEntryPointByVersion(const char *name, void **function, unsigned, unsigned long long, int *status) {
  const int found = own_function(name, function);
  if (status)
    *status = found == kSuccess ? 0 : 1;
  return found;
}
STAND_IN cudaGetDriverEntryPoint(const char *name, void **function, unsigned long long, int *status) {
  return cudaGetDriverEntryPointByVersion(name, function, 0, 0, status);
}
