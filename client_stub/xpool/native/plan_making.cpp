// How a plan comes from two repetitions: which numbers vary, and how they go on.
#include <algorithm>
#include <unordered_map>

#include "record_kinds.h"
#include "log_plan.h"

namespace xpool {

namespace {

// Bytes of a host tensor up to here are a variable in any case: a Python number is 8 or 16.
constexpr size_t kScalarBytes = 16;
// So little may be sent before the program has asked for it.
constexpr uint64_t kMostEarlyBytes = 4096;

}  // namespace

class LogPlan::Maker {
 public:
  explicit Maker(LogPlan &plan) : plan_(plan) {}

  bool add_record(std::string_view before, std::string_view latest) {
    walk_record(before, before_);
    walk_record(latest, latest_);
    if (before_.signature != latest_.signature || before_.spots.size() != latest_.spots.size() ||
        !latest_.is_plannable)
      return false;
    const auto at = static_cast<uint32_t>(plan_.template_.size());
    const auto first_hole = static_cast<uint32_t>(plan_.holes_.size());
    for (size_t i = 0; i < latest_.spots.size(); i++) {
      const Spot &was = before_.spots[i], &is = latest_.spots[i];
      if (!add_spot(is, at, before.substr(was.at, was.nbytes), latest.substr(is.at, is.nbytes)))
        return false;
    }
    const auto hole_count = static_cast<uint32_t>(plan_.holes_.size()) - first_hole;
    plan_.records.push_back({at, static_cast<uint32_t>(latest.size()), first_hole, hole_count, latest_.signature});
    plan_.template_ += latest;
    return plan_.template_.size() <= kMaxPlanBytes && plan_.holes_.size() <= kMaxPlanVariables;
  }

  // What has become of each number from one repetition to the next says how it goes on.
  void choose_rules() {
    const uint32_t count = static_cast<uint32_t>(plan_.variables_.size());
    for (uint32_t i = 0; i < count; i++)
      if (is_storage(i))
        named_before_[pairs_[i].before] = i;
    uint64_t last_next = 0;
    for (uint32_t i = 0; i < count; i++)  // what the first new one of a run comes after
      if (is_new(i))
        last_next = pairs_[i].before;
    for (uint32_t i = 0; i < count; i++) {
      Variable &variable = plan_.variables_[i];
      const auto [before, latest] = pairs_[i];
      if (is_new(i)) {
        variable.rule = Rule::kNext;
        variable.step = latest - last_next;
        last_next = latest;
      } else if (is_storage(i) && before != latest) {
        variable.rule = Rule::kCarry;
        variable.step = named_before_[latest];
      } else if (variable.rule != Rule::kRaw) {
        variable.step = latest - before;
      }
    }
    plan_.last_next_ = last_next;
  }

  // A read may be answered once what it reads has been named for the last time before it.
  void find_early() {
    for (uint32_t read = 0; read < plan_.records.size(); read++) {
      if (plan_.template_[plan_.records[read].at] != kRead)
        continue;
      Early early = describe(read);
      uint32_t after = read;
      while (after > 0 && !names(after - 1, early.storage))
        after--;
      if (after == 0 || early.nbytes == 0 || early.nbytes > kMostEarlyBytes)
        continue;
      early.after = after - 1;
      Record &last = plan_.records[early.after];
      if (last.answers_early >= 0 || plan_.template_[last.at] == kFree)
        continue;
      early.others = storages(after, read);
      last.answers_early = static_cast<int32_t>(plan_.early.size());
      plan_.variables_[early.request].bound_at = early.after;
      plan_.holes_[plan_.records[read].first_hole].binds = false;
      plan_.early.push_back(std::move(early));
    }
  }

 private:
  struct Pair {
    uint64_t before, latest;
  };

  bool is_storage(uint32_t variable) const { return plan_.variables_[variable].kind == SpotKind::kStorage; }
  bool is_new(uint32_t variable) const {
    const auto [before, latest] = pairs_[variable];
    if (!is_storage(variable) || before == latest)
      return false;
    const auto found = named_before_.find(latest);
    return found == named_before_.end() || found->second == variable;
  }

  bool add_spot(const Spot &spot, uint32_t record_at, std::string_view before, std::string_view latest) {
    const bool is_raw = spot.kind == SpotKind::kRaw;
    if (is_raw && before.size() != latest.size())
      return false;
    const bool varies = is_raw ? latest.size() <= kScalarBytes : spot.kind != SpotKind::kNumber;
    if (!varies && before == latest)
      return true;
    auto number = static_cast<uint32_t>(plan_.variables_.size());
    bool binds = true;
    if (spot.kind == SpotKind::kStorage) {
      const auto [found, is_first] = storages_.emplace(number_at(latest.data()), number);
      number = found->second;
      binds = is_first;
    }
    plan_.holes_.push_back({record_at + spot.at, spot.nbytes, number, binds});
    if (!binds)
      return true;
    Variable variable;
    variable.kind = spot.kind;
    variable.bound_at = static_cast<uint32_t>(plan_.records.size());
    variable.nbytes = spot.nbytes;
    if (is_raw) {
      variable.rule = Rule::kRaw;
      variable.now = plan_.raw_.size();
      plan_.raw_ += latest;
      pairs_.push_back({0, 0});
    } else {
      variable.now = number_at(latest.data());
      pairs_.push_back({number_at(before.data()), variable.now});
    }
    variable.before = variable.now;
    plan_.variables_.push_back(variable);
    return true;
  }

  // Of a Read: its request, its storage and what of it is read.
  Early describe(uint32_t read) const {
    const Record &record = plan_.records[read];
    const Hole &request = plan_.holes_[record.first_hole], &storage = plan_.holes_[record.first_hole + 1];
    const uint32_t rest_at = storage.at + storage.nbytes;
    BytesReader rest(plan_.template_.data() + rest_at, record.at + record.nbytes - rest_at);
    const uint64_t offset = rest.uvarint();
    return {0, read, request.variable, storage.variable, {}, offset, rest.uvarint()};
  }

  bool names(uint32_t record, uint32_t storage) const {
    const Hole *hole = &plan_.holes_[plan_.records[record].first_hole];
    return std::any_of(hole, hole + plan_.records[record].hole_count,
                       [&](const Hole &one) { return one.variable == storage; });
  }

  std::vector<uint32_t> storages(uint32_t from, uint32_t to) const {
    std::vector<uint32_t> found;
    for (uint32_t i = from; i < to; i++)
      for (uint32_t k = 0; k < plan_.records[i].hole_count; k++)
        if (const uint32_t variable = plan_.holes_[plan_.records[i].first_hole + k].variable; is_storage(variable))
          found.push_back(variable);
    std::sort(found.begin(), found.end());
    found.erase(std::unique(found.begin(), found.end()), found.end());
    return found;
  }

  LogPlan &plan_;
  Walk before_, latest_;
  std::unordered_map<uint64_t, uint32_t> storages_;      // of the latest repetition: their variables
  std::unordered_map<uint64_t, uint32_t> named_before_;  // of the one before
  std::vector<Pair> pairs_;                              // of each variable: what it was in the two
};

std::unique_ptr<LogPlan> LogPlan::make(uint64_t id, const std::vector<std::string_view> &before,
                                       const std::vector<std::string_view> &latest, bool with_early) {
  std::unique_ptr<LogPlan> plan(new LogPlan(id));
  Maker maker(*plan);
  if (latest.size() > kMaxPlanRecords)
    return nullptr;
  for (size_t i = 0; i < latest.size(); i++)
    if (!maker.add_record(before[i], latest[i]))
      return nullptr;
  maker.choose_rules();
  if (with_early)
    maker.find_early();
  return plan;
}

}  // namespace xpool
