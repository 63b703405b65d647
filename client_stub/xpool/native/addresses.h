// Storages that torch's own CUDA allocator has made: it knows addresses, and no contexts that could hold a name.
#pragma once
#include "remote.h"

namespace xpool {

// The name behind a storage's data; null if it has none.
StorageName *storage_name(const c10::Storage &storage);
// A bare address of a storage of its own. The second takes back what the first gave.
void *allocate_address(int device, uint64_t nbytes);
void free_address(void *address);

}  // namespace xpool
