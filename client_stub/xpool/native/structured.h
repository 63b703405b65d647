// The state of the structured operation that this thread is in; see structured.cpp.
#pragma once
#include "dispatch.h"

namespace xpool {

// Takes the out= call of the structured operation around it in place of recording it.
bool swallow(const Operation &operation, Stack *stack);

}  // namespace xpool
