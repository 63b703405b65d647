// Where the geometry of a call's results comes from before the server has run it.
#pragma once
#include <memory>

#include "dispatch.h"

namespace xpool {

struct Leaf {
  bool is_defined;
  c10::ScalarType dtype;
  std::vector<int64_t> sizes, strides;
  // What follows from these: the bytes of its storage, and its geometry as it is encoded.
  uint64_t nbytes = 0;
  Bytes geometry = {};
};
constexpr int kOneTensor = -1, kNumber = -2;
// Geometry of all new results; `counts` per return: leaves of a list, or one of the two above.
struct Plan {
  std::vector<Leaf> leaves;
  std::vector<int> counts;
  std::vector<c10::IValue> numbers = {};
};

// Runs the operation on meta tensors; `metas` gets its arguments.
Stack run_meta(const Operation &operation, Arguments arguments, Stack &metas);
// Geometry of the results on the stack; false if some result is neither a tensor nor a number that may be kept.
bool plan_from(const Operation &operation, const Stack &results, Plan &plan);
// The plan of a call without one yet: from the meta kernel, or null where the server must say.
std::shared_ptr<const Plan> infer(const Operation &operation, Arguments arguments);
// index.Tensor and its like are tagged as dynamic, but are so only with masks.
bool is_gather(const Operation &operation, Arguments arguments);

std::shared_ptr<const Plan> find_plan(std::string_view key);
void remember_plan(std::string_view key, std::shared_ptr<const Plan> plan);
void forget_plans();

}  // namespace xpool
