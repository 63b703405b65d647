#include "pump.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <utility>

#include "futex.h"

namespace xpool {

namespace {

// A signal that comes between a look and the wait is seen this much later.
constexpr int kLookAgainMs = 500;

// By default the kernel lets a timer be late by half of what the pace spaces out.
constexpr unsigned long kTimerSlackNs = 5'000;

// A drive as short as this does not wake the pump's thread at its end, which looks by itself after a while.
constexpr int64_t kShortDriveNs = 1'000'000;
constexpr int64_t kAsideNs = 2'000'000;
constexpr int64_t kLookNs = 500'000;

// Soon after a drive some records more are often followed by the next one, which sends them: the pump's thread, woken
// by the first, would only be in its way. This many are worth its while.
constexpr size_t kAsideBytes = 512;

void add_one(int event_fd) {
  const uint64_t one = 1;
  // A full counter means that a wake is pending already, so a failed write loses nothing.
  if (::write(event_fd, &one, sizeof one) < 0)
    return;
}

void quiet(int event_fd) {
  uint64_t count;
  if (::read(event_fd, &count, sizeof count) < 0)
    return;  // nothing was written
}

void wait_readable(int fd, int64_t timeout_ns) {
  pollfd one{fd, POLLIN, 0};
  const timespec timeout{timeout_ns / 1'000'000'000, timeout_ns % 1'000'000'000};
  ::ppoll(&one, 1, timeout_ns < 0 ? nullptr : &timeout, nullptr);
}

int64_t monotonic_ns() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1'000'000'000L + now.tv_nsec;
}

}  // namespace

void Pump::start() {
  // Signals are the program's: a thread of ours must not take one from the main thread.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { run(); });
  pthread_setname_np(thread_.native_handle(), "xpool-pump");
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void Pump::join() { thread_.join(); }

void Pump::ring() const { add_one(wake_fd_); }

// ---- any thread

Outcome Pump::wait(uint64_t request, Reply &reply) {
  Waiter waiter;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (auto found = answers_.find(request); found != answers_.end()) {
      reply = std::move(found->second.reply);
      answers_.erase(found);
      return Outcome::kAnswered;
    }
    if (at_python_.contains(request) || is_over_)
      return Outcome::kAskPython;
    waiters_[request] = &waiter;
    waiter.is_driver = !std::exchange(has_driver_, true);
    if (waiter.is_driver) {
      driver_ = std::this_thread::get_id();
      driven_since_ns_ = monotonic_ns();
    }
  }
  if (log_.queued_bytes())
    is_awaited_ = true;
  if (waiter.is_driver ? drive(waiter) : rely_on_driver())
    wait_for_change(waiter.is_answered, 0, kLookAgainMs);
  if (!waiter.is_answered) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!waiter.is_answered) {
      waiters_.erase(request);
      return Outcome::kSignal;
    }
  }
  reply = std::move(waiter.reply);  // whoever answers takes the waiter off the list first
  return waiter.outcome;
}

// What is awaited is sent by this thread; the answer is somebody else's to receive.
bool Pump::rely_on_driver() {
  if (is_awaited_ && !exchange())
    ring();
  return true;
}

// Sends and receives until the waiter is answered, or a signal or some time has come. True if the path has ended:
// then Python will say what the answer is.
bool Pump::drive(Waiter &waiter) {
  bool is_open;
  while ((is_open = exchange()) && !waiter.is_answered) {
    const auto woken = path_.wait(poke_fd_, kLookAgainMs * 1'000'000L);
    if (woken == ZmqPath::kNobody)
      break;
    if (woken == ZmqPath::kOther)
      quiet(poke_fd_);
  }
  std::lock_guard<std::mutex> lock(mutex_);
  has_driver_ = waiter.is_driver = false;
  driven_until_ns_ = monotonic_ns();
  const bool is_short = driven_until_ns_ - driven_since_ns_ < kShortDriveNs;
  if (!is_short || !waiters_.empty() || !marks_.empty() || log_.queued_bytes() || !is_open)
    ring();
  return !is_open;
}

Outcome Pump::wait_for_room() {
  room_waiters_++;
  const uint32_t before = room_;
  bool is_over;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    is_over = is_over_;
  }
  Outcome outcome = Outcome::kAnswered;
  if (!is_over && log_.queued_bytes() > kTransferBytes) {
    wait_for_change(room_, before, kLookAgainMs);
    outcome = Outcome::kSignal;
  }
  room_waiters_--;
  return outcome;
}

int64_t Pump::mark(uint64_t request) {
  std::lock_guard<std::mutex> lock(mutex_);
  at_python_.erase(request);
  if (auto found = answers_.find(request); found != answers_.end()) {
    const int64_t at_ns = found->second.at_ns;
    answers_.erase(found);
    return at_ns;
  }
  marks_.insert(request);
  ring();  // its answer's time is taken: nobody may be aside
  return 0;
}

void Pump::hold(bool is_held) {
  is_held_ = is_held;
  ring();
}

void Pump::leave(std::string bye) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!is_over_)
      bye_ = std::move(bye);
    is_leaving_ = true;
  }
  ring();
}

void Pump::end(std::string bye) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!std::exchange(is_over_, true))
      bye_ = std::move(bye);
    while (!waiters_.empty())
      wake_waiters(answer_locked(waiters_.begin()->first, Outcome::kAskPython, nullptr));
  }
  room_++;
  wake_waiters(&room_);
  ring();
}

// ---- Python's thread

const Event &Pump::next() {
  std::unique_lock<std::mutex> lock(mutex_);
  if (current_.kind)
    dealt_with_++;
  current_ = {};
  while (!held_.empty() && held_.front().after <= dealt_with_) {
    wake_waiters(deliver_locked(std::move(held_.front())));
    held_.pop_front();
  }
  has_event_.wait(lock, [this] { return !events_.empty(); });
  current_ = std::move(events_.front());
  events_.pop_front();
  return current_;
}

void Pump::ask_python(uint64_t request) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (marks_.erase(request))
    return;
  at_python_.insert(request);
  wake_waiters(answer_locked(request, Outcome::kAskPython, nullptr));
}

void Pump::forget(uint64_t request) {
  std::lock_guard<std::mutex> lock(mutex_);
  at_python_.erase(request);
}

// ---- the pump's thread

void Pump::run() {
  prctl(PR_SET_TIMERSLACK, kTimerSlackNs, 0, 0, 0);
  while (exchange())
    wait_for_work();
  tell({Event::kStopped});
}

// How long the pump's thread leaves the socket to others: 0 not at all, negative until one rings.
int64_t Pump::aside_ns() {
  std::lock_guard<std::mutex> lock(mutex_);
  const int64_t now_ns = monotonic_ns();
  if (has_driver_)
    return now_ns - driven_since_ns_ < kShortDriveNs ? kLookNs : -1;
  // The next answer is often waited for soon after the last.
  const bool is_needed = !waiters_.empty() || !marks_.empty();
  return is_needed || now_ns - driven_until_ns_ >= kAsideNs ? 0 : kLookNs;
}

// Until there may be something to send, or to receive by this thread.
void Pump::wait_for_work() {
  const int64_t aside = aside_ns();
  bool lacks_credit;
  const int64_t patience = patience_ns(aside > 0 ? kAsideBytes : 1, lacks_credit);
  if (aside && !lacks_credit)
    wait_readable(wake_fd_, patience < 0 || aside < 0 ? std::max(patience, aside) : std::min(patience, aside));
  else
    path_.wait(wake_fd_, patience);
  quiet(wake_fd_);
}

// Sends and receives what there is; false when there was a last time. By the pump's thread, or one that waits.
bool Pump::exchange() {
  std::lock_guard<std::mutex> lock(socket_mutex_);
  is_open_ = is_open_ && exchange_once();
  return is_open_;
}

bool Pump::exchange_once() {
  std::string bye;
  bool is_leaving, is_over;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    is_over = is_over_;
    is_leaving = is_leaving_;
    bye = bye_;
    if (is_leaving_)
      is_awaited_ = true;
  }
  if (is_over) {
    if (!bye.empty())
      path_.send(bye, {}, {});
    return false;
  }
  // Sending may take libzmq's news of an arrival off its descriptor, so receiving comes last.
  const bool is_sent = send_queued();
  if (is_sent && is_leaving) {
    path_.send(bye, {}, {});
    return false;
  }
  const bool is_gone = path_.is_disconnected();
  if (!receive_all())
    return false;
  if (is_sent && !is_gone)
    return true;
  tell({Event::kBroken});
  return false;
}

// How long nothing needs to be done unless a descriptor says so; negative: for ever. If nothing is queued, `ring_bytes`
// ring; else as many as are worth a message.
int64_t Pump::patience_ns(size_t ring_bytes, bool &lacks_credit) {
  std::lock_guard<std::mutex> lock(socket_mutex_);
  lacks_credit = !connection_.has_room();
  if (is_held_ || lacks_credit || !log_.ring_at(ring_bytes))
    return -1;
  return pace_.delay_ns(monotonic_ns(), log_.ring_at(kPaceBytes), is_awaited_);
}

bool Pump::send_queued() {
  bool has_taken = false, is_sent = true;
  // Whoever waits has recorded what for: it is taken below.
  const bool is_awaited = is_awaited_.exchange(false);
  while (is_sent && !is_held_ && connection_.has_room()) {
    const int64_t now_ns = monotonic_ns();
    if (pace_.delay_ns(now_ns, log_.queued_bytes(), is_awaited))
      break;
    const std::unique_ptr<Batch> batch(log_.take());
    if (!batch)
      break;
    pace_.note_sent(now_ns, is_awaited);
    std::vector<std::pair<char *, size_t>> payloads;
    for (size_t i = 0; i < batch->payloads.size(); i++)
      payloads.emplace_back(batch->payloads[i], batch->sizes[i]);
    batch->payloads.clear();  // the path frees them
    const std::string head = connection_.head(payloads.size());
    const size_t nbytes = head.size() + batch->records.size() + batch->payload_bytes;
    // Credit is of what the server has to do, not of the few bytes that plans leave of it.
    connection_.note_sent(std::max(nbytes, head.size() + batch->cost), batch->record_count);
    sent_bytes_ += nbytes;
    is_sent = path_.send(head, batch->records, payloads);
    has_taken = true;
  }
  if (is_awaited && log_.queued_bytes())
    is_awaited_ = true;  // for want of credit
  for (const uint64_t request : log_.take_abandoned())
    abandon(request);
  if (has_taken) {
    room_++;
    if (room_waiters_)
      wake_waiters(&room_);
  }
  return is_sent;
}

bool Pump::receive_all() {
  while (true) {
    auto frames = std::make_unique<Messages>();
    switch (path_.receive(*frames)) {
      case Arrival::kNothing: return true;
      case Arrival::kTooManyFrames: tell({Event::kTooManyFrames}); return false;
      case Arrival::kTooLarge: tell({Event::kTooLarge}); return false;
      case Arrival::kBroken: tell({Event::kBroken}); return false;
      case Arrival::kMessage: break;
    }
    if (!take_in(std::move(frames)))
      return false;
  }
}

bool Pump::take_in(std::unique_ptr<Messages> messages) {
  std::vector<Frame> frames;
  for (const Message &message : *messages)
    frames.push_back({message.data(), message.size()});
  Received received = connection_.receive(frames.data(), frames.size());
  switch (received.kind) {
    case Received::kAck:
    case Received::kPong: return true;
    case Received::kRefused: tell({Event::kRefused, 0, 0, std::move(received.refusal)}); return false;
    case Received::kOther: tell({Event::kMessage, 0, monotonic_ns(), {}, std::move(messages)}); return true;
    case Received::kReply: break;
  }
  Word *word = nullptr;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    Arrived arrived{received.number, std::move(messages), monotonic_ns(), told_};
    if (told_ == dealt_with_)
      word = deliver_locked(std::move(arrived));
    else
      held_.push_back(std::move(arrived));
  }
  wake_waiters(word);
  return true;
}

void Pump::tell(Event event) {
  std::lock_guard<std::mutex> lock(mutex_);
  tell_locked(std::move(event));
}

void Pump::tell_locked(Event event) {
  events_.push_back(std::move(event));
  told_++;
  has_event_.notify_one();
}

Pump::Word *Pump::deliver_locked(Arrived arrived) {
  if (abandoned_.erase(arrived.request))
    return nullptr;
  if (marks_.erase(arrived.request)) {
    tell_locked({Event::kMark, arrived.request, arrived.at_ns});
    return nullptr;
  }
  if (waiters_.contains(arrived.request))
    return answer_locked(arrived.request, Outcome::kAnswered, std::move(arrived.reply));
  answers_.insert_or_assign(arrived.request, std::move(arrived));
  return nullptr;
}

// Nobody will ask for this answer: it goes when it comes, or now.
void Pump::abandon(uint64_t request) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!answers_.erase(request))
    abandoned_.insert(request);
}

Pump::Word *Pump::answer_locked(uint64_t request, Outcome outcome, Reply reply) {
  const auto found = waiters_.find(request);
  if (found == waiters_.end())
    return nullptr;
  Waiter *waiter = found->second;
  waiters_.erase(found);
  waiter->outcome = outcome;
  waiter->reply = std::move(reply);
  const bool is_driver = waiter->is_driver;
  waiter->is_answered = 1;
  if (is_driver && driver_ != std::this_thread::get_id())
    add_one(poke_fd_);
  return is_driver ? nullptr : &waiter->is_answered;
}

}  // namespace xpool
