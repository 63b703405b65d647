// What both parts of the C interface tell Python of an executor that has stopped.
#pragma once
#include <cstdint>

#include "executor.h"

// As `Stop` in library.py.
struct XsStop {
  uint64_t position, record_count, leaf_count, bound;
  uint64_t request;
  const void *data;
  uint64_t nbytes;
};

inline void tell_stop(const xpool_server::Executor &executor, uint64_t record_count, XsStop *stop) {
  const auto &answer = executor.answer;
  *stop = {executor.position, record_count, executor.leaves.size(), executor.bound,
           answer.request,    answer.data,  answer.nbytes};
}
