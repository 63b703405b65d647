#include "serving.h"

#include <ATen/core/LegacyTypeDispatch.h>

#include <algorithm>
#include <ctime>

#include "arrays.h"
#include "limits.h"

namespace xpool_server {

namespace {

// Reads up to here are answered by copies; what is larger is Python's, which waits for a client that takes nothing.
constexpr uint64_t kMaxCopiedRead = (64 << 10) - 1;

// Under a stream without a pause there is an Ack, and a look at Python's descriptors, after so many messages.
constexpr int kMessagesBetweenLooks = 32;

constexpr uint8_t kFence = 8;
constexpr char kNone = 0;  // the value

int64_t clock_ns(clockid_t clock) {
  timespec now;
  clock_gettime(clock, &now);
  return now.tv_sec * 1'000'000'000L + now.tv_nsec;
}

int64_t now_ns() { return clock_ns(CLOCK_MONOTONIC); }

}  // namespace

Serving::Serving(Executor &executor, Setup setup)
    : executor_(executor), setup_(std::move(setup)), connection_(setup_.version, setup_.window) {
  polled_.push_back({setup_.router.fd(), POLLIN, 0});
  for (const int fd : setup_.watched)
    polled_.push_back({fd, POLLIN, 0});
}

Stop Serving::serve(int64_t timeout_ns) {
  message.clear();
  received_bytes = sent_bytes = busy_ns = refused_messages = 0;
  // Gradients are the client's business, and so are a tensor's versions.
  const at::AutoDispatchBelowADInplaceOrView guard;
  const int64_t until_ns = now_ns() + timeout_ns;
  while (true) {
    bool is_drained;
    const Stop stop = receive_all(until_ns, is_drained);
    if (is_drained || stop != Stop::kQuiet)
      work(false);
    if (connection_.owes_ack()) {
      acknowledge();
      is_drained = false;  // sending may take libzmq's news of an arrival off its descriptor
    }
    if (stop != Stop::kQuiet)
      return stop;
    const int64_t left_ns = until_ns - now_ns();
    if (left_ns <= 0 || has_watched(is_drained ? left_ns : 0)) {
      work(false);
      return Stop::kQuiet;
    }
  }
}

// Takes messages until there is none, or it is time to look around (both kQuiet), or one is Python's.
Stop Serving::receive_all(int64_t until_ns, bool &is_drained) {
  is_drained = false;
  for (int count = 0; count < kMessagesBetweenLooks && now_ns() < until_ns; count++) {
    switch (setup_.router.receive(message)) {
      case ZmqRouter::kNothing: message.clear(); is_drained = true; return Stop::kQuiet;
      case ZmqRouter::kRefused: refused_messages++; break;
      case ZmqRouter::kBroken: return Stop::kBroken;
      case ZmqRouter::kMessage: {
        bool is_taken;
        const Stop stop = take(is_taken);
        if (!is_taken)
          return stop;
      }
    }
    if (connection_.must_ack())
      acknowledge();
  }
  message.clear();
  return Stop::kQuiet;
}

// Executes the message if it is the next batch; otherwise says how it is Python's.
Stop Serving::take(bool &is_taken) {
  is_taken = false;
  if (message.size() < 2 || message[0].bytes() != setup_.owner)
    return Stop::kMessage;
  const auto records = connection_.next_batch(message[1].bytes(), message.size() - 1);
  const auto is_too_large = [](const xpool_protocol::Message &frame) { return frame.size() > MAX_FRAME_NBYTES; };
  if (!records || std::any_of(message.begin() + 2, message.end(), is_too_large))
    return Stop::kMessage;
  uint64_t nbytes = message[1].size();
  for (size_t i = 2; i < message.size(); i++) {
    executor_.payloads.push_back(message[i].bytes());
    nbytes += message[i].size();
  }
  work(true);
  outcome = run(*records);
  executor_.payloads.clear();  // their memory is Python's from here on, or free
  if (outcome != Outcome::kDone)
    return Stop::kRecord;
  received_bytes += nbytes;
  connection_.note_executed(nbytes, batch_record_count);
  is_taken = true;
  return Stop::kQuiet;
}

// Until the records' end, or a record that is Python's.
Outcome Serving::run(std::string_view records) {
  batch_record_count = 0;
  size_t position = 0;
  while (true) {
    const auto *data = reinterpret_cast<const uint8_t *>(records.data());
    const Outcome stopped = executor_.run(data, records.size(), position);
    batch_record_count += executor_.record_count;
    position = executor_.position;
    if (stopped == Outcome::kHandBack && (run_arrays(records, position) || run_fence(records, position)))
      continue;
    if (stopped != Outcome::kRead || !answer_read())
      return stopped;
  }
}

// Executes a row of array records from a position on, if there is one; false if the record there is Python's.
bool Serving::run_arrays(std::string_view records, size_t &position) {
  const auto *data = reinterpret_cast<const uint8_t *>(records.data());
  Arrays *arrays = executor_.arrays;
  if (!arrays || executor_.expansion.plan || position == records.size() || !Arrays::is_kind(data[position]))
    return false;
  const ArrayOutcome outcome = arrays->serve(data, records.size(), position);
  batch_record_count += arrays->record_count;
  executor_.position = position = arrays->position;
  if (outcome == ArrayOutcome::kAnswer)
    send(connection_.reply(arrays->request) + arrays->answer);
  return outcome == ArrayOutcome::kDone || outcome == ArrayOutcome::kAnswer;
}

// Answers the fence at a position, if there is one and Python has nothing to say about it.
bool Serving::run_fence(std::string_view records, size_t &position) {
  Reader from(reinterpret_cast<const uint8_t *>(records.data()), records.size());
  from.go_to(position);
  if (executor_.expansion.plan || from.is_exhausted() || *from.here() != kFence)
    return false;
  try {
    from.uint8();
    const uint64_t request = from.uvarint(MAX_STORAGE_ID);
    if (!request || !setup_.is_settled())
      return false;
    executor_.position = position = from.position();
    batch_record_count++;
    send(connection_.reply(request) + std::string(1, kNone));
    return true;
  } catch (const HandBack &) {
    return false;
  }
}

bool Serving::answer_read() {
  const Answer &answer = executor_.answer;
  if (answer.nbytes > kMaxCopiedRead)
    return false;
  send(connection_.read_reply(answer.request), {static_cast<const char *>(answer.data), answer.nbytes});
  return true;
}

void Serving::acknowledge() { send(connection_.ack()); }

// To a client that is gone nothing can be sent; the lease's end is what ends its session.
void Serving::send(std::string_view first, std::string_view payload) {
  sent_bytes += first.size() + payload.size();
  setup_.router.send(setup_.owner, first, payload);
}

// Waits for one of Python's descriptors; false if time is over, or the socket may have something.
bool Serving::has_watched(int64_t timeout_ns) {
  const timespec timeout{timeout_ns / 1'000'000'000, timeout_ns % 1'000'000'000};
  if (::ppoll(polled_.data(), polled_.size(), &timeout, nullptr) <= 0)
    return false;
  return std::any_of(polled_.begin() + 1, polled_.end(), [](const pollfd &one) { return one.revents; });
}

void Serving::work(bool begins) {
  if (begins == is_working_)
    return;
  is_working_ = begins;
  if (executor_.turn && begins)
    executor_.turn->begin(true);
  if (setup_.note_work)
    setup_.note_work(begins);
  else
    note_busy(begins);
  if (executor_.turn && !begins)
    executor_.turn->end();
}

void Serving::note_busy(bool begins) {
  const int64_t at_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID);
  if (begins)
    work_began_ns_ = at_ns;
  else
    busy_ns += at_ns - work_began_ns_;
}

}  // namespace xpool_server
