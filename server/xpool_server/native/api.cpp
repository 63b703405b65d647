// What library.py calls. Functions that return a Python object, or raise, are called with Python's lock held; `xs_run`
// is called without. Python's headers are not needed: torch's own functions make the objects.
#include <ATen/core/Tensor.h>
#include <c10/core/Storage.h>

#include "executor_api.h"

typedef struct _object PyObject;
PyObject *THPVariable_Wrap(const at::TensorBase &tensor);
PyObject *THPStorage_Wrap(c10::Storage storage);
namespace torch {
void translate_exception_to_python(const std::exception_ptr &error);
}

using xpool_server::Entry;
using xpool_server::Executor;
using xpool_server::Operation;
using xpool_server::Storages;

#define API extern "C" __attribute__((visibility("default")))

namespace {

// Runs what may raise in C++; a Python error is set then, which library.py raises.
template <class Run>
auto translated(Run run, decltype(run()) otherwise) -> decltype(run()) {
  try {
    return run();
  } catch (...) {
    torch::translate_exception_to_python(std::current_exception());
    return otherwise;
  }
}

c10::StorageImpl *impl_at(uint64_t address) { return reinterpret_cast<c10::StorageImpl *>(address); }

c10::Storage storage_at(uint64_t address) {
  return c10::Storage(c10::intrusive_ptr<c10::StorageImpl>::reclaim_copy(impl_at(address)));
}

}  // namespace

struct XsLedger {
  uint64_t allocated_nbytes, peak_nbytes, live_count, handle_count, executed_ops;
};

API Executor *xs_new(const char *device, uint64_t quota_nbytes, uint64_t max_handles) {
  return translated([&]() { return new Executor(c10::Device(device), quota_nbytes, max_handles); }, nullptr);
}

API void xs_delete(Executor *executor) { delete executor; }

API int32_t xs_define(Executor *executor, uint64_t number, const char *name, const char *overload,
                      const char *const *argument_names, uint64_t count, int32_t takes_numbers) {
  return translated(
      [&]() {
        const auto handle = c10::Dispatcher::singleton().findSchemaOrThrow(name, overload);
        const std::vector<std::string> names(argument_names, argument_names + count);
        executor->define(number, std::make_unique<Operation>(handle, names, takes_numbers));
        return 0;
      },
      -1);
}

API void xs_undefine(Executor *executor, uint64_t number) { executor->define(number, nullptr); }

namespace {

int32_t stopped(const Executor *executor, xpool_server::Outcome outcome, XsStop *stop) {
  tell_stop(*executor, executor->record_count, stop);
  return static_cast<int32_t>(outcome);
}

}  // namespace

API int32_t xs_run(Executor *executor, const char *records, uint64_t nbytes, uint64_t from, XsStop *stop) {
  const auto outcome = executor->run(reinterpret_cast<const uint8_t *>(records), nbytes, from);
  return stopped(executor, outcome, stop);
}

// What a plan is, as xpool_protocol/plans.py has read it.
struct XsPlan {
  const char *records;
  uint64_t nbytes;
  const uint64_t *ends;
  uint64_t record_count;
  const xpool_server::PlanHole *holes;
  uint64_t hole_count;
  const xpool_server::PlanVariable *variables;
  uint64_t variable_count;
  const xpool_server::PlanEarly *early;
  uint64_t early_count;
};

API int32_t xs_define_plan(Executor *executor, uint64_t id, const XsPlan *plan) {
  return translated(
      [&]() {
        executor->plans.define(
            id, std::make_unique<xpool_server::Plan>(
                    std::string(plan->records, plan->nbytes), std::vector(plan->ends, plan->ends + plan->record_count),
                    std::vector(plan->holes, plan->holes + plan->hole_count),
                    std::vector(plan->variables, plan->variables + plan->variable_count),
                    std::vector(plan->early, plan->early + plan->early_count)));
        return 0;
      },
      -1);
}

API void xs_free_plan(Executor *executor, uint64_t id) { executor->plans.free(id); }

// Python has executed the record of a plan's run that `xs_run` stopped at.
API void xs_go_on_in_plan(Executor *executor, uint64_t at) { executor->go_on_in_plan(at); }

// Bytes that the runs of this batch stand for so far.
API uint64_t xs_expanded(Executor *executor) { return executor->plans.expanded(); }

API int32_t xs_define_graph(Executor *executor, uint64_t id, const char *records, uint64_t nbytes,
                            uint64_t storage_count) {
  return translated([&]() { return executor->define_graph(id, std::string(records, nbytes), storage_count), 0; }, -1);
}

API void xs_free_graph(Executor *executor, uint64_t id) { executor->free_graph(id); }

// The graph is known, and so are its numbers and the storages.
API int32_t xs_run_graph(Executor *executor, uint64_t id, const uint64_t *numbers, const uint64_t *parameters,
                         uint64_t count, XsStop *stop) {
  return stopped(executor, executor->run_graph(id, numbers, parameters, count), stop);
}

// Numbers of storages that the last run of a graph made and has not freed; `to` has room for all of the graph's.
API uint64_t xs_made(Executor *executor, uint64_t *to) {
  const auto numbers = executor->made();
  std::copy(numbers.begin(), numbers.end(), to);
  return numbers.size();
}

// Bytes of one of those, as it was last charged.
API uint64_t xs_made_nbytes(Executor *executor, uint64_t number) { return executor->slots[number]->nbytes; }

API PyObject *xs_made_storage(Executor *executor, uint64_t number) {
  return translated([&]() { return THPStorage_Wrap(executor->slots.at(number)->storage); }, nullptr);
}

// The error of the call that `xs_run` stopped at, raised.
API int32_t xs_raise(Executor *executor) {
  torch::translate_exception_to_python(std::exchange(executor->failure, nullptr));
  return -1;
}

// A result of the call that `xs_run` stopped at; None if it is undefined.
API PyObject *xs_leaf(Executor *executor, uint64_t index) {
  return translated([&]() { return THPVariable_Wrap(executor->leaves.at(index)); }, nullptr);
}

API void xs_drop_leaves(Executor *executor) { executor->leaves.clear(); }

// 0: no such handle, 1: live, 2: poisoned.
API int32_t xs_state(Executor *executor, uint64_t id) {
  const Entry *entry = executor->storages.find(id);
  return entry ? (entry->is_live() ? 1 : 2) : 0;
}

// Of a live handle.
API PyObject *xs_storage(Executor *executor, uint64_t id) {
  return translated([&]() { return THPStorage_Wrap(executor->storages.find(id)->storage); }, nullptr);
}

API uint64_t xs_nbytes(Executor *executor, uint64_t id) { return executor->storages.find(id)->nbytes; }

API uint64_t xs_id_of(Executor *executor, uint64_t address) {
  return executor->storages.id_of(impl_at(address));
}

// The caller has checked that the handle is new and that there is room.
API int32_t xs_adopt(Executor *executor, uint64_t id, uint64_t address) {
  return translated([&]() { return executor->storages.adopt(id, storage_at(address)), 0; }, -1);
}

// A storage whose memory is charged elsewhere already.
API int32_t xs_adopt_shared(Executor *executor, uint64_t id, uint64_t address) {
  return translated(
      [&]() {
        Storages &storages = executor->storages;
        const uint64_t peak = storages.peak_nbytes;
        auto &entry = storages.adopt(id, storage_at(address));
        storages.allocated_nbytes -= entry.charge_nbytes;
        entry.charge_nbytes = 0;
        storages.peak_nbytes = peak;
        return 0;
      },
      -1);
}

API uint64_t xs_charge_of(Executor *executor, uint64_t id) { return executor->storages.find(id)->charge_nbytes; }

// Memory that is no storage's; negative: it is given back.
API void xs_charge(Executor *executor, int64_t nbytes) {
  Storages &storages = executor->storages;
  storages.allocated_nbytes += nbytes;
  storages.peak_nbytes = std::max(storages.peak_nbytes, storages.allocated_nbytes);
}

API int32_t xs_hold(Executor *executor, uint64_t address) {
  return translated([&]() { return executor->storages.hold(storage_at(address)), 0; }, -1);
}

API int32_t xs_name(Executor *executor, uint64_t id, uint64_t address) {
  return translated([&]() { return executor->storages.name(id, impl_at(address)), 0; }, -1);
}

API int32_t xs_let_go(Executor *executor, uint64_t address) {
  return translated([&]() { return executor->storages.let_go(impl_at(address)), 0; }, -1);
}

API int32_t xs_resized(Executor *executor, uint64_t address) {
  Storages &storages = executor->storages;
  return translated([&]() { return storages.resized(storages.entry_of(impl_at(address))), 0; }, -1);
}

API int32_t xs_poison(Executor *executor, uint64_t id) {
  return translated([&]() { return executor->storages.poison(id), 0; }, -1);
}

API void xs_free(Executor *executor, uint64_t id) { executor->storages.free(id); }

API void xs_set_busy(Executor *executor, uint64_t id, int32_t is_busy) {
  executor->storages.find(id)->is_busy = is_busy;
}

API void xs_set_quota(Executor *executor, uint64_t nbytes) { executor->storages.quota_nbytes = nbytes; }

API void xs_ledger(Executor *executor, XsLedger *to) {
  const Storages &storages = executor->storages;
  *to = {storages.allocated_nbytes, storages.peak_nbytes, storages.live_count, storages.handle_count(),
         executor->executed_ops};
}

// `to` has room for as many handles as the ledger says.
API void xs_handles(Executor *executor, uint64_t *to) {
  for (const uint64_t id : executor->storages.handles())
    *to++ = id;
}
