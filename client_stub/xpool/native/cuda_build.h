// What a CUDA build of torch needs; on a CPU build none of it is called.
#pragma once
#include <c10/util/Exception.h>

#include "kernels.h"

namespace xpool {

using Boxed = void(const c10::OperatorHandle &, Stack *);

// ---- kernels.cpp

// What a call must find under the device's own key, or null where torch's own choice for a key without kernels is right.
Boxed *kernel_by_schema(const c10::OperatorHandle &handle);

// ---- cuda_build.cpp

// Every kernel that a CUDA build of torch, or an extension since, has registered for the device: in its place comes
// what a call finds on a CPU build.
void take_over_kernels();
// What is registered by now stays: our own kernels, and those of the program.
void settle_kernels();
// For the while that kernels are replaced, of which torch warns.
c10::WarningHandler *no_warnings();

}  // namespace xpool
