// The session's storages: the table of handles, and the ledger of what they hold.
//
// A handle names a live storage or a poisoned one; the fault of a poisoned one is Python's. The rules are those of
// xpool_server/storages.py, whose class for the native executor is a view of this table.
#pragma once
#include <ATen/core/Tensor.h>
#include <c10/core/Storage.h>
#include <c10/util/SmallVector.h>
#include <c10/util/flat_hash_map.h>

#include <deque>
#include <string>
#include <vector>

#include "limits.h"

namespace xpool_server {

// A tensor kept for a geometry that calls name again and again, under the bytes that name it.
struct View {
  std::string geometry;
  at::Tensor tensor;
};

struct Entry {
  c10::Storage storage;  // null if the handle is poisoned
  uint64_t nbytes = 0;
  uint64_t charge_nbytes = 0;
  c10::SmallVector<View, 1> views;

  bool is_busy = false;  // an upload is under way: nobody but Python may use it, which waits

  bool is_live() const { return bool(storage); }
  bool is_usable() const { return is_live() && !is_busy; }
};

inline uint64_t charged_nbytes(uint64_t nbytes) {
  const uint64_t least = nbytes ? nbytes : 1;
  return (least + GRANULE_NBYTES - 1) / GRANULE_NBYTES * GRANULE_NBYTES;
}

constexpr uint64_t kNoHandle = UINT64_MAX, kHeld = UINT64_MAX - 1;

class Storages {
 public:
  Storages(uint64_t quota_nbytes, uint64_t max_handles) : quota_nbytes(quota_nbytes), max_handles_(max_handles) {}

  uint64_t quota_nbytes;
  uint64_t allocated_nbytes = 0;
  uint64_t peak_nbytes = 0;
  uint64_t live_count = 0;

  // While a graph runs: what its numbers lead to, in place of the table.
  std::vector<Entry *> *frame = nullptr;

  // Live or poisoned; null if there is none.
  Entry *find(uint64_t id) {
    if (frame)
      return id < frame->size() ? (*frame)[id] : nullptr;
    auto found = table_.find(id);
    return found == table_.end() ? nullptr : found->second;
  }
  bool has_room(uint64_t charge_nbytes) const {
    return charge_nbytes <= quota_nbytes && allocated_nbytes <= quota_nbytes - charge_nbytes;
  }
  bool is_free(uint64_t id) { return frame ? id < frame->size() && !(*frame)[id] : !find(id); }
  size_t handle_count() const { return table_.size(); }
  bool has_rows(uint64_t count) const { return table_.size() + count <= max_handles_; }
  bool is_named(const c10::StorageImpl *storage) const { return ids_.find(storage) != ids_.end(); }
  // kNoHandle if it has none; kHeld if it is held.
  uint64_t id_of(const c10::StorageImpl *storage) const;
  // Of a storage that is named or held.
  Entry &entry_of(const c10::StorageImpl *storage);
  std::vector<uint64_t> handles() const;

  // The caller has checked that the handle is new and that there is room.
  Entry &adopt(uint64_t id, c10::Storage storage);
  // Charge a storage that has no handle yet; `name` or `let_go` comes later.
  Entry &hold(c10::Storage storage);
  void name(uint64_t id, const c10::StorageImpl *held);
  void let_go(const c10::StorageImpl *held);
  // The size of an entry's storage has changed: charge it anew, and forget its views.
  void resized(Entry &entry);
  void poison(uint64_t id);
  // The handle exists.
  void free(uint64_t id);

 private:
  Entry *new_entry();
  void spare(Entry *entry);
  Entry &fill(Entry &entry, c10::Storage storage);
  void drop(Entry &entry);
  void charge(uint64_t nbytes);

  const uint64_t max_handles_;
  ska::flat_hash_map<uint64_t, Entry *> table_;
  ska::flat_hash_map<const c10::StorageImpl *, uint64_t> ids_;
  ska::flat_hash_map<const c10::StorageImpl *, Entry *> held_;
  std::deque<Entry> entries_;  // the memory of all entries, used or spare
  std::vector<Entry *> spare_;
};

}  // namespace xpool_server
