// Tensors over an array's memory (xpool/cupy/interop.py): the record that makes the storage is Python's.
#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>
#include <torch/library.h>

#include <tuple>

#include "capturing.h"
#include "remote.h"

namespace xpool {

c10::DataPtr share_storage(int device, uint64_t id, uint64_t nbytes);

namespace {

// A byte tensor over a storage that is about to be made, and the storage's number.
std::tuple<at::Tensor, int64_t> storage_over_array(int64_t index, int64_t nbytes) {
  TORCH_CHECK(index >= 0 && index < device_count() && nbytes >= 0, "xpool: no such device or size");
  const int device = static_cast<int>(index);
  refuse_capture(device);
  const uint64_t id = Log::of(device).next_storage();
  c10::Storage storage(c10::Storage::use_byte_size_t(), nbytes, share_storage(device, id, nbytes),
                       storage_allocator(device), false);
  at::Tensor tensor =
      at::detail::make_tensor<c10::TensorImpl>(std::move(storage), kKeys, caffe2::TypeMeta::Make<uint8_t>());
  tensor.unsafeGetTensorImpl()->set_sizes_contiguous({nbytes});
  return {tensor, static_cast<int64_t>(id)};
}

TORCH_LIBRARY_FRAGMENT(xpool, library) { library.def("storage_over_array", &storage_over_array); }

}  // namespace
}  // namespace xpool
