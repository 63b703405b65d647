// Copies between devices of the job, from server to server.
#pragma once
#include "dispatch.h"

namespace xpool {

// How the other workers of the job reach a device's worker.
void set_peer(int device, const char *address, const char *key, const char *name);
// self[:] = source, on different devices; waits for nothing.
void copy_between(at::Tensor &self, const at::Tensor &source);

}  // namespace xpool
