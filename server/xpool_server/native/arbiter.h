// Whose turn it is on a device: a page of memory that the workers of the device and their node share.
//
// The rules are those of xpool_server/arbiter, whose policies are the oracle. Every word is a 64-bit atomic. A slot is
// one worker's. Its virtual time is written by whoever has the device: the slot's own worker while it runs, the one
// before it while it waits. `holder` changes hands by compare-and-swap; the node, which watches over the workers, may
// take it from one that is gone or stands still.
#pragma once
#include <atomic>
#include <cstdint>

#include "costs.h"

namespace xpool_server {

constexpr uint64_t kSlots = 256;

enum class Policy : uint64_t { kNull = 0, kFifo = 1, kFairShare = 2, kPriority = 3 };

enum class Place : uint64_t {
  kEmpty = 0,    // nobody's
  kIdle = 1,     // has nothing to do
  kArrived = 2,  // waits, and its virtual time has not been looked at yet
  kWaiting = 3,
  kRunning = 4,
  kPassed = 5,  // the node has given its turn to others: it must queue again
  kInterrupted = 6,  // somebody of a higher class has taken its turn in the middle of an operation
};

// As `SLOT` in arbiter/page.py.
struct Slot {
  std::atomic<uint64_t> place;
  std::atomic<uint64_t> virtual_ns;     // device time by share: ns * 100 / share
  std::atomic<uint64_t> share_percent;  // 0: takes part in nothing
  std::atomic<uint64_t> priority;       // the highest goes first
  std::atomic<uint64_t> is_capped;
  std::atomic<uint64_t> since_ns;       // it waits since
  std::atomic<int64_t> tokens_ns;       // of a capped one: device time that it may use now
  std::atomic<uint64_t> tokens_at_ns;
  std::atomic<uint64_t> used_ns;        // device time, since the session began
  std::atomic<uint64_t> waited_ns;
  std::atomic<uint64_t> longest_ns;     // the longest time that it went on although it was to stop
  std::atomic<uint64_t> turns;
  std::atomic<uint64_t> pid;
  std::atomic<uint32_t> wake;           // a futex
  uint32_t unused;
  std::atomic<uint64_t> is_leaving;     // its session ends: it waits for nothing any more
  std::atomic<uint64_t> is_overdue;     // it runs because it has waited for too long
  std::atomic<uint64_t> is_called;      // its node has sent it something: it is to look as soon as it may
  std::atomic<uint64_t> yields_at_once;  // the system lets others run before it: its operations can be interrupted
  std::atomic<uint64_t> held_ns;  // time that has passed in its turns
  std::atomic<uint64_t> left_ns;  // it had nothing to do since
  std::atomic<uint64_t> pending_ns;  // of used_ns: estimated, and not measured yet
  std::atomic<uint64_t> came_ns;     // somebody waits for its turn to end since; 0: nobody
  std::atomic<uint64_t> more[10];
};

// As `HEADER` in arbiter/page.py.
struct Page {
  std::atomic<uint64_t> holder;      // slot + 1; 0: the device is free
  std::atomic<uint64_t> attention;   // the holder must look who waits
  std::atomic<uint64_t> virtual_ns;  // where those begin who come now
  std::atomic<uint64_t> policy;
  std::atomic<uint64_t> quantum_ns;
  std::atomic<uint64_t> lag_ns;
  std::atomic<uint64_t> burst_ns;
  std::atomic<uint64_t> starvation_ns;
  std::atomic<uint64_t> slot_limit;  // slots from here on are empty
  std::atomic<uint64_t> grants;
  std::atomic<uint64_t> interrupts;  // the device's processors are its workers' alone, and the system may interrupt
  std::atomic<uint64_t> pause_ns;      // who was away for so long has slept
  std::atomic<uint64_t> pause_lag_ns;  // as lag_ns, of whoever has not
  std::atomic<uint64_t> more[51];
  Slot slots[kSlots];
};

static_assert(sizeof(Slot) == 256 && sizeof(Page) == 512 + 256 * kSlots);

// ---- what decides: no clock, no waiting

// The waiting slot that goes next; -1 if none waits. Those that have arrived are given their virtual time.
int next_slot(Page &page, uint64_t now_ns);
// Whether the holder must make room for `next`, having used so much in this turn.
bool must_yield(const Page &page, int holder, uint64_t held_ns, int next, uint64_t now_ns);
// Device time was used. `alone_ns`: so much of it while nobody waited.
// Negative: a correction of what was estimated.
void charge(Page &page, int slot, int64_t used_ns, uint64_t now_ns, int64_t alone_ns);
// Of a capped slot: device time that it may use now; negative: what it owes.
int64_t refill(const Page &page, Slot &slot, uint64_t now_ns);
// When a capped slot that may not run now may run again.
uint64_t ready_at_ns(const Page &page, const Slot &slot);

// ---- what does

// One worker's part. Used by the thread that runs its operations.
class Turn {
 public:
  Turn(Page &page, int slot) : page_(page), slot_(page.slots[slot]), index_(slot) {}

  // Waits until the device is ours; or, if it may, until the node calls: it is not ours then.
  void begin(bool heeds_calls = false);
  // Nothing is to be done for now.
  void end();
  // The device's own clock says how much of its time is used by now, behind what is submitted. From then on that is
  // what counts, and not this thread's processor time; a quantum is then time in which work is submitted.
  void measured(uint64_t total_ns) {
    measured_ns_ = total_ns;
    if (!is_measured_)
      used_at_ns_ = total_ns;
    is_measured_ = true;
  }
  // With it, what is submitted counts by estimate until it is measured.
  void estimate_by(const Costs *costs) { costs_ = costs; }
  // Told when a turn is interrupted between two records (0), and when it goes on (1): what the device is given in
  // between is others', and no part of our piece of work.
  void note_work_by(void (*note_work)(int32_t begins)) { note_work_ = note_work; }
  // Between two records: makes room for others if it is their turn, and waits until it is ours again. False if calls
  // are heeded and the node calls: no record may follow before somebody has looked.
  bool check(bool heeds_calls = false) {
    if (heeds_calls && slot_.is_called.load(std::memory_order_relaxed))
      return false;
    if (is_undisturbed())
      return true;
    heeds_calls_ = heeds_calls;
    if (is_ours_)
      look();
    return !is_called();
  }
  // The device is ours, and nobody asks for it: `check` would not wait.
  bool is_undisturbed() const {
    return deadline_ns_ == 0 && page_.holder.load(std::memory_order_relaxed) == me_ &&
           !page_.attention.load(std::memory_order_relaxed);
  }
  // The node has sent us something.
  bool is_wanted() const { return slot_.is_called.load(std::memory_order_relaxed); }

 private:
  bool is_called() const { return heeds_calls_ && slot_.is_called; }
  uint64_t used_now() const;
  uint64_t pending_ns() const;
  void look();
  void acquire();
  void adapt();
  bool interrupt(uint64_t now_ns);
  void queue_again(uint64_t now_ns);
  void start(bool is_granted, uint64_t began_ns);
  uint64_t wait_for_tokens(uint64_t began_ns);
  void note_wait();
  bool wait_for_turn();
  void note_hold(uint64_t now_ns, bool is_mine);
  void settle(uint64_t now_ns);
  void set_deadline(uint64_t now_ns);
  void give_away();
  void pass_on(uint64_t from, uint64_t now_ns);
  void note_work(bool begins) const {
    if (note_work_)
      note_work_(begins);
  }

  Page &page_;
  Slot &slot_;
  const int index_;
  const uint64_t me_ = static_cast<uint64_t>(index_) + 1;
  bool is_ours_ = false;
  bool has_begun_ = false;
  bool heeds_calls_ = false;
  uint64_t priority_ = UINT64_MAX;
  bool is_alone_ = true;
  uint64_t deadline_ns_ = 0;  // when to look again although nobody has asked; 0: never
  uint64_t used_at_ns_ = 0;   // the thread's processor time up to which it is charged
  uint64_t held_ns_ = 0;      // device time of this turn
  bool is_measured_ = false;
  const Costs *costs_ = nullptr;
  void (*note_work_)(int32_t begins) = nullptr;
  uint64_t measured_ns_ = 0;
  uint64_t settled_at_ns_ = 0;
};

}  // namespace xpool_server
