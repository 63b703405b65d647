#include "interpreter.h"

#include <csignal>
#include <initializer_list>

#include <dlfcn.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace xpool {

namespace {

template <typename Function>
Function found(const char *name) {
  return reinterpret_cast<Function>(dlsym(RTLD_DEFAULT, name));
}

// CPython's stable functions; objects and states are only passed on.
struct Python {
  int (*holds_lock)() = found<int (*)()>("PyGILState_Check");
  void *(*save_thread)() = found<void *(*)()>("PyEval_SaveThread");
  void (*restore_thread)(void *) = found<void (*)(void *)>("PyEval_RestoreThread");
  int (*ensure)() = found<int (*)()>("PyGILState_Ensure");
  void (*release)(int) = found<void (*)(int)>("PyGILState_Release");
  int (*check_signals)() = found<int (*)()>("PyErr_CheckSignals");
  void (*fetch)(void **, void **, void **) = found<void (*)(void **, void **, void **)>("PyErr_Fetch");
  void (*normalize)(void **, void **, void **) = found<void (*)(void **, void **, void **)>("PyErr_NormalizeException");
  int (*set_traceback)(void *, void *) = found<int (*)(void *, void *)>("PyException_SetTraceback");
  void (*forget)(void *) = found<void (*)(void *)>("Py_DecRef");
  int (*interrupt)(int) = found<int (*)(int)>("PyErr_SetInterruptEx");
};

const Python &python() {
  static const Python functions;
  return functions;
}

int (*signal_behind)(void *) = nullptr;
// Only the main thread uses these two.
bool is_running_handlers = false;
int deferred = 0;

// Takes the raised exception; the signal whose handler raised it.
int signal_of_raised() {
  void *type = nullptr, *value = nullptr, *trace = nullptr;
  python().fetch(&type, &value, &trace);
  python().normalize(&type, &value, &trace);
  if (value && trace)
    python().set_traceback(value, trace);
  const int number = signal_behind && value ? signal_behind(value) : SIGINT;
  for (void *object : {type, value, trace})
    python().forget(object);
  return number;
}

}  // namespace

WithoutPythonLock::WithoutPythonLock() {
  if (python().holds_lock && python().holds_lock())
    state_ = python().save_thread();
}

WithoutPythonLock::~WithoutPythonLock() {
  if (state_)
    python().restore_thread(state_);
}

bool is_main_thread() { return syscall(SYS_gettid) == getpid(); }

int run_signal_handlers() {
  if (!is_main_thread() || !python().check_signals)
    return 0;
  const int state = python().ensure();
  is_running_handlers = true;
  const int raised = python().check_signals();
  is_running_handlers = false;
  int number = raised ? signal_of_raised() : 0;
  if (deferred)
    number = deferred;
  deferred = 0;
  python().release(state);
  return number;
}

bool defer_signal(int signal) {
  if (is_running_handlers)
    deferred = signal;
  return is_running_handlers;
}

void set_signal_behind(int (*function)(void *)) { signal_behind = function; }

void deliver_again(int signal) {
  if (python().interrupt && signal)
    python().interrupt(signal);
}

void wait_for_the_end() {
  while (true)
    pause();
}

}  // namespace xpool
