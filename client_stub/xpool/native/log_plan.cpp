#include "log_plan.h"

#include <cstring>

#include "record_kinds.h"

namespace xpool {

namespace {

size_t varint_bytes(uint64_t value) {
  size_t nbytes = 1;
  while (value >>= 7)
    nbytes++;
  return nbytes;
}

size_t cost(const Exception &exception) {
  return 2 + (exception.bytes.empty() ? varint_bytes(exception.number) : exception.bytes.size());
}

}  // namespace

void LogPlan::put_definition(Bytes &to) const {
  Bytes layout;
  layout.uvarint(variables_.size());
  for (const Variable &variable : variables_) {
    layout.uint8(static_cast<uint8_t>(variable.rule));
    if (variable.rule == Rule::kRaw)
      layout.uvarint(variable.nbytes);
    else if (variable.rule == Rule::kCarry)
      layout.uvarint(variable.step);
    else
      layout.svarint(static_cast<int64_t>(variable.step));
  }
  layout.uvarint(holes_.size());
  uint32_t end = 0;
  for (const Hole &hole : holes_) {
    layout.uvarint(hole.at - end);
    layout.uvarint(hole.variable);
    end = hole.at + hole.nbytes;
  }
  layout.uvarint(early.size());
  for (const Early &one : early) {
    layout.uvarint(one.after);
    layout.uvarint(one.read);
  }
  to.uint8(kDefinePlan);
  to.uvarint(id);
  to.text(template_);
  to.text(layout.str());
}

LogPlan::Match LogPlan::match(uint32_t index, uint32_t first, std::string_view bytes,
                              std::vector<Exception> &exceptions) {
  const Record &record = records[index];
  if (!fits(record, bytes))
    return Match::kNo;
  const size_t exceptions_before = exceptions.size();
  const uint64_t last_next = last_next_;
  undo_.clear();
  changes_.clear();
  Match result = Match::kYes;
  if (index == first)
    set_before_part(index, exceptions);
  for (size_t i = 0; i < found_.size() && result == Match::kYes; i++)
    if (!bind(found_[i], exceptions))
      result = index == first || variables_[found_[i].hole->variable].bound_at == index ? Match::kNo
                                                                                        : Match::kInAnotherPart;
  spent_ = 0;
  for (size_t i = exceptions_before; i < exceptions.size(); i++)
    spent_ += cost(exceptions[i]);
  if (spent_ > 0 && spent_ >= bytes.size())
    result = Match::kNo;
  if (result != Match::kYes) {
    exceptions.resize(exceptions_before);
    roll_back(last_next);
  }
  return result;
}

// Whether what lies between the holes is the same; finds what lies in them.
bool LogPlan::fits(const Record &record, std::string_view bytes) {
  found_.clear();
  const char *at = bytes.data(), *const end = at + bytes.size();
  const char *expected = template_.data() + record.at, *const expected_end = expected + record.nbytes;
  const auto takes = [&](const char *to) {
    const size_t nbytes = to - expected;
    if (nbytes > static_cast<size_t>(end - at) || memcmp(at, expected, nbytes) != 0)
      return false;
    at += nbytes;
    return true;
  };
  const Hole *hole = &holes_[record.first_hole];
  for (const Hole *const last = hole + record.hole_count; hole != last; hole++) {
    const char *const hole_at = template_.data() + hole->at;
    if (!takes(hole_at))
      return false;
    const char *const from = at;
    if (variables_[hole->variable].rule == Rule::kRaw) {
      if (hole->nbytes > static_cast<size_t>(end - at))
        return false;
      at += hole->nbytes;
    } else {
      do
        if (at == end)
          return false;
      while (*at++ & 0x80);
    }
    found_.push_back({hole, from, static_cast<size_t>(at - from)});
    expected = hole_at + hole->nbytes;
  }
  return takes(expected_end) && at == end;
}

// The first record of a part may use variables that were bound elsewhere, and are something else by now.
void LogPlan::set_before_part(uint32_t index, std::vector<Exception> &exceptions) {
  for (const Found &found : found_) {
    const uint32_t number = found.hole->variable;
    const Variable &variable = variables_[number];
    if (found.hole->binds || variable.rule == Rule::kRaw || variable.bound_at == index)
      continue;
    const uint64_t value = number_at(found.at);
    if (value == variable.now)
      continue;
    undo_.push_back({number, variable.now, variable.before, {}});
    assign(number, value);
    exceptions.push_back({number, value, {}});
  }
}

bool LogPlan::bind(const Found &found, std::vector<Exception> &exceptions) {
  const uint32_t number = found.hole->variable;
  const Variable &variable = variables_[number];
  if (variable.rule == Rule::kRaw) {
    char *now = raw_.data() + variable.now;
    if (memcmp(now, found.at, found.nbytes) != 0) {
      undo_.push_back({number, variable.now, variable.before, std::string(now, found.nbytes)});
      exceptions.push_back({number, 0, std::string(found.at, found.nbytes)});
      memcpy(now, found.at, found.nbytes);
    }
    return true;
  }
  const uint64_t value = number_at(found.at);
  if (!found.hole->binds)
    return value == variable.now;
  undo_.push_back({number, variable.now, variable.before, {}});
  if (value != predicted(number))
    exceptions.push_back({number, value, {}});
  assign(number, value);
  if (variable.rule == Rule::kNext)
    last_next_ = value;
  return true;
}

uint64_t LogPlan::predicted(uint32_t number) const {
  const Variable &variable = variables_[number];
  switch (variable.rule) {
    case Rule::kNext: return last_next_ + variable.step;
    case Rule::kCarry: {
      // One that is bound before this one in a run has been bound in this run by now.
      const Variable &other = variables_[variable.step];
      return variable.step < number ? other.before : other.now;
    }
    case Rule::kKeep:
    case Rule::kRaw: break;
  }
  return variable.now + variable.step;
}

void LogPlan::assign(uint32_t number, uint64_t value) {
  Variable &variable = variables_[number];
  if (variable.kind == SpotKind::kStorage && variable.now != value)
    changes_.push_back({number, variable.now});
  variable.before = variable.now;
  variable.now = value;
}

void LogPlan::bind_request(const Early &early, uint64_t request, std::vector<Exception> &exceptions) {
  if (request != predicted(early.request))
    exceptions.push_back({early.request, request, {}});
  assign(early.request, request);
}

void LogPlan::roll_back(uint64_t last_next) {
  for (; !undo_.empty(); undo_.pop_back()) {
    const Undo &undo = undo_.back();
    variables_[undo.variable].now = undo.now;
    variables_[undo.variable].before = undo.before;
    memcpy(raw_.data() + (undo.bytes.empty() ? 0 : undo.now), undo.bytes.data(), undo.bytes.size());
  }
  last_next_ = last_next;
  changes_.clear();
}

}  // namespace xpool
