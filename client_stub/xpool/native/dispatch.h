// The boxed fallback's parts: what a schema says, how a call is encoded, where results' geometry comes from.
#pragma once
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "remote.h"

namespace xpool {

using torch::jit::Stack;
using Arguments = c10::ArrayRef<c10::IValue>;

// Value tags of SPEC.md section 4.
enum Tag : uint8_t {
  kNone = 0,
  kFalse = 1,
  kTrue = 2,
  kInt = 3,
  kFloat = 4,
  kComplex = 5,
  kText = 6,
  kList = 7,
  kInts = 8,
  kTensor = 9,
  kHostTensor = 10,
  kDType = 11,
  kDevice = 12,
  kLayout = 13,
  kMemoryFormat = 14,
  kGenerator = 15,
};

// How an argument that travels as an integer on torch's stack is tagged on the wire.
enum class Meaning : uint8_t { kPlain, kDType, kLayout, kMemoryFormat, kScalar };

struct Operation {
  explicit Operation(const c10::OperatorHandle &handle);

  const c10::OperatorHandle handle;
  const c10::FunctionSchema &schema;
  WireOperation wire;
  std::vector<Meaning> meanings;           // one per argument
  std::vector<int> written;                // arguments the schema writes
  std::vector<int> return_to_argument;     // per return: the argument it is, or -1
  bool only_writes = false;                // every result is an argument, or there is none: nothing to predict
  bool has_out = false;                    // an out= argument, which the operation may resize
  bool is_view = false;                    // results are views of the first argument
  bool is_dynamic = false;                 // sizes depend on data
  bool returns_number = false;             // some result is not a tensor
  bool has_fixed_numbers = false;          // but the geometry of the arguments decides it
  bool grows_written = false;              // in-place, and may change its argument's size
  std::atomic<bool> must_learn{false};     // meta kernels model another device: ask once, then remember
  bool takes_host_indices = false;         // CPU index tensors of any size are legal
  bool fills_out = false;                  // a factory: the numbers decide the size of its out= argument, and no layout
  bool scalars_shape = false;              // Scalar arguments decide sizes (arange)
  int device_argument = -1;
  std::atomic<uint64_t> lacking_on{0};     // bit i: the server of device i has no kernel for it
  std::atomic<uint64_t> plain_on{0};       // or only one for the plain value of some argument
};

Operation &operation_of(const c10::OperatorHandle &handle);

void dispatch(const c10::OperatorHandle &handle, Stack *stack);  // the boxed fallback

// The same for operations whose results torch can infer in C++ (see structured.cpp).
void dispatch_structured(const c10::OperatorHandle &handle, Stack *stack);

// Whether outputs of a structured operation are being made now, or post-processed.
bool in_structured();
bool after_structured();
void note_unannounced(const c10::Storage &storage);
// Kernels that record something open one: nothing of theirs belongs to the structured operation around them.
struct StructuredPause {
  StructuredPause();
  ~StructuredPause();
  StructuredPause(const StructuredPause &) = delete;
  StructuredPause &operator=(const StructuredPause &) = delete;

 private:
  void *outer_;
};

// Encodes one call whose results are arguments; used by kernels that build calls themselves.
void call_writing(Operation &operation, const std::vector<c10::IValue> &arguments);

at::Tensor tensor_over(const c10::Storage &storage, c10::ScalarType dtype, c10::IntArrayRef sizes,
                       c10::IntArrayRef strides, int64_t offset);
uint64_t span_items(c10::IntArrayRef sizes, c10::IntArrayRef strides);
bool is_remote(const at::Tensor &tensor);

// An upload of a host tensor into a fresh row-major remote one.
at::Tensor upload(const at::Tensor &host, int device);

bool server_is_cpu(int device);
void set_server_is_cpu(int device, bool value);

// What a server's device lacks (see lacking.cpp). The device of a call is that of its first remote tensor.
void set_server_text(int device, const std::string &text);
void set_lacking(int device, const std::string &what);
// From now on the results of this operation are asked for, and what was known of any is forgotten.
void learn(const std::string &operation);
int device_of_call(const Operation &operation, const Stack &stack);
void refuse_if_lacking(const Operation &operation, const Stack &stack);

void register_kernels();

struct PlanCounters {
  uint64_t hits, misses, requests;
};
PlanCounters plan_counters();
void count_request();

}  // namespace xpool
