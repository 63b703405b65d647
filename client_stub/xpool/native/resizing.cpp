// Storages that change their size: for resize_ and set_, and for storages that a program resizes itself.
#include "kernels.h"

namespace xpool {

void resize_storage(const c10::Storage &storage, uint64_t nbytes) {
  StructuredPause pause;
  storage_id(storage);  // it is one of the pool's
  const int64_t kept = std::min<uint64_t>(storage.nbytes(), nbytes);
  c10::Allocator *allocator = storage_allocator(storage.device().index());
  c10::Storage made(c10::Storage::use_byte_size_t(), nbytes, allocator->allocate(nbytes), allocator, true);
  if (kept) {
    const at::Tensor to = tensor_over(made, c10::kByte, {kept}, {1}, 0);
    const at::Tensor from = tensor_over(storage, c10::kByte, {kept}, {1}, 0);
    call_writing(operation_named("aten::copy_"), {to, from, false});
  }
  auto *impl = storage.unsafeGetStorageImpl();
  impl->set_data_ptr_noswap(made.unsafeGetStorageImpl()->set_data_ptr(c10::DataPtr(nullptr, storage.device())));
  impl->set_nbytes(nbytes);
}

}  // namespace xpool
