#include "ahead.h"

#include "capture.h"
#include "fingerprint.h"
#include "kernels.h"
#include "lane.h"

#include <ATen/EmptyTensor.h>

#include <array>

namespace xpool {

namespace {

// Of the slice and at most, for all that is ahead: a loader with many workers has many batches ready.
constexpr uint64_t kPartOfSlice = 8, kMostBytes = 256 << 20;
constexpr uint64_t kPatience = 4;  // so many more unused than used, and no more are sent

bool is_plain(const at::Tensor &host) {
  return host.device().is_cpu() && host.layout() == at::kStrided && host.is_contiguous() && !host.is_conj() &&
         !host.is_neg() && host.nbytes() >= kLaneBytes;
}

}  // namespace

Ahead &Ahead::of(int device) {
  static auto *all = [] {
    auto *made = new std::array<Ahead *, kMaxDevices>;
    for (int i = 0; i < kMaxDevices; i++)
      (*made)[i] = new Ahead(i);
    return made;
  }();
  return *(*all)[device];
}

// Batches whose host memory the program has dropped will not be asked for. Under the lock.
void Ahead::forget_ended() {
  for (size_t i = batches_.size(); i-- > 0;) {
    if (!batches_[i].host.expired())
      continue;
    nbytes_ -= batches_[i].nbytes;
    unused_++;
    batches_.erase(batches_.begin() + i);
  }
}

void Ahead::send(const at::Tensor &host) {
  if (!is_enabled_ || is_forked() || capturing(device_) || !is_plain(host))
    return;
  const uint64_t nbytes = host.nbytes();
  const MemoryCounters memory = memory_counters(device_);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    forget_ended();
    const bool has_room = nbytes_ + nbytes <= std::min(kMostBytes, memory.quota / kPartOfSlice) &&
                          memory.allocated + 2 * nbytes <= memory.quota;
    if (!has_room || unused_ > used_ + kPatience)
      return;
    nbytes_ += nbytes;
  }
  const auto *data = static_cast<const char *>(host.const_data_ptr());
  c10::Storage remote;
  bool is_sent = false;
  try {
    const CapturePause pause;  // one that begins now is another thread's
    remote = at::detail::empty_generic({static_cast<int64_t>(nbytes)}, storage_allocator(device_), kKeys, at::kByte, {})
                 .storage();
    is_sent = Lane::of(device_).is_open() && Lane::of(device_).upload(storage_id(remote), 0, data, nbytes);
  } catch (const c10::Error &) {  // no room after all, or the session ends: the program's own copy will say so
    is_sent = false;
  }
  Batch batch{c10::weak_intrusive_ptr<c10::StorageImpl>(host.storage().getWeakStorageImpl()), 0, nbytes, remote};
  batch.fingerprint = is_sent ? fingerprint(data, nbytes) : 0;
  std::lock_guard<std::mutex> lock(mutex_);
  if (is_sent) {
    sent_++;
    batches_.push_back(std::move(batch));
  } else {
    nbytes_ -= nbytes;
  }
}

at::Tensor Ahead::take(const at::Tensor &host) {
  if (!is_enabled_)
    return {};
  Batch found{c10::weak_intrusive_ptr<c10::StorageImpl>(host.storage().getWeakStorageImpl()), 0, 0, {}};
  {
    std::lock_guard<std::mutex> lock(mutex_);
    for (size_t i = 0; i < batches_.size(); i++) {
      if (batches_[i].host != found.host)
        continue;
      found = std::move(batches_[i]);
      batches_.erase(batches_.begin() + i);
      nbytes_ -= found.nbytes;
      break;
    }
    forget_ended();
  }
  if (found.nbytes == 0)
    return {};
  const auto *data = static_cast<const char *>(host.const_data_ptr());
  if (!is_plain(host) || host.nbytes() != found.nbytes || fingerprint(data, found.nbytes) != found.fingerprint) {
    unused_++;
    return {};
  }
  used_++;
  return tensor_over(found.remote, host.scalar_type(), host.sizes(), host.strides(), 0);
}

bool Ahead::drop() {
  std::vector<Batch> dropped;
  std::lock_guard<std::mutex> lock(mutex_);
  dropped.swap(batches_);
  unused_ += dropped.size();
  for (const Batch &batch : dropped)
    nbytes_ -= batch.nbytes;
  return !dropped.empty();
}

}  // namespace xpool
