// Batches that a DataLoader has pinned, sent before the program asks for them: what a job waits for a batch's bytes is
// then the network's time less the steps in between. The program sees nothing of it but memory of its slice in use.
#pragma once
#include <ATen/core/Tensor.h>
#include <c10/core/Storage.h>

#include <atomic>
#include <cstdint>
#include <mutex>
#include <vector>

namespace xpool {

class Ahead {
 public:
  static Ahead &of(int device);

  // Sends the bytes of host memory now if that is likely to pay: there is room, and what went ahead before was used.
  void send(const at::Tensor &host);
  // A device tensor of `host`'s geometry that holds its bytes of now; undefined if none was sent or they have changed.
  at::Tensor take(const at::Tensor &host);
  // Gives the memory of all back; false if there was none.
  bool drop();
  // The lane is open and leads over the network: from now on sending ahead pays. To a server on this host it would not.
  void enable() { is_enabled_ = true; }

  struct Counters {
    uint64_t sent, used;
  };
  Counters counters() const { return {sent_, used_}; }

 private:
  explicit Ahead(int device) : device_(device) {}
  struct Batch {
    c10::weak_intrusive_ptr<c10::StorageImpl> host;
    uint64_t fingerprint, nbytes;
    c10::Storage remote;
  };
  void forget_ended();

  const int device_;
  std::atomic<bool> is_enabled_{false};
  std::atomic<uint64_t> sent_{0}, used_{0}, unused_{0};
  std::mutex mutex_;
  std::vector<Batch> batches_;
  uint64_t nbytes_ = 0;
};

}  // namespace xpool
