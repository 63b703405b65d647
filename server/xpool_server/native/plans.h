// The automatic plans of a session, and the records that their runs stand for (protocol/SPEC.md section 5, "Plans").
//
// A definition is read and checked by xpool_protocol/plans.py, whose `Plan` is the oracle of this one.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "reader.h"

namespace xpool_server {

enum class Rule : uint64_t { kKeep, kNext, kCarry, kRaw };

// As library.py fills them; each is a row of 64-bit numbers.
struct PlanHole {
  uint64_t at, nbytes, variable, binds;
};
struct PlanVariable {
  uint64_t rule, number, bound_at, now;
};
struct PlanEarly {
  uint64_t after, read, request;
};

class Plan {
 public:
  struct Early {
    uint64_t read, request;
    uint64_t answered = 0;  // the request that was answered early, until its read comes
  };

  Plan(std::string records, std::vector<uint64_t> ends, const std::vector<PlanHole> &holes,
       const std::vector<PlanVariable> &variables, const std::vector<PlanEarly> &early);

  // Appends the records from `first` to before `end`, and after which of them (counted from `first`) a read may be
  // answered early. Throws HandBack for values that do not fit.
  struct Due {
    uint64_t index;
    Early *early;
    std::string read;
    uint64_t request;
  };
  void expand(uint64_t first, uint64_t end, Reader values, std::string &to, std::vector<Due> &due);

  uint64_t record_count() const { return ends_.size(); }
  // Of the read at a record; null if it is none that may be answered early.
  Early *early_at(uint64_t read);

 private:
  struct Record {
    uint32_t first_hole = 0, hole_count = 0;
    int32_t early = -1;
  };
  struct Variable {
    Rule rule;
    uint64_t number, bound_at, now, before;
    std::string raw;
    uint64_t given_in = 0;  // the run that brought a value for it
    uint64_t given = 0;
    std::string_view given_raw;
  };

  void read_values(uint64_t first, uint64_t end, Reader values);
  void bind(uint64_t number);
  uint64_t expected(uint64_t number) const;
  void put(uint64_t index, std::string &to, bool binds);

  const std::string records_;
  const std::vector<uint64_t> ends_;
  std::vector<PlanHole> holes_;
  std::vector<Record> rows_;
  std::vector<Variable> variables_;
  std::vector<Early> early_;
  uint64_t last_next_ = 0, run_ = 0;
};

// The run of a plan that is under way: its records are executed as if they had come themselves.
struct Expansion {
  std::string records;
  size_t at = 0;       // of the next one
  uint64_t index = 0;  // its number in the run
  uint64_t id = 0, first = 0, count = 0;
  Plan *plan = nullptr;  // null: no run is under way
  std::vector<Plan::Due> due;
  size_t next_due = 0;
};

class Plans {
 public:
  void define(uint64_t id, std::unique_ptr<Plan> plan) { table_[id] = std::move(plan); }
  void free(uint64_t id) { table_.erase(id); }
  // Begins the run that a RunPlan record, after its kind, tells of. Throws HandBack for anything that is wrong.
  void begin(Reader &from, Expansion &run);
  // A batch may stand for so much.
  void begin_batch() { expanded_ = 0; }
  uint64_t expanded() const { return expanded_; }

 private:
  std::unordered_map<uint64_t, std::unique_ptr<Plan>> table_;
  uint64_t expanded_ = 0;
};

}  // namespace xpool_server
