// An open session's I/O without Python's lock: takes batches from a log, sends, receives, wakes who waits.
//
// A thread of its own looks after the socket. One thread that waits for an answer may take its place meanwhile, the
// *driver*: it sends and receives itself, and saves two changes of thread. The pump's thread then waits for records
// only, and for a while after, because the next answer is often waited for at once. Acks, Replies and Pongs it handles itself; everything else, and the end of the
// path, goes to Python as an event (`next`), in the order of arrival: no answer is given to anybody before Python has
// dealt with the events that came before it, so that a failure is known by the time a later fence is answered.
//
// Made once for each session and never destroyed: threads may wait in it until the process ends.
#pragma once
#include <sys/eventfd.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <unordered_set>

#include "connection.h"
#include "log.h"
#include "pace.h"
#include "zmq_path.h"

namespace xpool {

// A Reply's frames: the first begins with the header.
using Reply = std::unique_ptr<Messages>;

struct Event {
  // As `_Event` in pump.py. kMark: the request that `mark` named is answered.
  enum Kind : int32_t { kMessage = 1, kMark, kBroken, kRefused, kTooManyFrames, kTooLarge, kStopped } kind;
  uint64_t number = 0;
  int64_t at_ns = 0;  // arrival, on the monotonic clock
  std::string text;
  std::unique_ptr<Messages> frames;
};

enum class Outcome : int32_t {
  kAnswered = 0,
  kAskPython = 1,  // Python has the answer: a failure, or why the session is over
  kSignal = 2,     // a signal, or some time, has passed: look after signals and wait again
};

class Pump {
 public:
  Pump(Log &log, int wake_fd, const ZmqApi &api, const ZmqPath::Sockets &sockets, uint8_t version, uint64_t window)
      : log_(log), wake_fd_(wake_fd), poke_fd_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)), path_(api, sockets),
        connection_(version, window) {}

  void start();

  // ---- any thread, without Python's lock
  Outcome wait(uint64_t request, Reply &reply);
  // Waits while more is queued than one transfer.
  Outcome wait_for_room();
  // Lets `next` tell of a request's answer instead of keeping it for `wait`; when it came, or 0 if it has not.
  int64_t mark(uint64_t request);
  // Sends nothing until let go, whatever is queued.
  void hold(bool is_held);
  // Sends what is queued and the credit allows, then these bytes, and stops.
  void leave(std::string bye);
  // The session is over: everyone who waits asks Python. What is queued is not sent any more, only these bytes, if any.
  void end(std::string bye);

  uint64_t sent_bytes() const { return sent_bytes_.load(std::memory_order_relaxed); }

  // ---- Python's thread
  // The next event; waits for it. Whatever the one before was about counts as dealt with. After kStopped no more.
  const Event &next();
  // Python keeps the answer to this request, until somebody has taken it there.
  void ask_python(uint64_t request);
  void forget(uint64_t request);
  void join();

 private:
  using Word = std::atomic<uint32_t>;
  struct Waiter {
    Word is_answered{0};
    bool is_driver = false;
    Outcome outcome = Outcome::kSignal;
    Reply reply;
  };
  struct Arrived {
    uint64_t request;
    Reply reply;
    int64_t at_ns;
    uint64_t after;  // events that came before
  };

  void run();
  void wait_for_work();
  int64_t aside_ns();
  bool drive(Waiter &waiter);
  bool rely_on_driver();
  bool exchange();
  bool exchange_once();
  bool send_queued();
  int64_t patience_ns(size_t ring_bytes, bool &lacks_credit);
  bool receive_all();
  bool take_in(std::unique_ptr<Messages> frames);
  void tell(Event event);
  void tell_locked(Event event);
  // These return the word that somebody may be waiting for, to be woken once the lock is free.
  Word *deliver_locked(Arrived arrived);
  void abandon(uint64_t request);
  Word *answer_locked(uint64_t request, Outcome outcome, Reply reply);
  void ring() const;

  Log &log_;
  const int wake_fd_;
  const int poke_fd_;  // tells the driver that somebody else has received its answer
  std::thread thread_;

  std::mutex socket_mutex_;  // guards what follows; taken before `mutex_`, never held while waiting
  ZmqPath path_;
  Connection connection_;
  Pace pace_;
  bool is_open_ = true;
  std::atomic<uint64_t> sent_bytes_{0};
  std::atomic<bool> is_held_{false};
  std::atomic<bool> is_awaited_{false};  // somebody waits for what is queued

  std::mutex mutex_;  // guards what follows; never held while waiting or sending
  std::unordered_map<uint64_t, Arrived> answers_;
  std::unordered_map<uint64_t, Waiter *> waiters_;
  std::unordered_set<uint64_t> marks_, at_python_, abandoned_;
  std::deque<Event> events_;
  std::deque<Arrived> held_;  // answers that wait for Python to deal with events
  Event current_{};
  uint64_t told_ = 0, dealt_with_ = 0;
  std::condition_variable has_event_;
  bool is_over_ = false;
  bool has_driver_ = false;
  std::thread::id driver_;
  int64_t driven_since_ns_ = 0, driven_until_ns_ = 0;  // of the driver, or of the last one
  std::string bye_;  // the last bytes, once it is leaving or over
  bool is_leaving_ = false;

  Word room_{0};  // changes when batches were taken, and at the end
  std::atomic<uint32_t> room_waiters_{0};
};

}  // namespace xpool
