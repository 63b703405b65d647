// Bytes between host and device, and numbers read back.
#include "ahead.h"
#include "capture.h"
#include "kernels.h"
#include "lane.h"
#include "peers.h"

#include <ATen/EmptyTensor.h>

namespace xpool {

using at::Tensor;

namespace {

void write_row_major(const Tensor &remote, const Tensor &host) {
  const Tensor dense = host.resolve_conj().resolve_neg().contiguous();
  const uint64_t storage = storage_id(remote.storage()), offset = remote.storage_offset() * remote.element_size();
  const int device = remote.device().index();
  const auto *data = static_cast<const char *>(dense.const_data_ptr());
  if (Capture *capture = capturing(device))
    return capture->append_write(storage, offset, data, dense.nbytes());
  if (const Tensor sent = Ahead::of(device).take(dense); sent.defined()) {
    call_writing(operation_named("aten::copy_"), {remote, sent, true});
    return;
  }
  if (dense.nbytes() >= kLaneBytes && Lane::of(device).is_open() &&
      Lane::of(device).upload(storage, offset, data, dense.nbytes()))
    return;
  for (uint64_t at = 0; at < dense.nbytes(); at += kTransferBytes) {
    leave_room(device);
    const auto part = std::min<uint64_t>(kTransferBytes, dense.nbytes() - at);
    Log::of(device).append_write(storage, offset + at, data + at, part);
  }
}

// A graph would keep the bytes of now, and a program means those of each replay. From and to pinned memory each replay
// copies beside the graph, by a tensor that is the graph's parameter.
bool copy_in_replays(Tensor &self, const Tensor &source, int device) {
  Capture *capture = capturing(device);
  const Tensor &host = is_remote(self) ? source : self;
  if (!capture || capture->kind != Capture::Kind::kGraph || !host.is_pinned())
    return false;
  HostCopy copy{{}, host.detach(), is_remote(self)};
  {
    const CapturePause pause;
    copy.remote = at::detail::empty_generic(source.sizes(), storage_allocator(device), kKeys, source.scalar_type(), {});
    storage_id(copy.remote.storage());
  }
  call_writing(operation_named("aten::copy_"),
               {copy.is_upload ? self : copy.remote, copy.is_upload ? copy.remote : source, true});
  capture->copy_in_replays(copy);
  return true;
}

void check_may_be_kept(int device) {
  Capture *capture = capturing(device);
  if (!capture || capture->kind != Capture::Kind::kGraph)
    return;
  capture->is_invalid = true;
  TORCH_CHECK(false, "Cannot copy between CPU and CUDA tensors during CUDA graph capture unless the CPU tensor "
                     "is pinned.");
}

void copy_to_device(Tensor &self, const Tensor &host) {
  check_may_be_kept(self.device().index());
  if (host.dim() == 0) {
    call_writing(operation_named("aten::copy_"), {self, host, false});
  } else if (self.scalar_type() == host.scalar_type() && self.sizes() == host.sizes() && self.is_contiguous() &&
             !self.is_conj() && !self.is_neg()) {
    write_row_major(self, host);
  } else {
    call_writing(operation_named("aten::copy_"), {self, upload(host, self.device().index()), false});
  }
}

void read_row_major(const Tensor &remote, char *to) {
  read_storage(remote.storage(), remote.storage_offset() * remote.element_size(), to, remote.nbytes());
}

void copy_to_host(Tensor &self, const Tensor &remote) {
  const Tensor dense = remote.resolve_conj().resolve_neg().contiguous();
  if (self.is_contiguous() && self.scalar_type() == dense.scalar_type() && self.sizes() == dense.sizes() &&
      !self.is_conj() && !self.is_neg()) {
    read_row_major(dense, static_cast<char *>(self.mutable_data_ptr()));
    return;
  }
  Tensor staged = at::detail::empty_cpu(dense.sizes(), dense.scalar_type());
  read_row_major(dense, static_cast<char *>(staged.mutable_data_ptr()));
  self.copy_(staged);
}

}  // namespace

Tensor &copy_(Tensor &self, const Tensor &source, bool non_blocking) {
  if (after_structured())  // torch copies a stand-in output back: the server's call has written the real one
    return self;
  StructuredPause pause;
  if (self.numel() == 0 && source.numel() == 0)
    return self;
  if (is_remote(self) && is_remote(source)) {
    if (self.device() != source.device())
      copy_between(self, source);
    else if (!self.is_same(source))
      call_writing(operation_named("aten::copy_"), {self, source, non_blocking});
  } else if (copy_in_replays(self, source, (is_remote(self) ? self : source).device().index())) {
    return self;
  } else if (is_remote(self)) {
    TORCH_CHECK(source.device().is_cpu(), "xpool: a copy from ", source.device(), " to a remote device is not possible");
    copy_to_device(self, source);
  } else {
    TORCH_CHECK(self.device().is_cpu(), "xpool: a copy from a remote device to ", self.device(), " is not possible");
    if (self.sizes() == source.sizes())
      copy_to_host(self, source);
    else
      self.copy_(source.cpu());
  }
  return self;
}

Tensor copy_from(const Tensor &self, const Tensor &to, bool non_blocking) {
  Tensor target = to;
  copy_(target, self, non_blocking);
  return target;
}

Tensor copy_from_and_resize(const Tensor &self, const Tensor &to) {
  Tensor target = to;
  target.resize_(self.sizes());
  copy_(target, self, false);
  return target;
}

at::Scalar local_scalar(const Tensor &self) {
  StructuredPause pause;
  Tensor host = at::detail::empty_cpu({}, self.scalar_type());
  read_storage(self.storage(), self.storage_offset() * self.element_size(),
               static_cast<char *>(host.mutable_data_ptr()), self.element_size());
  host._set_conj(self.is_conj());
  host._set_neg(self.is_neg());
  return host.item();
}

Tensor upload(const Tensor &host, int device) {
  check_may_be_kept(device);
  const Tensor remote = at::detail::empty_generic(host.sizes(), storage_allocator(device), kKeys, host.scalar_type(), {});
  write_row_major(remote, host);
  return remote;
}

}  // namespace xpool
