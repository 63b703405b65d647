#include "waiting.h"

#include <c10/util/Exception.h>

#include <unistd.h>

#include <chrono>
#include <string>

#include "interpreter.h"
#include "stall.h"

namespace xpool {

namespace {

// An answer's frames, and where its payloads lie.
struct Kept {
  Reply reply;
  std::vector<const char *> payloads;
  std::vector<uint64_t> sizes;
};
thread_local Kept kept;

constexpr const char *kInterrupted = "interrupted while waiting for the server";  // library.py compares it

// Whether to go on waiting after some time, or a signal. Python's lock is not held.
bool goes_on(Answer &answer) {
  if (const int signal = run_signal_handlers()) {
    answer.status = 3;
    answer.signal = signal;
    answer.exception = "RuntimeError";
    answer.text = kInterrupted;
  }
  return answer.status == 0;
}

void fill(Answer &answer, Reply reply) {
  drop_reply();
  const Message &first = reply->front();
  answer.value = first.data() + kHeaderBytes;
  answer.value_nbytes = first.size() - kHeaderBytes;
  for (size_t i = 1; i < reply->size(); i++) {
    kept.payloads.push_back((*reply)[i].data());
    kept.sizes.push_back((*reply)[i].size());
  }
  kept.reply = std::move(reply);
  answer.payloads = kept.payloads.data();
  answer.payload_nbytes = kept.sizes.data();
  answer.payload_count = kept.sizes.size();
}

int64_t monotonic_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// For the user. Python's lock is not held, and its stream may be anything.
void say(std::string line) {
  if (line.empty())
    return;
  line += '\n';
  if (::write(STDERR_FILENO, line.data(), line.size()) < 0)
    return;  // nobody listens
}

}  // namespace

void drop_reply() {
  kept.reply.reset();
  kept.payloads.clear();
  kept.sizes.clear();
}

bool wait_natively(Pump &pump, uint64_t request, Answer &answer) {
  WithoutPythonLock unlocked;
  Reply reply;
  Outcome outcome;
  do
    outcome = pump.wait(request, reply);
  while (outcome == Outcome::kSignal && goes_on(answer));
  if (outcome == Outcome::kAnswered)
    fill(answer, std::move(reply));
  if (outcome == Outcome::kAskPython && Log::closed() && !is_main_thread())
    wait_for_the_end();
  return outcome != Outcome::kAskPython;
}

void wait_for_room(Pump &pump, const Log &log) {
  Answer answer;
  {
    WithoutPythonLock unlocked;
    Stall stall(pump.sent_bytes(), monotonic_ns());
    while (pump.wait_for_room() == Outcome::kSignal && goes_on(answer))
      say(stall.notice(pump.sent_bytes(), log.queued_bytes(), monotonic_ns()));
  }
  deliver_again(answer.signal);
  TORCH_CHECK(answer.status == 0, answer.text);
}

}  // namespace xpool
