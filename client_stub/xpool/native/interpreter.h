// What waiting code needs of the Python interpreter around it; found at run time, as nothing here is built against it.
#pragma once

namespace xpool {

// Lets go of Python's lock if this thread holds it, and takes it back at the end.
class WithoutPythonLock {
 public:
  WithoutPythonLock();
  ~WithoutPythonLock();
  WithoutPythonLock(const WithoutPythonLock &) = delete;
  WithoutPythonLock &operator=(const WithoutPythonLock &) = delete;

 private:
  void *state_ = nullptr;
};

// Runs the handlers of signals that have come. If one raised, or asked by `defer_signal` for the wait to end, the
// signal to deliver again when the wait has ended; otherwise 0. Only the main thread runs handlers.
int run_signal_handlers();
// For a handler, while `run_signal_handlers` runs it: end the wait. False at any other time.
bool defer_signal(int signal);
// The signal whose handler raised this exception; Python tells.
void set_signal_behind(int (*signal_behind)(void *exception));

void deliver_again(int signal);

// At the interpreter's end a thread that comes back to Python would be killed in the middle: it waits for the end.
[[noreturn]] void wait_for_the_end();
bool is_main_thread();

}  // namespace xpool
