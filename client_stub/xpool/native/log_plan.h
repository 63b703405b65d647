// A plan: records that a stream repeats, with variables where their numbers stand (protocol/SPEC.md section 5, "Plans").
//
// Made from two repetitions in a row (plan_making.cpp). Keeps what each variable was last, exactly as the server does,
// so that both predict the same for the next run; only what comes otherwise is sent. Knows bytes and nothing else.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "bytes.h"
#include "record_walk.h"

namespace xpool {

constexpr size_t kMaxPlanRecords = 16'384, kMaxPlanBytes = 1 << 20, kMaxPlanVariables = 1 << 17;

// How a variable is predicted where it is bound; as on the wire.
enum class Rule : uint8_t {
  kKeep = 0,   // what it was, plus a step
  kNext = 1,   // what the last variable of this rule was bound to, plus a step
  kCarry = 2,  // what another variable was in the run before
  kRaw = 3,    // bytes, the same as before
};

// What differs from its prediction in a part of a run.
struct Exception {
  uint32_t variable;
  uint64_t number;
  std::string bytes;  // of a raw one
};

class LogPlan {
 public:
  struct Record {
    uint32_t at, nbytes;
    uint32_t first_hole, hole_count;
    uint64_t signature;
    int32_t answers_early = -1;  // of `early`, whose read may be answered after this record
  };
  // A Read whose answer the server may send before it is asked.
  struct Early {
    uint32_t after, read;
    uint32_t request, storage;     // variables
    std::vector<uint32_t> others;  // storages that the records between name
    uint64_t offset, nbytes;
  };
  // A storage variable that the last match has given another value, with what it was.
  struct Change {
    uint32_t variable;
    uint64_t before;
  };
  enum class Match {
    kYes,
    kNo,
    kInAnotherPart,  // not in the part of a run that has begun, but as the first record of another
  };

  // Null if the two repetitions do not fit each other, or are too much for a plan.
  static std::unique_ptr<LogPlan> make(uint64_t id, const std::vector<std::string_view> &before,
                                       const std::vector<std::string_view> &latest, bool with_early);

  // What defines it at the server.
  void put_definition(Bytes &to) const;

  // Whether a record is the plan's at `index`, in a part that begins with `first`. If so the variables are what the
  // record says, and what was not predicted is added to `exceptions`.
  Match match(uint32_t index, uint32_t first, std::string_view record, std::vector<Exception> &exceptions);
  // Names the answer to an early read, at the record after which it may come.
  void bind_request(const Early &early, uint64_t request, std::vector<Exception> &exceptions);

  uint64_t number(uint32_t variable) const { return variables_[variable].now; }
  const std::vector<Change> &changes() const { return changes_; }
  size_t nbytes() const { return template_.size(); }
  // Bytes that the values of the last match take.
  size_t spent() const { return spent_; }

  const uint64_t id;
  std::vector<Record> records;
  std::vector<Early> early;
  uint64_t last_used = 0;

 private:
  class Maker;
  struct Hole {
    uint32_t at, nbytes;
    uint32_t variable;
    bool binds;
  };
  struct Variable {
    Rule rule = Rule::kKeep;
    SpotKind kind = SpotKind::kNumber;
    uint32_t bound_at = 0;         // the record
    uint64_t step = 0;             // or the other variable
    uint64_t now = 0, before = 0;  // of a raw one: where its bytes stand in `raw_`
    uint32_t nbytes = 0;
  };
  struct Undo {
    uint32_t variable;
    uint64_t now, before;
    std::string bytes;
  };
  // A hole of the record that is being matched, with what stands there.
  struct Found {
    const Hole *hole;
    const char *at;
    size_t nbytes;
  };

  explicit LogPlan(uint64_t id) : id(id) {}
  bool fits(const Record &record, std::string_view bytes);
  void set_before_part(uint32_t index, std::vector<Exception> &exceptions);
  bool bind(const Found &found, std::vector<Exception> &exceptions);
  uint64_t predicted(uint32_t variable) const;
  void assign(uint32_t variable, uint64_t value);
  void roll_back(uint64_t last_next);

  std::string template_;
  std::vector<Hole> holes_;
  std::vector<Variable> variables_;
  std::string raw_;
  uint64_t last_next_ = 0;
  size_t spent_ = 0;
  std::vector<Found> found_;
  std::vector<Undo> undo_;
  std::vector<Change> changes_;
};

}  // namespace xpool
