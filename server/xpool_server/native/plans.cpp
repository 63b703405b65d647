#include "plans.h"

#include "crc32.h"
#include "limits.h"

namespace xpool_server {

namespace {

void expect(bool is_met) {
  if (!is_met)
    throw HandBack{};
}

void put_uvarint(std::string &to, uint64_t value) {
  for (; value >= 0x80; value >>= 7)
    to.push_back(static_cast<char>(value | 0x80));
  to.push_back(static_cast<char>(value));
}

}  // namespace

Plan::Plan(std::string records, std::vector<uint64_t> ends, const std::vector<PlanHole> &holes,
           const std::vector<PlanVariable> &variables, const std::vector<PlanEarly> &early)
    : records_(std::move(records)), ends_(std::move(ends)), holes_(holes), rows_(ends_.size()) {
  for (const PlanVariable &one : variables) {
    Variable &variable = variables_.emplace_back();
    variable.rule = static_cast<Rule>(one.rule);
    variable.number = one.number;
    variable.bound_at = one.bound_at;
    variable.now = variable.before = one.now;
  }
  size_t row = 0;
  for (size_t i = 0; i < holes_.size(); i++) {
    const PlanHole &hole = holes_[i];
    while (ends_.at(row) <= hole.at)
      row++;
    if (rows_[row].hole_count++ == 0)
      rows_[row].first_hole = static_cast<uint32_t>(i);
    Variable &variable = variables_.at(hole.variable);
    if (hole.binds && variable.rule == Rule::kRaw)
      variable.raw = records_.substr(hole.at, hole.nbytes);
    if (hole.binds && variable.rule == Rule::kNext)
      last_next_ = variable.now;
  }
  for (const PlanEarly &one : early) {
    rows_.at(one.after).early = static_cast<int32_t>(early_.size());
    early_.push_back({one.read, one.request});
  }
}

Plan::Early *Plan::early_at(uint64_t read) {
  for (Early &early : early_)
    if (early.read == read)
      return &early;
  return nullptr;
}

void Plan::expand(uint64_t first, uint64_t end, Reader values, std::string &to, std::vector<Due> &due) {
  read_values(first, end, values);
  for (uint64_t index = first; index < end; index++) {
    put(index, to, true);
    if (rows_[index].early < 0)
      continue;
    Early &early = early_[rows_[index].early];
    bind(early.request);
    due.push_back({index - first, &early, {}, variables_[early.request].now});
    put(early.read, due.back().read, false);
  }
}

// Values of what is bound in the run are kept until then; others are there from the beginning.
void Plan::read_values(uint64_t first, uint64_t end, Reader values) {
  run_++;
  uint64_t least = 0;
  for (uint64_t left = values.uvarint(MAX_PLAN_VARIABLES); left > 0; left--) {
    const uint64_t number = least + values.uvarint(MAX_PLAN_VARIABLES);
    least = number + 1;
    expect(number < variables_.size());
    Variable &variable = variables_[number];
    uint64_t value = 0;
    if (variable.rule == Rule::kRaw)
      variable.given_raw = {reinterpret_cast<const char *>(values.raw(variable.number)), variable.number};
    else
      value = values.uvarint(UINT64_MAX);
    if (variable.bound_at >= first) {
      expect(variable.bound_at < end);
      variable.given_in = run_;
      variable.given = value;
    } else if (variable.rule == Rule::kRaw) {
      variable.raw = variable.given_raw;
    } else {
      variable.before = variable.now;
      variable.now = value;
    }
  }
  expect(values.is_exhausted());
}

void Plan::bind(uint64_t number) {
  Variable &variable = variables_[number];
  const bool is_given = variable.given_in == run_;
  if (variable.rule == Rule::kRaw) {
    if (is_given)
      variable.raw = variable.given_raw;
    return;
  }
  const uint64_t value = is_given ? variable.given : expected(number);
  variable.before = variable.now;
  variable.now = value;
  if (variable.rule == Rule::kNext)
    last_next_ = value;
}

uint64_t Plan::expected(uint64_t number) const {
  const Variable &variable = variables_[number];
  if (variable.rule == Rule::kNext)
    return last_next_ + variable.number;
  if (variable.rule == Rule::kCarry) {
    // One that is bound before this one in a run has been bound by now.
    const Variable &other = variables_[variable.number];
    return variable.number < number ? other.before : other.now;
  }
  return variable.now + variable.number;
}

void Plan::put(uint64_t index, std::string &to, bool binds) {
  uint64_t at = index ? ends_[index - 1] : 0;
  const PlanHole *hole = holes_.data() + rows_[index].first_hole;
  for (const PlanHole *const last = hole + rows_[index].hole_count; hole != last; hole++) {
    to.append(records_, at, hole->at - at);
    at = hole->at + hole->nbytes;
    if (binds && hole->binds)
      bind(hole->variable);
    const Variable &variable = variables_[hole->variable];
    if (variable.rule == Rule::kRaw)
      to += variable.raw;
    else
      put_uvarint(to, variable.now);
  }
  to.append(records_, at, ends_[index] - at);
}

void Plans::begin(Reader &from, Expansion &run) {
  run.id = from.uvarint(MAX_STORAGE_ID);
  const auto found = table_.find(run.id);
  const uint64_t first = from.uvarint(MAX_PLAN_RECORDS), count = from.uvarint(MAX_PLAN_RECORDS);
  uint32_t check;
  memcpy(&check, from.raw(sizeof check), sizeof check);
  const uint64_t nbytes = from.uvarint(MAX_PLAN_VALUES_NBYTES);
  const Reader values(from.raw(nbytes), nbytes);
  expect(found != table_.end());
  Plan &plan = *found->second;
  expect(count > 0 && first + count <= plan.record_count());
  run.records.clear();
  run.due.clear();
  plan.expand(first, first + count, values, run.records, run.due);
  xpool_protocol::Crc32 crc;
  crc.add(run.records.data(), run.records.size());
  expect(crc.value() == check);
  expanded_ += run.records.size();
  expect(expanded_ <= MAX_EXPANDED_NBYTES);
  run.at = run.index = run.next_due = 0;
  run.first = first;
  run.count = count;
  run.plan = &plan;
}

}  // namespace xpool_server
