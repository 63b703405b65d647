// The loop of an open session without Python's lock: receives, executes and answers until something is Python's.
//
// It takes the batches that `Connection` knows, runs what `Executor` knows and answers reads. Everything else stops it:
// another message, a record in the middle of a batch, a descriptor that has become readable, the end of its time. What
// has been executed is acknowledged by then, so that Python goes on from one plain place: a sequence number, an operation
// number, and the batch that was stopped in, if there is one.
#pragma once
#include <poll.h>

#include <memory>
#include <string>
#include <vector>

#include "connection.h"
#include "executor.h"
#include "zmq_router.h"

namespace xpool_server {

// Why `Serving::serve` has returned.
enum class Stop : int32_t {
  kQuiet,    // a descriptor is readable, or the time is over
  kMessage,  // a message for Python
  kRecord,   // as kMessage, and it is the next batch, which has run until a record that is Python's
  kBroken,   // the socket has failed
};

class Serving {
 public:
  struct Setup {
    ZmqRouter router;
    std::string owner;          // the client's name at the socket
    std::vector<int> watched;   // descriptors of Python's
    uint8_t version;
    uint64_t window;
    // Null: a batch takes processor time of this thread. Otherwise told when work begins and when it ends.
    void (*note_work)(int32_t begins);
    // Waits for the device; false if a fence has something to tell, or something else to wait for.
    int32_t (*is_settled)();
  };

  Serving(Executor &executor, Setup setup);

  // Serves from the place that `connection` stands at.
  Stop serve(int64_t timeout_ns);

  Connection &connection() { return connection_; }
  const Executor &executor() const { return executor_; }

  // Of the last call of `serve`.
  Messages message;   // for Python: the peer's name and the frames
  Outcome outcome = Outcome::kDone;    // with kRecord: as `Executor::run` returned it
  uint64_t batch_record_count = 0;     // with kRecord: records of the batch that are executed
  uint64_t received_bytes = 0, sent_bytes = 0, busy_ns = 0, refused_messages = 0;

 private:
  Stop receive_all(int64_t until_ns, bool &is_drained);
  Stop take(bool &is_taken);
  Outcome run(std::string_view records);
  bool run_arrays(std::string_view records, size_t &position);
  bool run_fence(std::string_view records, size_t &position);
  bool answer_read();
  void send(std::string_view first, std::string_view payload = {});
  void acknowledge();
  bool has_watched(int64_t timeout_ns);
  void work(bool begins);
  void note_busy(bool begins);

  Executor &executor_;
  Setup setup_;
  Connection connection_;
  std::vector<pollfd> polled_;  // the socket, then what is watched
  bool is_working_ = false;
  int64_t work_began_ns_ = 0;
};

}  // namespace xpool_server
