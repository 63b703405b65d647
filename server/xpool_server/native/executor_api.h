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
  // Within a run of a plan: its records, and where the one stands that it has stopped at.
  const void *expansion;
  uint64_t expansion_nbytes, expansion_at, plan;
};

inline void tell_stop(const xpool_server::Executor &executor, uint64_t record_count, XsStop *stop) {
  const auto &answer = executor.answer;
  const auto &run = executor.expansion;
  *stop = {executor.position, record_count, executor.leaves.size(), executor.bound, answer.request, answer.data,
           answer.nbytes};
  stop->expansion = run.plan ? run.records.data() : nullptr;
  stop->expansion_nbytes = run.records.size();
  stop->expansion_at = run.at;
  stop->plan = run.id;
}
