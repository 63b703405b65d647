// How a thread of the program waits for the pump: without Python's lock, and so that a signal can end it.
#pragma once
#include "pump_api.h"
#include "remote.h"

namespace xpool {

// Waits until the answer is there, or a signal handler wants the wait to end (status 3). False if Python has to say
// how this ends. The answer's memory is this thread's until it asks again or calls `drop_reply`.
bool wait_natively(Pump &pump, uint64_t request, Answer &answer);
void drop_reply();
// Throws if a signal handler wants the wait to end.
void wait_for_room(Pump &pump, const Log &log);

}  // namespace xpool
