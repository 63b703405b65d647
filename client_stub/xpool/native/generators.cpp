// torch.Generator on the remote device: the state is the server's, this is its number.
#include "capturing.h"

#include <ATen/EmptyTensor.h>
#include <c10/util/Exception.h>

namespace xpool {

RemoteGenerator::RemoteGenerator(int device, uint64_t number)
    : GeneratorImpl(remote_device(device), c10::DispatchKeySet(c10::DispatchKey::CUDA)), id(number) {}

RemoteGenerator::~RemoteGenerator() {
  if (is_forked() || id == 0)
    return;
  Bytes record;
  record.uint8(kFreeGenerator);
  record.uvarint(id);
  log().append(record);
}

void RemoteGenerator::set_current_seed(uint64_t value) {
  refuse_capture(device().index());
  seed_ = value;
  if (is_forked())  // a DataLoader worker seeds every device it sees; it has none to seed
    return;
  Bytes record;
  record.uint8(kSeedGenerator);
  record.uvarint(id);
  record.uint64(value);
  log().append(record);
}

uint64_t RemoteGenerator::seed() {
  set_current_seed(c10::detail::getNonDeterministicRandom(true));
  return seed_;
}

void RemoteGenerator::set_offset(uint64_t) {
  TORCH_CHECK_NOT_IMPLEMENTED(false, "xpool: a remote generator has no offset; use get_state and set_state");
}

uint64_t RemoteGenerator::get_offset() const {
  TORCH_CHECK_NOT_IMPLEMENTED(false, "xpool: a remote generator has no offset; use get_state and set_state");
}

void RemoteGenerator::set_state(const c10::TensorImpl &state) {
  TORCH_CHECK_TYPE(state.dtype() == caffe2::TypeMeta::Make<uint8_t>() && state.is_cpu() && state.is_contiguous(),
                   "RNG state must be a torch.ByteTensor");
  refuse_capture(device().index());
  Bytes record;
  record.uint8(kWriteGenerator);
  record.uvarint(id);
  record.text({static_cast<const char *>(state.data()), static_cast<size_t>(state.numel())});
  log().append(record);
}

c10::intrusive_ptr<c10::TensorImpl> RemoteGenerator::get_state() const {
  refuse_capture(device().index());
  const uint64_t request = log().next_request();
  Bytes record;
  record.uint8(kReadGenerator);
  record.uvarint(request);
  record.uvarint(id);
  log().append(record);
  const Answer answer = await(device().index(), request, "generator state");
  TORCH_CHECK(answer.payload_count == 1, "xpool: the server sent no generator state");
  at::TensorBase state = at::detail::empty_cpu({static_cast<int64_t>(answer.payload_nbytes[0])}, c10::kByte);
  memcpy(state.mutable_data_ptr(), answer.payloads[0], answer.payload_nbytes[0]);
  return state.getIntrusivePtr();
}

RemoteGenerator *RemoteGenerator::clone_impl() const {
  refuse_capture(device().index());
  const uint64_t number = log().next_generator();
  Bytes record;
  record.uint8(kNewGenerator);
  record.uvarint(number);
  log().append(record);
  auto *copy = new RemoteGenerator(device().index(), number);
  const auto state = get_state();
  copy->set_state(*state);
  copy->seed_ = seed_;
  return copy;
}

}  // namespace xpool
