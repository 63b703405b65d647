#include "arbiter.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <ctime>

namespace xpool_server {

namespace {

// A worker that waits looks around so often, should a wake-up have been lost with whoever owed it.
constexpr int64_t kPatienceNs = 100'000'000;

// Of a time alone on the device, what may have been one operation.
constexpr uint64_t kLastNs = 50'000'000;

// A capped tenant starts when it may run for so long: shorter turns only cost.
constexpr int64_t kLeastTokensNs = 1'000'000;

uint64_t clock_ns(clockid_t clock) {
  timespec now;
  clock_gettime(clock, &now);
  return now.tv_sec * 1'000'000'000UL + now.tv_nsec;
}

uint64_t now_ns() { return clock_ns(CLOCK_MONOTONIC); }

void futex_wait(std::atomic<uint32_t> &word, uint32_t seen, int64_t timeout_ns) {
  const timespec timeout{timeout_ns / 1'000'000'000, timeout_ns % 1'000'000'000};
  syscall(SYS_futex, &word, FUTEX_WAIT, seen, &timeout, nullptr, 0);
}

void wake(Slot &slot) {
  slot.wake++;
  syscall(SYS_futex, &slot.wake, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

uint64_t share_of(const Slot &slot) { return std::max<uint64_t>(1, slot.share_percent); }

bool is_policy(const Page &page, Policy policy) { return page.policy == static_cast<uint64_t>(policy); }

bool is_at(const Slot &slot, Place place) { return slot.place == static_cast<uint64_t>(place); }

void go_to(Slot &slot, Place place) { slot.place = static_cast<uint64_t>(place); }

bool is_overdue(const Page &page, const Slot &slot, uint64_t now_ns) {
  return is_policy(page, Policy::kPriority) && now_ns >= slot.since_ns + page.starvation_ns;
}

// Smaller goes first.
bool goes_before(const Page &page, const Slot &one, const Slot &other, uint64_t now_ns) {
  if (is_policy(page, Policy::kNull))
    return false;
  if (is_policy(page, Policy::kFifo))
    return one.since_ns < other.since_ns;
  if (is_policy(page, Policy::kPriority)) {
    const bool is_late = is_overdue(page, one, now_ns);
    if (is_late != is_overdue(page, other, now_ns))
      return is_late;
    if (!is_late && one.priority != other.priority)
      return one.priority > other.priority;
    if (is_late && one.since_ns != other.since_ns)
      return one.since_ns < other.since_ns;
  }
  return one.virtual_ns < other.virtual_ns;
}

// Who was away has saved nothing, but for the little that a short pause may cost: those that stayed may have been far
// ahead, by an operation of theirs, and say where everybody is only for as long as it was away.
void arrive(Page &page, Slot &slot) {
  const bool is_new = slot.left_ns == 0;
  const bool has_slept = is_new || slot.since_ns >= slot.left_ns + page.pause_ns;
  const uint64_t lag = (has_slept ? page.lag_ns : page.pause_lag_ns) * 100 / share_of(slot);
  const uint64_t now = page.virtual_ns;
  slot.virtual_ns = std::max<uint64_t>(slot.virtual_ns, now > lag ? now - lag : 0);
  go_to(slot, Place::kWaiting);
}

}  // namespace

int next_slot(Page &page, uint64_t now_ns) {
  int best = -1;
  const uint64_t limit = std::min<uint64_t>(page.slot_limit, kSlots);
  for (uint64_t i = 0; i < limit; i++) {
    Slot &slot = page.slots[i];
    if (is_at(slot, Place::kArrived))
      arrive(page, slot);
    if ((is_at(slot, Place::kWaiting) || is_at(slot, Place::kInterrupted)) &&
        (best < 0 || goes_before(page, slot, page.slots[best], now_ns)))
      best = static_cast<int>(i);
  }
  return best;
}

bool must_yield(const Page &page, int holder, uint64_t held_ns, int next, uint64_t now_ns) {
  if (next < 0 || is_policy(page, Policy::kFifo) || is_policy(page, Policy::kNull))
    return false;
  const Slot &mine = page.slots[holder], &other = page.slots[next];
  const bool is_over = held_ns >= page.quantum_ns;
  if (is_policy(page, Policy::kPriority)) {
    if (is_overdue(page, other, now_ns))
      return is_over || other.priority >= mine.priority;
    if (mine.is_overdue)
      return is_over;
    if (other.priority != mine.priority)
      return other.priority > mine.priority;
  }
  return is_over && other.virtual_ns < mine.virtual_ns;
}

int64_t refill(const Page &page, Slot &slot, uint64_t now_ns) {
  const uint64_t at_ns = slot.tokens_at_ns;
  const int64_t gained = now_ns > at_ns ? static_cast<int64_t>((now_ns - at_ns) * share_of(slot) / 100) : 0;
  slot.tokens_at_ns = std::max(now_ns, at_ns);
  slot.tokens_ns = std::min<int64_t>(static_cast<int64_t>(page.burst_ns.load()), slot.tokens_ns + gained);
  return slot.tokens_ns;
}

uint64_t ready_at_ns(const Page &page, const Slot &slot) {
  const int64_t least = std::min<int64_t>(kLeastTokensNs, static_cast<int64_t>(page.burst_ns.load()));
  const int64_t missing = std::max<int64_t>(0, least - slot.tokens_ns);
  const uint64_t share = share_of(slot);
  return slot.tokens_at_ns + (static_cast<uint64_t>(missing) * 100 + share - 1) / share;
}

void charge(Page &page, int index, int64_t used_ns, uint64_t now_ns, int64_t alone_ns) {
  Slot &slot = page.slots[index];
  const uint64_t before = slot.virtual_ns;
  const uint64_t size = static_cast<uint64_t>(used_ns < 0 ? -used_ns : used_ns) * 100 / share_of(slot);
  slot.virtual_ns = used_ns >= 0 ? before + size : before - std::min(before, size);
  slot.used_ns += static_cast<uint64_t>(used_ns);
  if (slot.is_capped) {
    refill(page, slot, now_ns);
    slot.tokens_ns -= used_ns;
  }
  // Who comes now begins where the one begins that is served. Nobody has missed anything while one was alone, but for
  // its last operation, which may be all that it did.
  const int64_t missed = std::max<int64_t>(0, std::min(alone_ns, used_ns - static_cast<int64_t>(kLastNs)));
  const uint64_t start = before + static_cast<uint64_t>(missed) * 100 / share_of(slot);
  page.virtual_ns = std::max<uint64_t>(page.virtual_ns, start);
}

uint64_t Turn::pending_ns() const { return is_measured_ && costs_ ? costs_->pending_ns() : 0; }

uint64_t Turn::used_now() const {
  if (!is_measured_)
    return clock_ns(CLOCK_THREAD_CPUTIME_ID);
  return measured_ns_ + pending_ns();
}

void Turn::begin(bool heeds_calls) {
  heeds_calls_ = heeds_calls;
  // What this thread does between its turns (it receives, it decodes) is its session's, too.
  if (!has_begun_ && !is_measured_)
    used_at_ns_ = used_now();
  has_begun_ = true;
  if (priority_ != slot_.priority)
    adapt();
  if (!is_policy(page_, Policy::kNull) && slot_.share_percent != 0 && !is_ours_)
    acquire();
}

void Turn::acquire() {
  const uint64_t began_ns = now_ns();
  const uint64_t asked_ns = wait_for_tokens(began_ns);
  slot_.since_ns = asked_ns;
  go_to(slot_, Place::kArrived);
  uint64_t free = 0;
  const bool is_free = page_.holder.compare_exchange_strong(free, me_) || interrupt(asked_ns);
  if (is_free)
    arrive(page_, slot_);
  start(is_free || wait_for_turn(), began_ns);
}

// The lowest class runs when nobody else would, if the device's processors are its workers' alone: whoever comes then
// need not wait for the end of an operation.
void Turn::adapt() {
  priority_ = slot_.priority;
  slot_.yields_at_once = 0;
  if (!page_.interrupts || is_measured_ || !is_policy(page_, Policy::kPriority))
    return;
  const bool is_lowest = priority_ == 0;
  const sched_param parameters{};
  // Back again is not everybody's right; the turns are its own all the same.
  if (sched_setscheduler(0, is_lowest ? SCHED_IDLE : SCHED_OTHER, &parameters) == 0)
    slot_.yields_at_once = is_lowest;
}

// Takes the turn of a lower class in the middle of an operation, which the system leaves lying for as long as we work.
bool Turn::interrupt(uint64_t now) {
  uint64_t holder = page_.holder;
  if (holder == 0 || holder > kSlots || holder == me_)
    return false;
  Slot &other = page_.slots[holder - 1];
  if (!other.yields_at_once || other.is_overdue || other.priority >= slot_.priority)
    return false;
  if (!page_.holder.compare_exchange_strong(holder, me_))
    return false;
  other.since_ns = now;
  uint64_t nobody = 0;
  other.came_ns.compare_exchange_strong(nobody, now);
  auto running = static_cast<uint64_t>(Place::kRunning);
  other.place.compare_exchange_strong(running, static_cast<uint64_t>(Place::kInterrupted));
  return true;
}

// Makes room, and waits. Queued before anybody is woken: who is woken may run at once, in our place on this processor.
void Turn::queue_again(uint64_t now) {
  is_ours_ = false;
  deadline_ns_ = 0;
  slot_.since_ns = now;
  go_to(slot_, Place::kWaiting);
  pass_on(me_, now);
  start(wait_for_turn(), now);
}

void Turn::start(bool is_granted, uint64_t began_ns) {
  if (!is_granted) {
    go_to(slot_, Place::kIdle);
    if (page_.holder == me_)  // it was given to us meanwhile
      pass_on(me_, now_ns());
    return;
  }
  const uint64_t granted_ns = now_ns();
  is_ours_ = true;
  is_alone_ = true;
  held_ns_ = 0;
  slot_.is_overdue = is_overdue(page_, slot_, granted_ns);
  go_to(slot_, Place::kRunning);
  slot_.turns++;
  page_.grants++;
  slot_.waited_ns += granted_ns - began_ns;
  settled_at_ns_ = granted_ns;
  set_deadline(granted_ns);
}

// Returns when it has waited for them. That is no absence, and nobody has kept it waiting.
uint64_t Turn::wait_for_tokens(uint64_t began_ns) {
  uint64_t now = began_ns;
  while (slot_.is_capped && !slot_.is_leaving && !is_called()) {
    now = now_ns();
    refill(page_, slot_, now);
    const uint64_t ready = ready_at_ns(page_, slot_);
    if (ready <= now)
      break;
    futex_wait(slot_.wake, slot_.wake, std::min<int64_t>(static_cast<int64_t>(ready - now), kPatienceNs));
  }
  if (slot_.left_ns != 0)
    slot_.left_ns += now - began_ns;
  return now;
}

// Whoever has the turn is not alone any more.
void Turn::note_wait() {
  const uint64_t holder = page_.holder;
  uint64_t nobody = 0;
  if (holder != 0 && holder <= kSlots)
    page_.slots[holder - 1].came_ns.compare_exchange_strong(nobody, now_ns());
}

// False if the session ends meanwhile, or the node calls.
bool Turn::wait_for_turn() {
  while (true) {
    const uint32_t seen = slot_.wake;
    if (page_.holder == me_)
      return true;
    if (slot_.is_leaving || is_called())
      return false;
    if (is_at(slot_, Place::kPassed))
      go_to(slot_, Place::kArrived);
    note_wait();
    page_.attention = 1;
    uint64_t free = 0;
    if (page_.holder.compare_exchange_strong(free, me_)) {
      if (is_at(slot_, Place::kArrived))
        arrive(page_, slot_);
      return true;
    }
    futex_wait(slot_.wake, seen, kPatienceNs);
  }
}

// Charges what was used since the last time.
void Turn::settle(uint64_t now) {
  const uint64_t used = used_now();
  const auto since = static_cast<int64_t>(used - used_at_ns_);
  used_at_ns_ = used;
  held_ns_ += is_measured_ ? now - settled_at_ns_ : static_cast<uint64_t>(since);
  slot_.held_ns += now - settled_at_ns_;
  int64_t alone = is_alone_ ? since : 0;
  const uint64_t came = slot_.came_ns;
  if (is_alone_ && came && now > settled_at_ns_) {
    const uint64_t before = came > settled_at_ns_ ? std::min(came, now) - settled_at_ns_ : 0;
    alone = static_cast<int64_t>(static_cast<__int128>(since) * before / (now - settled_at_ns_));
  }
  settled_at_ns_ = now;
  charge(page_, index_, since, now, alone);
  slot_.pending_ns = pending_ns();
}

// When to look again: at the end of the quantum if somebody waits, and when a capped one has used what it may.
void Turn::set_deadline(uint64_t now) {
  slot_.came_ns = 0;
  page_.attention = 0;
  uint64_t left = UINT64_MAX;
  const int next = next_slot(page_, now);
  is_alone_ = next < 0;
  if (next >= 0) {
    left = held_ns_ < page_.quantum_ns ? page_.quantum_ns - held_ns_ : page_.quantum_ns.load();
  }
  if (slot_.is_capped)
    left = std::min<uint64_t>(left, static_cast<uint64_t>(std::max<int64_t>(1, slot_.tokens_ns)));
  deadline_ns_ = left == UINT64_MAX ? 0 : now + left;
}

// How long it went on although it was to stop. Whoever had no end set and was passed over did so for an operation that
// began when it last settled; who was alone, since somebody has come.
void Turn::note_hold(uint64_t now, bool is_mine) {
  uint64_t since = deadline_ns_ ? deadline_ns_ : is_mine ? now : settled_at_ns_;
  const int next = is_mine && is_alone_ ? next_slot(page_, now) : -1;
  if (next >= 0)
    since = std::min<uint64_t>(since, page_.slots[next].since_ns);
  if (now > since)
    slot_.longest_ns = std::max<uint64_t>(slot_.longest_ns, now - since);
}

void Turn::look() {
  const uint64_t now = now_ns();
  const bool is_mine = page_.holder == me_;
  if (is_mine && !page_.attention && now < deadline_ns_)
    return;
  note_hold(now, is_mine);
  settle(now);
  if (!is_mine) {
    is_ours_ = false;
    note_work(false);
    acquire();
    note_work(true);
    return;
  }
  const int next = next_slot(page_, now);
  const bool is_spent = slot_.is_capped && slot_.tokens_ns <= 0;
  if (is_spent || slot_.share_percent == 0) {
    note_work(false);
    give_away();
    begin(heeds_calls_);
    note_work(true);
    return;
  }
  if (must_yield(page_, index_, held_ns_, next, now)) {
    note_work(false);
    queue_again(now);
    note_work(true);
    return;
  }
  if (held_ns_ >= page_.quantum_ns)
    held_ns_ = 0;
  set_deadline(now);
}

void Turn::end() {
  if (!is_ours_) {
    const uint64_t used = used_now();
    slot_.used_ns += used - used_at_ns_;
    slot_.pending_ns = pending_ns();
    used_at_ns_ = used;
    return;
  }
  const uint64_t now = now_ns();
  note_hold(now, page_.holder == me_);
  settle(now);
  give_away();
}

void Turn::give_away() {
  is_ours_ = false;
  deadline_ns_ = 0;
  const uint64_t now = now_ns();
  slot_.left_ns = now;
  go_to(slot_, Place::kIdle);
  pass_on(me_, now);
}

// From us, or from nobody, to whoever is next.
void Turn::pass_on(uint64_t from, uint64_t now) {
  while (true) {
    const int next = next_slot(page_, now);
    uint64_t holder = from;
    const uint64_t to = next < 0 ? 0 : static_cast<uint64_t>(next) + 1;
    if (to == from || !page_.holder.compare_exchange_strong(holder, to))
      return;  // nobody waits, or the node has given it away already
    if (next >= 0) {
      Slot &other = page_.slots[next];
      if (is_at(other, Place::kInterrupted)) {  // it goes on by itself
        other.is_overdue = is_overdue(page_, other, now);
        auto interrupted = static_cast<uint64_t>(Place::kInterrupted);
        other.place.compare_exchange_strong(interrupted, static_cast<uint64_t>(Place::kRunning));
        page_.attention = 1;
      }
      wake(other);
      return;
    }
    from = 0;  // somebody may have come just before it was free
  }
}

}  // namespace xpool_server
