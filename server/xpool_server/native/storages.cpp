#include "storages.h"

#include <algorithm>

namespace xpool_server {

uint64_t Storages::id_of(const c10::StorageImpl *storage) const {
  auto found = ids_.find(storage);
  return found == ids_.end() ? kNoHandle : found->second;
}

std::vector<uint64_t> Storages::handles() const {
  std::vector<uint64_t> all;
  for (const auto &row : table_)
    all.push_back(row.first);
  return all;
}

Entry *Storages::new_entry() {
  if (spare_.empty()) {
    entries_.emplace_back();
    return &entries_.back();
  }
  Entry *entry = spare_.back();
  spare_.pop_back();
  return entry;
}

void Storages::spare(Entry *entry) { spare_.push_back(entry); }

Entry &Storages::entry_of(const c10::StorageImpl *storage) {
  const uint64_t id = ids_.at(storage);
  return *(id == kHeld ? held_.at(storage) : table_.at(id));
}

Entry &Storages::fill(Entry &entry, c10::Storage storage) {
  entry.nbytes = storage.nbytes();
  entry.charge_nbytes = charged_nbytes(entry.nbytes);
  entry.storage = std::move(storage);
  live_count++;
  charge(entry.charge_nbytes);
  return entry;
}

Entry &Storages::hold(c10::Storage storage) {
  Entry *entry = new_entry();
  const c10::StorageImpl *identity = storage.unsafeGetStorageImpl();
  try {
    ids_[identity] = kHeld;
    held_[identity] = entry;
  } catch (...) {  // no memory for a row
    ids_.erase(identity);
    spare(entry);
    throw;
  }
  return fill(*entry, std::move(storage));
}

void Storages::name(uint64_t id, const c10::StorageImpl *held) {
  table_[id] = held_.at(held);
  ids_[held] = id;
  held_.erase(held);
}

void Storages::let_go(const c10::StorageImpl *held) {
  Entry *entry = held_.at(held);
  held_.erase(held);
  drop(*entry);
  spare(entry);
}

Entry &Storages::adopt(uint64_t id, c10::Storage storage) {
  if (frame)
    return *((*frame)[id] = &hold(std::move(storage)));
  Entry *entry = new_entry();
  const c10::StorageImpl *identity = storage.unsafeGetStorageImpl();
  try {
    ids_[identity] = id;
    table_[id] = entry;
  } catch (...) {  // no memory for a row
    ids_.erase(identity);
    spare(entry);
    throw;
  }
  return fill(*entry, std::move(storage));
}

void Storages::charge(uint64_t nbytes) {
  allocated_nbytes += nbytes;
  peak_nbytes = std::max(peak_nbytes, allocated_nbytes);
}

void Storages::resized(Entry &entry) {
  entry.nbytes = entry.storage.nbytes();
  allocated_nbytes -= entry.charge_nbytes;
  entry.charge_nbytes = charged_nbytes(entry.nbytes);
  charge(entry.charge_nbytes);
  entry.views.clear();
}

void Storages::drop(Entry &entry) {
  if (entry.is_live()) {
    ids_.erase(entry.storage.unsafeGetStorageImpl());
    live_count--;
    allocated_nbytes -= entry.charge_nbytes;
  }
  entry.views.clear();
  entry.storage = c10::Storage();
  entry.is_busy = false;
  entry.nbytes = entry.charge_nbytes = 0;
}

void Storages::poison(uint64_t id) {
  Entry *entry = find(id);
  if (entry)
    drop(*entry);
  else
    table_[id] = new_entry();
}

void Storages::free(uint64_t id) {
  if (frame) {
    let_go((*frame)[id]->storage.unsafeGetStorageImpl());
    (*frame)[id] = nullptr;
    return;
  }
  auto found = table_.find(id);
  drop(*found->second);
  spare(found->second);
  table_.erase(found);
}

}  // namespace xpool_server
