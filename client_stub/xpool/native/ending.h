// What keeps the end of the interpreter quiet; see ending.cpp.
#pragma once

namespace xpool {

// Before 3.14: a thread that asks for the interpreter's lock too late waits, as it does from 3.14 on. False if the
// interpreter imports nothing that could be replaced.
bool let_late_threads_wait();

// The calling thread ends the interpreter: from now on all others wait at their next remote operation.
void begin_ending();
bool is_ending();
void wait_if_ending();

}  // namespace xpool
