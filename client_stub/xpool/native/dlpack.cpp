// DLPack within the pool: a tensor that comes back from a capsule gets the storage that went into it.
//
// A capsule holds a bare address, which for a remote storage is only a name. Storages that go into one are remembered
// under their address for as long as they live; what comes out of one is seated on the storage it was made from.
#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <map>
#include <mutex>

#include "at_fork.h"
#include "dispatch.h"

namespace xpool {

namespace {

using WeakStorage = c10::weak_intrusive_ptr<c10::StorageImpl>;

std::mutex exported_mutex;
const bool exported_survives = survives_fork<exported_mutex>();

std::map<uint64_t, WeakStorage> &exported() {
  static auto *all = new std::map<uint64_t, WeakStorage>;
  return *all;
}

uint64_t address_of(const c10::StorageImpl &storage) {
  return reinterpret_cast<uint64_t>(storage.data_ptr().get());
}

c10::intrusive_ptr<c10::StorageImpl> storage_at(uint64_t address) {
  c10::intrusive_ptr<c10::StorageImpl> storage;  // its end is a record: not under our mutex
  {
    std::lock_guard<std::mutex> lock(exported_mutex);
    auto after = exported().upper_bound(address);
    if (after != exported().begin())
      storage = std::prev(after)->second.lock();
  }
  if (!storage || address - address_of(*storage) >= std::max<uint64_t>(storage->nbytes(), 1))
    return {};
  return storage;
}

}  // namespace

void export_storage(c10::StorageImpl *storage) {
  storage_id(c10::Storage(c10::intrusive_ptr<c10::StorageImpl>::reclaim_copy(storage)));
  std::lock_guard<std::mutex> lock(exported_mutex);
  // Those that are gone: nothing tells of their end, and there are few.
  std::erase_if(exported(), [](const auto &entry) { return entry.second.expired(); });
  exported().insert_or_assign(address_of(*storage),
                              WeakStorage(c10::intrusive_ptr<c10::StorageImpl>::reclaim_copy(storage)));
}

void import_tensor(c10::TensorImpl *tensor) {
  const int64_t item = tensor->itemsize();
  const uint64_t address = address_of(*tensor->storage().unsafeGetStorageImpl());
  if (address == 0 && tensor->numel() == 0) {
    c10::Allocator *allocator = storage_allocator(tensor->device().index());
    c10::Storage none(c10::Storage::use_byte_size_t(), 0, allocator->allocate(0), allocator, true);
    tensor->set_storage_keep_dtype(none);
    return;
  }
  const auto storage = storage_at(address);
  TORCH_CHECK(storage, "xpool: this DLPack capsule holds no tensor of this job's pool, and no other memory of a CUDA "
                       "device can be reached");
  const uint64_t offset = address - address_of(*storage);
  TORCH_CHECK(offset % item == 0, "xpool: this DLPack capsule begins inside an item of its storage");
  const c10::Storage before = tensor->storage();  // kept until the tensor has the other one
  tensor->set_storage_keep_dtype(c10::Storage(storage));
  tensor->set_storage_offset(static_cast<int64_t>(offset) / item + tensor->storage_offset());
}

}  // namespace xpool
