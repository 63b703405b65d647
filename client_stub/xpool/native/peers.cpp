// Copies between devices of the job: a Send in the log of one, a Receive in the log of the other.
#include "peers.h"

#include <ATen/EmptyTensor.h>
#include <c10/util/Exception.h>

#include <sys/random.h>

#include <array>
#include <mutex>
#include <string>

#include "capturing.h"
#include "kernels.h"

namespace xpool {

using at::Tensor;

namespace {

constexpr size_t kTicketBytes = 16;

struct Peer {
  std::string name;
  Bytes define;  // the record that makes it known in another device's log
};

std::array<Peer, kMaxDevices> peers;

// Both records of a copy stand before both of another one: SPEC.md section 5 says why.
std::mutex pair_mutex;

Bytes transfer(Record kind, uint64_t storage, uint64_t offset, uint64_t nbytes, const char *ticket, int peer) {
  Bytes record;
  record.uint8(kind);
  record.uvarint(storage);
  record.uvarint(offset);
  record.uvarint(nbytes);
  record.raw(ticket, kTicketBytes);
  record.uvarint(peer);
  return record;
}

const Peer &peer_of(int device) {
  TORCH_CHECK(!peers[device].define.str().empty(), "xpool: the server of cuda:", device,
              " exchanges nothing with other servers; copy through the host: .cpu()");
  return peers[device];
}

void send(const Tensor &to, const Tensor &from) {
  const int source = from.device().index(), target = to.device().index();
  refuse_capture(source);  // a graph is one device's, and its numbers mean nothing in a log
  refuse_capture(target);
  const Peer &source_peer = peer_of(source), &target_peer = peer_of(target);
  const uint64_t source_id = storage_id(from.storage()), target_id = storage_id(to.storage());
  const uint64_t source_at = from.storage_offset() * from.element_size(),
                 target_at = to.storage_offset() * to.element_size();
  for (uint64_t at = 0; at < from.nbytes(); at += kTransferBytes) {
    const uint64_t part = std::min<uint64_t>(kTransferBytes, from.nbytes() - at);
    char ticket[kTicketBytes];
    TORCH_CHECK(getrandom(ticket, sizeof ticket, 0) == sizeof ticket, "xpool: the system has no random bytes");
    leave_room(source);
    leave_room(target);
    std::lock_guard<std::mutex> lock(pair_mutex);
    Log::of(source).append_for_peer(target, target_peer.define,
                                    transfer(kSend, source_id, source_at + at, part, ticket, target));
    Log::of(target).append_for_peer(source, source_peer.define,
                                    transfer(kReceive, target_id, target_at + at, part, ticket, source));
  }
}

}  // namespace

void set_peer(int device, const char *address, const char *key, const char *name) {
  Bytes define;
  define.uint8(kDefinePeer);
  define.uvarint(device);
  define.text(address);
  define.text(key);
  define.text(name);
  peers[device] = {name, define};
}

void copy_between(Tensor &self, const Tensor &source) {
  // What is converted is converted where it lies, and only rows of bytes travel.
  const Tensor dense = source.resolve_conj().resolve_neg().to(self.scalar_type()).contiguous();
  if (self.sizes() == dense.sizes() && self.is_contiguous() && !self.is_conj() && !self.is_neg())
    return send(self, dense);
  const Tensor staged = at::detail::empty_generic(dense.sizes(), storage_allocator(self.device().index()), kKeys,
                                                  dense.scalar_type(), {});
  send(staged, dense);
  call_writing(operation_named("aten::copy_"), {self, staged, false});
}

}  // namespace xpool
