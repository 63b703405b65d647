// Executes the records of one session's batches that are common, without Python; hands the others back.
#pragma once
#include <exception>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "arbiter.h"
#include "operation.h"
#include "plans.h"
#include "reader.h"
#include "storages.h"
#include "values.h"

namespace xpool_server {

class Arrays;

// Why `Executor::run` has returned. The record at `position` is then Python's to finish.
enum class Outcome : int32_t {
  kDone,      // the batch is over
  kHandBack,  // the record has had no effect: Python executes it
  kFailed,    // the record is a call, and it raised: `failure` is what
  kResults,   // the record is a call, and it has run: `leaves` from `bound` on are Python's to bind
  kRead,      // the record before `position` was a read: Python answers it with `answer`
  kCalled,    // the record has had no effect: Python is to look what the node wants, and then to go on here
};

// Bytes of a storage that a client waits for; they are there until `run` is called again.
struct Answer {
  uint64_t request = 0;
  const void *data = nullptr;
  uint64_t nbytes = 0;
};

class Executor {
 public:
  Executor(c10::Device device, uint64_t quota_nbytes, uint64_t max_handles);

  Storages storages;
  uint64_t executed_ops = 0;

  // Asked between two records; null: nobody else uses the device.
  Turn *turn = nullptr;

  // What executes rows of array records for the loop; null: Python does.
  Arrays *arrays = nullptr;

  // Told what is submitted, where the device runs behind; null: it does not.
  Costs *costs = nullptr;

  // Of the last call of `run`.
  size_t position = 0;      // of the record that it stopped at, or behind the run of a plan that it is in
  uint64_t record_count = 0;  // records executed to their end
  std::exception_ptr failure;
  std::vector<at::Tensor> leaves;
  size_t bound = 0;  // outputs that have their handles already
  Answer answer;

  // Of the message whose records run: `Write` takes its bytes from them. What is not there is Python's.
  std::vector<std::string_view> payloads;

  // Replaces what the number stood for; null makes Python execute its calls.
  void define(uint64_t number, std::unique_ptr<Operation> operation);
  Outcome run(const uint8_t *records, size_t nbytes, size_t from);

  Plans plans;
  // While a run of a plan is under way the record that `run` has stopped at is one of its records.
  Expansion expansion;
  // Python has executed that record, which ended there.
  void go_on_in_plan(size_t at);

  // A graph's records, whose storage numbers are its own: below `storage_count`.
  void define_graph(uint64_t id, std::string records, uint64_t storage_count);
  void free_graph(uint64_t id) { graphs_.erase(id); }
  // As `run`, with some numbers bound to the session's storages; `position` and `record_count` are within the graph.
  Outcome run_graph(uint64_t id, const uint64_t *numbers, const uint64_t *parameters, size_t count);
  // Of the last run: what each number led to at its end, and the numbers of storages that it made and still has.
  std::vector<Entry *> slots;
  std::vector<uint64_t> made() const;

 private:
  struct Graph {
    std::string records;
    uint64_t storage_count;
  };

  struct Output {
    bool is_given;
    uint64_t id;
    uint64_t nbytes;
    Geometry geometry;
  };

  Outcome step(Reader &from);
  bool begin_run(Reader &from);
  Outcome replay();
  Outcome step_in_plan(Reader &from);
  static bool skip_read(Reader &from, uint64_t answered);
  bool answer_early(const Plan::Due &due);
  Outcome call(Reader &from);
  void allocate(Reader &from);
  void free(Reader &from);
  void write(Reader &from);
  void write_payload(const Entry &entry, uint64_t offset, uint64_t nbytes, uint64_t payload);
  Outcome read(Reader &from);
  Operation &read_operation(Reader &from, uint64_t &number);
  void read_outputs(Reader &from);
  void check_room();
  void submit(uint64_t number);
  bool flatten(const Operation &operation);
  bool has_resized() const;
  static bool lies_alike(const at::Tensor &leaf, const Geometry &geometry);
  bool bind_one(const Output &output, const at::Tensor &leaf);

  const c10::Device device_;
  Values values_;
  std::vector<std::unique_ptr<Operation>> operations_;
  std::unordered_map<uint64_t, Graph> graphs_;
  std::vector<bool> is_parameter_;
  torch::jit::Stack stack_;
  std::vector<Output> outputs_;
  size_t output_count_ = 0;
};

}  // namespace xpool_server
