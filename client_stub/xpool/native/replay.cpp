#include "replay.h"

#include <algorithm>
#include <utility>

#include "record_kinds.h"

namespace xpool {

namespace {

// So many records in a row that do not fit, and the stream has left the plan.
constexpr uint32_t kMostMissed = 256;
// Definitions may be so much of all bytes, beside a first allowance: a stream that only seems to repeat is no burden.
constexpr uint64_t kDefinedShare = 4, kFirstDefined = 512 << 10;
// So much of the records is what values may take before a better plan is looked for.
constexpr uint64_t kValuesShare = 8;
// A read that comes after so many records only is not worth a plan of all of them.
constexpr uint64_t kRareRead = 1024;

bool is_read(std::string_view record) { return record[0] == kRead; }

}  // namespace

uint32_t Replay::append(std::string_view record, std::string &out) {
  counters_.records++;
  taken_bytes_ += record.size();
  if (plan_ && replay(record, out))
    return index_ == 0 || is_read(record) ? define_if_repeated(out) : 0;  // a better plan is not urgent
  walk_record(record, walk_);
  distrust(walk_, record);
  send_single(record, out);
  if (!walk_.is_plannable)
    return 0;
  history_.push(walk_.signature, record, true, is_read(record), record.size());
  if (plan_ && plan_->records[index_].signature == walk_.signature)
    index_ = (index_ + 1) % plan_->records.size();
  if (plan_ && ++missed_ > kMostMissed)
    leave();
  look_for_plan();
  return define_if_repeated(out);
}

// Takes a record as the next one of the plan, if it is that.
bool Replay::replay(std::string_view record, std::string &out) {
  const uint32_t first = count_ ? first_ : index_;
  auto match = plan_->match(index_, first, record, exceptions_);
  if (match == LogPlan::Match::kInAnotherPart) {
    flush(out);
    match = plan_->match(index_, index_, record, exceptions_);
  }
  if (match != LogPlan::Match::kYes)
    return false;
  if (count_ == 0) {
    first_ = index_;
    crc_ = {};
  }
  count_++;
  missed_ = 0;
  commit(record);
  if (++index_ == plan_->records.size()) {
    flush(out);
    index_ = 0;
  }
  return true;
}

void Replay::commit(std::string_view record) {
  counters_.replayed++;
  crc_.add(record.data(), record.size());
  const LogPlan::Record &known = plan_->records[index_];
  history_.push(known.signature, record, false, is_read(record), plan_->spent());
  if (awaited_.empty())
    return;
  note_changes();
  if (is_read(record))
    for (size_t i = 0; i < awaited_.size(); i++)
      if (plan_->early[i].read == index_ && awaited_[i].request == plan_->number(plan_->early[i].request))
        awaited_[i].request = 0;  // asked for now
  if (known.answers_early >= 0)
    name_early_answer(plan_->early[known.answers_early], awaited_[known.answers_early]);
}

void Replay::name_early_answer(const LogPlan::Early &early, Awaited &awaited) {
  if (awaited.request)
    abandoned_.push_back(awaited.request);
  awaited = {requests_.fetch_add(1), plan_->number(early.storage), true};
  plan_->bind_request(early, awaited.request, exceptions_);
}

// Another variable may name what is read early.
void Replay::note_changes() {
  for (const auto &[variable, before] : plan_->changes())
    for (Awaited &awaited : awaited_)
      if (plan_->number(variable) == awaited.storage || before == awaited.storage)
        awaited.is_good = false;
}

uint64_t Replay::request_for_read(uint64_t storage, uint64_t offset, uint64_t nbytes) {
  for (size_t i = 0; plan_ && i < awaited_.size(); i++) {
    const LogPlan::Early &early = plan_->early[i];
    const Awaited &awaited = awaited_[i];
    if (early.read != index_ || !awaited.request || !awaited.is_good || awaited.storage != storage ||
        plan_->number(early.storage) != storage || early.offset != offset || early.nbytes != nbytes)
      continue;
    const auto is_same = [&](uint32_t other) { return other != early.storage && plan_->number(other) == storage; };
    if (std::any_of(early.others.begin(), early.others.end(), is_same))
      continue;
    counters_.early_answers++;
    return awaited.request;
  }
  return requests_.fetch_add(1);
}

void Replay::send_single(std::string_view record, std::string &out) {
  flush(out);
  out += record;
}

// A record outside the plan may change what an early answer has told.
void Replay::distrust(const Walk &walk, std::string_view record) {
  for (Awaited &awaited : awaited_)
    awaited.is_good &= walk.names_all_storages;
  if (!awaited_.empty())
    for (const Spot &spot : walk.spots)
      if (spot.kind == SpotKind::kStorage)
        for (Awaited &awaited : awaited_)
          awaited.is_good &= number_at(record.data() + spot.at) != awaited.storage;
}

// The stream is somewhere else.
void Replay::leave() {
  for (const Awaited &awaited : awaited_)
    if (awaited.request)
      abandoned_.push_back(awaited.request);
  awaited_.clear();
  plan_ = nullptr;
}

void Replay::look_for_plan() {
  if (plan_ && missed_ == 0)
    return;
  const auto found = places_.find(history_.gram());
  if (found == places_.end() || (plan_ == found->second.plan && index_ == found->second.index))
    return;
  leave();
  plan_ = found->second.plan;
  index_ = found->second.index;
  plan_->last_used = history_.count();
  missed_ = 0;
  awaited_.assign(plan_->early.size(), {});
}

void Replay::flush(std::string &out) {
  if (count_ == 0)
    return;
  std::sort(exceptions_.begin(), exceptions_.end(),
            [](const Exception &one, const Exception &other) { return one.variable < other.variable; });
  Bytes values;
  values.uvarint(exceptions_.size());
  uint32_t next = 0;
  for (const Exception &one : exceptions_) {
    values.uvarint(one.variable - next);
    next = one.variable + 1;
    if (one.bytes.empty())
      values.uvarint(one.number);
    else
      values.raw(one.bytes.data(), one.bytes.size());
  }
  const uint32_t crc = crc_.value();
  Bytes run;
  run.uint8(kRunPlan);
  run.uvarint(plan_->id);
  run.uvarint(first_);
  run.uvarint(count_);
  run.raw(&crc, sizeof crc);
  run.text(values.str());
  out += run.str();
  exceptions_.clear();
  count_ = 0;
  counters_.parts++;
}

// ---------------------------------------------------------------- finding repetitions

// How many records a plan should have by now; 0 if there is nothing to gain by one.
uint64_t Replay::repetition() const {
  const uint64_t period = history_.period();
  if (period == 0)
    return 0;
  const uint64_t length = period >= kLeastPeriod ? period : period * ((kLeastRecords + period - 1) / period);
  if (length > kMaxPlanRecords || history_.repeated() + period < 2 * length ||
      history_.count() - defined_at_ < length)
    return 0;
  // A plan of another length, such as one of several layers, leaves the rest to values.
  const bool is_other = !plan_ || plan_->records.size() != length;
  const bool is_worth = history_.singles(length) > std::max<uint64_t>(kGram, length / 16) ||
                        history_.single_reads(length) * kRareRead > length ||
                        (is_other && history_.sent(length) > history_.bytes(length) / kValuesShare);
  // A plan that ends with a read has before it what the read may be answered after.
  const bool is_in_phase = history_.reads(length) == 0 || history_.last_is_read();
  return is_worth && is_in_phase && history_.holds(2 * length) ? length : 0;
}

uint32_t Replay::define_if_repeated(std::string &out) {
  const uint64_t length = repetition();
  if (length == 0 || defined_bytes_ + 2 * history_.bytes(length) > kFirstDefined + taken_bytes_ / kDefinedShare)
    return 0;
  std::vector<std::string_view> before, latest;
  for (uint64_t i = length; i > 0; i--) {
    before.push_back(history_.record(i + length));
    latest.push_back(history_.record(i));
  }
  auto plan = LogPlan::make(next_plan_, before, latest, with_early_);
  if (!plan)
    return 0;
  next_plan_++;
  flush(out);
  leave();
  uint32_t ours = 1 + drop_oldest(out);
  Bytes definition;
  plan->put_definition(definition);
  defined_bytes_ += definition.size();
  out += definition.str();
  index(*plan);
  plan->last_used = defined_at_ = history_.count();
  plan_ = plan.get();
  index_ = missed_ = 0;
  awaited_.assign(plan_->early.size(), {});
  plans_.push_back(std::move(plan));
  counters_.plans++;
  return ours;
}

// Makes room for one more.
uint32_t Replay::drop_oldest(std::string &out) {
  if (plans_.size() < kMostPlans)
    return 0;
  const auto oldest = std::min_element(plans_.begin(), plans_.end(), [](const auto &one, const auto &other) {
    return one->last_used < other->last_used;
  });
  std::erase_if(places_, [&](const auto &place) { return place.second.plan == oldest->get(); });
  Bytes record;
  record.uint8(kFreePlan);
  record.uvarint((*oldest)->id);
  out += record.str();
  plans_.erase(oldest);
  return 1;
}

// Where in the plan a stream stands that has brought the records before that place.
void Replay::index(LogPlan &plan) {
  const size_t count = plan.records.size();
  for (size_t i = 0; i < count; i++) {
    Gram gram;
    for (size_t k = kGram; k > 0; k--)
      gram.roll(plan.records[(i + kGram * count - k) % count].signature, 0);
    places_[gram.value()] = {&plan, static_cast<uint32_t>(i)};
  }
}

}  // namespace xpool
