// A tensor as an argument of a program's own kernel: which storage it is, and where in it.
#include <exception>
#include <string>

#include "capturing.h"
#include "dispatch.h"
#include "remote.h"

using namespace xpool;

#define XPOOL_API extern "C" __attribute__((visibility("default")))

namespace {

void locate(const at::Tensor &tensor, uint64_t found[3]) {
  TORCH_CHECK(is_remote(tensor), "a kernel was given a tensor on ", tensor.device(), ", which it can't reach");
  TORCH_CHECK(tensor.layout() == c10::kStrided, "a kernel was given a tensor that is not dense");
  TORCH_CHECK(!tensor.is_conj() && !tensor.is_neg(),
              "a kernel was given a tensor that is a conjugate or negative view: call resolve_conj() and resolve_neg()");
  const int device = tensor.device().index();
  refuse_capture(device);  // a graph's numbers of storages mean nothing in a log
  found[0] = static_cast<uint64_t>(device);
  found[1] = storage_id(tensor.storage());
  found[2] = static_cast<uint64_t>(tensor.storage_offset()) * tensor.itemsize();
}

}  // namespace

// Device, storage number and byte offset of a tensor, a c10::TensorImpl that the caller keeps alive. Null, or what is
// wrong. Called with Python's lock: nothing here waits.
XPOOL_API const char *xpool_kernel_argument(void *tensor, uint64_t found[3]) {
  static thread_local std::string error;
  try {
    auto *impl = static_cast<c10::TensorImpl *>(tensor);
    locate(at::Tensor(c10::intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl>::reclaim_copy(impl)), found);
    return nullptr;
  } catch (const c10::Error &problem) {
    error = problem.what_without_backtrace();
  } catch (const std::exception &problem) {
    error = problem.what();
  }
  return error.c_str();
}
