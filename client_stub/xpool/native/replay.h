// Puts a stream of records in fewer bytes: what repeats itself is sent as runs of a plan (ADR 0026).
//
// Decides and does no I/O. Takes every record of a log in order and appends to `out` what goes on the wire; the server
// makes of that the very same records in the same order. What has been taken and not yet put out is `flush`ed before
// anything else leaves. Not safe for threads: the log's mutex guards it.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "crc32.h"
#include "history.h"
#include "log_plan.h"

namespace xpool {

struct ReplayCounters {
  uint64_t records, replayed, parts, plans, early_answers;
};

class Replay {
 public:
  static constexpr size_t kMostPlans = 8;
  // What repeats itself sooner is put several times into one plan.
  static constexpr size_t kLeastPeriod = 16, kLeastRecords = 64;

  // `requests` numbers answers; `with_early`: the server may answer reads early.
  Replay(std::atomic<uint64_t> &requests, bool with_early) : requests_(requests), with_early_(with_early) {}

  // Takes a record. Returns how many records of our own stand behind it in the log.
  uint32_t append(std::string_view record, std::string &out);
  // The request id for a Read that is about to be appended.
  uint64_t request_for_read(uint64_t storage, uint64_t offset, uint64_t nbytes);
  // Puts out what has been taken so far.
  void flush(std::string &out);
  bool has_pending() const { return count_ > 0; }
  // Requests that may still be answered though nobody will ask; the caller's from now on.
  std::vector<uint64_t> take_abandoned() { return std::exchange(abandoned_, {}); }

  ReplayCounters counters() const { return counters_; }

 private:
  // An answer that the server may have sent already.
  struct Awaited {
    uint64_t request = 0;  // 0: none
    uint64_t storage = 0;
    bool is_good = false;  // nothing that came since can have changed what is read
  };
  struct Place {
    LogPlan *plan;
    uint32_t index;
  };

  bool replay(std::string_view record, std::string &out);
  void commit(std::string_view record);
  void name_early_answer(const LogPlan::Early &early, Awaited &awaited);
  void note_changes();
  void send_single(std::string_view record, std::string &out);
  void distrust(const Walk &walk, std::string_view record);
  void leave();
  void look_for_plan();
  uint32_t define_if_repeated(std::string &out);
  uint64_t repetition() const;
  uint32_t drop_oldest(std::string &out);
  void index(LogPlan &plan);

  std::atomic<uint64_t> &requests_;
  const bool with_early_;
  History history_;
  Walk walk_;

  std::vector<std::unique_ptr<LogPlan>> plans_;
  std::unordered_map<uint64_t, Place> places_;  // by the signatures before them
  uint64_t next_plan_ = 0;
  uint64_t taken_bytes_ = 0, defined_bytes_ = 0, defined_at_ = 0;

  // Where the stream stands in a plan: `index_` is what should come next.
  LogPlan *plan_ = nullptr;
  uint32_t index_ = 0;
  uint32_t missed_ = 0;  // records in a row that did not fit
  std::vector<Awaited> awaited_;  // of `plan_`, as its `early`

  // The part of a run that is not put out yet.
  uint32_t first_ = 0, count_ = 0;
  xpool_protocol::Crc32 crc_;
  std::vector<Exception> exceptions_;

  std::vector<uint64_t> abandoned_;
  ReplayCounters counters_{};
};

}  // namespace xpool
