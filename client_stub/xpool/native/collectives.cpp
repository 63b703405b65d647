// Process groups: what Python (torch/groups.py) records in a device's log, and a clock that DDP asks for.
#include "encoding.h"

#include <c10/util/Exception.h>
#include <torch/csrc/distributed/c10d/reducer_timer.hpp>
#include <torch/library.h>

#include "capturing.h"

namespace xpool {
namespace {

// Record numbers of SPEC.md section 5.
enum GroupRecord : uint8_t { kDefineGroup = 19, kCollective = 20, kFreeGroup = 21 };

int checked(int64_t device) {
  TORCH_CHECK(device >= 0 && device < device_count(), "CUDA error: invalid device ordinal");
  return static_cast<int>(device);
}

void append(int device, const Bytes &record) {
  leave_room(device);
  Log::of(device).append(record);
}

void define_group(int64_t device, int64_t group, int64_t rank, int64_t size, std::string address, std::string secret,
                  int64_t timeout_ms) {
  Bytes record;
  record.uint8(kDefineGroup);
  record.uvarint(group);
  record.uvarint(rank);
  record.uvarint(size);
  record.text(address);
  record.text(secret);
  record.uvarint(timeout_ms);
  append(checked(device), record);
}

void free_group(int64_t device, int64_t group) {
  Bytes record;
  record.uint8(kFreeGroup);
  record.uvarint(group);
  Log::of(checked(device)).append(record);  // also while the interpreter ends: nothing waits for room
}

void put_tensors(Bytes &to, int device, at::TensorList tensors) {
  to.uvarint(tensors.size());
  for (const at::Tensor &tensor : tensors) {
    TORCH_CHECK(is_remote(tensor) && tensor.device().index() == device, "a collective of cuda:", device,
                " was given a tensor on ", tensor.device());
    TORCH_CHECK(tensor.layout() == c10::kStrided, "a collective was given a tensor that is not dense");
    to.uvarint(storage_id(tensor.storage()));
    put_geometry(to, tensor.scalar_type(), (tensor.is_conj() ? 1 : 0) | (tensor.is_neg() ? 2 : 0),
                 tensor.storage_offset(), tensor.sizes(), tensor.strides());
  }
}

void put_splits(Bytes &to, at::IntArrayRef splits) {
  to.uvarint(splits.size());
  for (const int64_t split : splits)
    to.uvarint(split);
}

void collective(at::TensorList inputs, at::TensorList outputs, int64_t index, int64_t group, int64_t what,
                int64_t reduction, int64_t root, int64_t tag, at::IntArrayRef input_splits,
                at::IntArrayRef output_splits) {
  const int device = checked(index);
  refuse_capture(device);  // a graph's numbers of storages mean nothing in a log
  Bytes record;
  record.uint8(kCollective);
  record.uvarint(group);
  record.uint8(static_cast<uint8_t>(what));
  record.uint8(static_cast<uint8_t>(reduction));
  record.uvarint(root);
  record.uvarint(tag);
  put_tensors(record, device, inputs);
  put_tensors(record, device, outputs);
  put_splits(record, input_splits);
  put_splits(record, output_splits);
  append(device, record);
  for (const at::Tensor &tensor : outputs)
    tensor.unsafeGetTensorImpl()->bump_version();
}

TORCH_LIBRARY_FRAGMENT(xpool, library) {
  library.def("define_group", &define_group);
  library.def("free_group", &free_group);
  library.def("collective(Tensor[] inputs, Tensor(a!)[] outputs, int device, int group, int what, int reduction,"
              " int root, int tag, int[] input_splits, int[] output_splits) -> ()");
}

TORCH_LIBRARY_IMPL(xpool, CUDA, library) { library.impl("collective", &collective); }

// DDP measures its steps on the device's clock; ours is the host's, since events are fences.
struct RemoteTimer final : c10d::Timer {
  explicit RemoteTimer(c10::Device) {}
  std::optional<int64_t> measureDifference(Event start, Event end) override {
    const int64_t from = getTimeRef(start), to = getTimeRef(end);
    if (from < 0 || to < from)
      return std::nullopt;
    return to - from;
  }
};

}  // namespace
}  // namespace xpool

// The registry's macro names its types without a namespace.
namespace c10d {
using xpool::RemoteTimer;
C10_REGISTER_TYPED_CLASS_WITH_PRIORITY(TimerRegistry, c10::kCUDA, c10::REGISTRY_PREFERRED, RemoteTimer)
}  // namespace c10d
