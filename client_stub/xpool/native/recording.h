// Calls as records of the log, and the tensors that stand for their results.
#pragma once
#include "encoding.h"
#include "inference.h"

namespace xpool {

// Appends head, operation number and tail to a device's log, once there is room.
void record(int device, Operation &operation, const Bytes &head, const Bytes &tail);
const Bytes &call_head();
void put_output(Bytes &to, const at::Tensor &tensor);
// Results of a call whose new tensors the plan describes, into `encoding.results`, and encoded as its outputs.
void predict_results(const Operation &operation, Arguments arguments, const Plan &plan, Encoding &encoding);
// After the call is recorded: the server knows its results.
void mark_results(const c10::IValue *results, size_t count);
// A call whose results the server must tell: waits for them.
Stack requested_results(Operation &operation, Arguments arguments, const Encoding &encoding);

}  // namespace xpool
