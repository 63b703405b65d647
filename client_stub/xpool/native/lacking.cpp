// What the server's device has no kernel for: told by the server when the session opens, decided upon here alone.
#include <array>

#include "dispatch.h"
#include "inference.h"

namespace xpool {

static_assert(kMaxDevices <= 64, "a device is a bit");

static std::string &server_text(int device) {
  static auto *texts = new std::array<std::string, kMaxDevices>;
  return (*texts)[device];
}

void set_server_text(int device, const std::string &text) { server_text(device) = text; }

// `aten::NAME.OVERLOAD`; nothing where this torch has no such operation.
static std::optional<c10::OperatorHandle> handle_of(const std::string &name) {
  const size_t dot = name.find('.');
  return c10::Dispatcher::singleton().findSchema(
      {name.substr(0, dot), dot == std::string::npos ? "" : name.substr(dot + 1)});
}

void learn(const std::string &operation) {
  const auto handle = handle_of(operation);
  if (!handle)
    return;
  operation_of(*handle).must_learn = true;
  forget_plans();
}

// `OPERATION`, or `OPERATION?ARGUMENT` for a kernel that takes only the plain value of that argument. What this torch
// does not know it never calls either.
void set_lacking(int device, const std::string &what) {
  const size_t mark = what.find('?');
  const std::string name = what.substr(0, mark);
  const auto handle = handle_of(name);
  if (!handle)
    return;
  Operation &operation = operation_of(*handle);
  const uint64_t bit = uint64_t{1} << device;
  if (mark == std::string::npos)
    operation.lacking_on |= bit;
  else if (operation.schema.argumentIndexWithName(what.substr(mark + 1)))
    operation.plain_on |= bit;
}

static int remote_index(const c10::IValue &value) {
  if (value.isTensor() && is_remote(value.toTensor()))
    return value.toTensor().device().index();
  if (value.isTensorList())
    for (const auto &tensor : value.toTensorVector())
      if (is_remote(tensor))
        return tensor.device().index();
  return -1;
}

int device_of_call(const Operation &operation, const Stack &stack) {
  const size_t count = operation.schema.arguments().size();
  for (size_t i = 0; i < count; i++)
    if (const int index = remote_index(torch::jit::peek(stack, i, count)); index >= 0)
      return index;
  return current_device();
}

void refuse_if_lacking(const Operation &operation, const Stack &stack) {
  const int device = device_of_call(operation, stack);
  if (operation.lacking_on >> device & 1)
    C10_THROW_ERROR(NotImplementedError, c10::str(operation.wire.name, " has no kernel for ", server_text(device),
                                                  ", and xpool knows no other words for it"));
}

}  // namespace xpool
