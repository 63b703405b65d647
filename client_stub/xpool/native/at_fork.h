// A mutex that a forked child can take, whichever thread of its parent held it at the fork: the fork waits for it.
//
// For mutexes under which nothing else is locked and Python is not called; a fork would wait for that as well.
#pragma once
#include <pthread.h>

#include <mutex>

namespace xpool {

template <std::mutex &mutex>
bool survives_fork() {
  return pthread_atfork([] { mutex.lock(); }, [] { mutex.unlock(); }, [] { mutex.unlock(); }) == 0;
}

}  // namespace xpool
