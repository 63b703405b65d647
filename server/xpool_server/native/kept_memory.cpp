// The worker's allocator of tensors on a CPU: large blocks that are freed are kept for the next ones, up to a bound.
//
// glibc maps whatever has more than 32 MiB anew each time, and gives it back at once. Filling the kernel's fresh pages
// takes longer than receiving an upload into warm ones; in a virtual machine, whose host may have taken them, several
// times so. Smaller blocks are torch's own affair (host_memory.py). A block is taken again for what needs at least
// four fifths of it: the ledger counts what was asked for.
#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <unordered_map>
#include <vector>

namespace xpool_server {
namespace {

constexpr size_t kLarge = size_t(32) << 20;
constexpr size_t kPage = size_t(2) << 20;  // a large one; what we allocate begins at one

struct Block {
  void *data;
  size_t nbytes;
};

class KeptMemory final : public c10::Allocator {
 public:
  static KeptMemory &instance() {
    static KeptMemory *made = new KeptMemory;  // never ends: tensors may outlive all else
    return *made;
  }

  // From now on; again with another bound, which lets go of what is too much.
  void begin(size_t most) {
    const std::lock_guard<std::mutex> held(mutex_);
    most_ = most;
    shrink(most);
    if (!usual_) {
      usual_ = c10::GetCPUAllocator();
      c10::SetCPUAllocator(this, 255);
    }
  }

  c10::DataPtr allocate(size_t nbytes) override {
    if (nbytes < kLarge)
      return usual_->allocate(nbytes);
    void *data = take(nbytes);
    if (!data)
      return usual_->allocate(nbytes);  // which says what is wrong
    return {data, data, &KeptMemory::give_back, c10::Device(c10::DeviceType::CPU)};
  }

  c10::DeleterFnPtr raw_deleter() const override { return &KeptMemory::give_back; }

  void copy_data(void *to, const void *from, size_t nbytes) const override { default_copy_data(to, from, nbytes); }

  size_t kept_nbytes() {
    const std::lock_guard<std::mutex> held(mutex_);
    return kept_nbytes_;
  }

 private:
  // Of whatever `allocate` has given, torch's own included.
  static void give_back(void *data) {
    KeptMemory &self = instance();
    if (reinterpret_cast<uintptr_t>(data) % kPage || !self.give(data))
      self.usual_->raw_deleter()(data);
  }

  // Null: there is no memory.
  void *take(size_t nbytes) {
    const std::lock_guard<std::mutex> held(mutex_);
    auto best = kept_.end();
    for (auto one = kept_.begin(); one != kept_.end(); ++one) {
      const bool fits = one->nbytes >= nbytes && one->nbytes - nbytes <= one->nbytes / 5;
      if (fits && (best == kept_.end() || one->nbytes < best->nbytes))
        best = one;
    }
    if (best != kept_.end()) {
      const Block found = *best;
      kept_.erase(best);
      kept_nbytes_ -= found.nbytes;
      given_[found.data] = found.nbytes;
      return found.data;
    }
    nbytes = (nbytes + kPage - 1) / kPage * kPage;
    void *data = nullptr;
    if (posix_memalign(&data, kPage, nbytes)) {
      shrink(0);  // what is kept may be all that is missing
      if (posix_memalign(&data, kPage, nbytes))
        return nullptr;
    }
    madvise(data, nbytes, MADV_HUGEPAGE);  // a wish: without it there are only more faults
    given_[data] = nbytes;
    return data;
  }

  // Whether it is one of ours.
  bool give(void *data) {
    const std::lock_guard<std::mutex> held(mutex_);
    const auto found = given_.find(data);
    if (found == given_.end())
      return false;
    const Block block{data, found->second};
    given_.erase(found);
    if (block.nbytes > most_) {
      std::free(block.data);
      return true;
    }
    shrink(most_ - block.nbytes);
    kept_.push_back(block);
    kept_nbytes_ += block.nbytes;
    return true;
  }

  // Let go of what was freed longest ago, until so much is left.
  void shrink(size_t most) {
    size_t count = 0;
    for (; kept_nbytes_ > most; count++) {
      kept_nbytes_ -= kept_[count].nbytes;
      std::free(kept_[count].data);
    }
    kept_.erase(kept_.begin(), kept_.begin() + count);
  }

  std::mutex mutex_;
  c10::Allocator *usual_ = nullptr;
  size_t most_ = 0, kept_nbytes_ = 0;
  std::vector<Block> kept_;  // freed longest ago first
  std::unordered_map<void *, size_t> given_;
};

}  // namespace
}  // namespace xpool_server

#define API extern "C" __attribute__((visibility("default")))

// Keep up to so many bytes of freed large blocks, from now on and in this process.
API void xs_keep_memory(uint64_t most) { xpool_server::KeptMemory::instance().begin(most); }

// What is kept now.
API uint64_t xs_kept_nbytes() { return xpool_server::KeptMemory::instance().kept_nbytes(); }
