// What operations are expected to take of a device that runs behind its submission, learned by operation and geometry.
//
// The rules are those of xpool_server/arbiter/costs.py, which is the oracle. One thread uses it.
#pragma once
#include <cstdint>
#include <deque>
#include <unordered_map>
#include <vector>

namespace xpool_server {

class Costs {
 public:
  // An operation was submitted: its geometry exactly, and roughly should that be new. Returns the estimate.
  double submit(uint64_t exact, uint64_t rough) {
    double estimate = kDefaultNs;
    const auto known = exact_.find(exact);
    if (known != exact_.end()) {
      estimate = known->second.ns;
    } else {
      const auto alike = rough_.find(rough);
      if (alike != rough_.end())
        estimate = alike->second;
    }
    open_.counts.push_back({exact, rough, estimate});
    open_.sum_ns += estimate;
    return estimate;
  }

  // What was submitted since the last time is one piece of work, which will be measured as one.
  void end_span() {
    ended_ns_ += open_.sum_ns;
    spans_.push_back(std::move(open_));
    open_ = Span();
  }

  // The oldest piece of work that nobody has measured has taken so long.
  void measured(uint64_t took_ns) {
    if (spans_.empty())
      return;
    const Span span = std::move(spans_.front());
    spans_.pop_front();
    ended_ns_ = spans_.empty() ? 0 : ended_ns_ - span.sum_ns;
    if (span.counts.empty())
      return;
    const double ratio = static_cast<double>(took_ns) / span.sum_ns;
    std::unordered_map<uint64_t, bool> seen;
    for (const Submitted &one : span.counts)
      if (!seen[one.exact]) {
        seen[one.exact] = true;
        learn(one, ratio);
      }
  }

  // Estimates of all that has been submitted and not been measured.
  uint64_t pending_ns() const { return static_cast<uint64_t>(ended_ns_ + open_.sum_ns); }
  uint64_t known() const { return exact_.size(); }

 private:
  static constexpr double kDefaultNs = 20'000;  // of an operation that nobody knows
  static constexpr double kWeight = 0.2;        // of the newest measurement, once there are some
  static constexpr uint64_t kFirstCounts = 4;   // measurements within which one may hold what is paid but once
  static constexpr double kOnceRatio = 0.25;    // less than so much of the estimate says that it was paid
  static constexpr double kLeastNs = 1;
  static constexpr size_t kMaxKnown = 4096;

  struct Known {
    double ns;
    uint64_t count;
  };
  struct Submitted {
    uint64_t exact, rough;
    double estimate;
  };
  struct Span {
    std::vector<Submitted> counts;
    double sum_ns = 0;
  };

  // All operations of a piece of work are off by the same factor, those that are known best by the least.
  void learn(const Submitted &one, double ratio) {
    if (exact_.size() >= kMaxKnown && !exact_.count(one.exact))
      exact_.clear();
    if (rough_.size() >= kMaxKnown && !rough_.count(one.rough))
      rough_.clear();
    Known &known = exact_.try_emplace(one.exact, Known{one.estimate, 0}).first->second;
    // The first of its kind may have taken far more (a kernel was loaded): it is forgotten when the next does not.
    if (known.count <= kFirstCounts && ratio < kOnceRatio)
      known.count = 0;
    const double newest = 1.0 / static_cast<double>(++known.count);
    const double weight = newest > kWeight ? newest : kWeight;
    const double ns = known.ns * (1 + weight * (ratio - 1));
    known.ns = ns > kLeastNs ? ns : kLeastNs;
    rough_[one.rough] = known.ns;
  }

  std::unordered_map<uint64_t, Known> exact_;
  std::unordered_map<uint64_t, double> rough_;
  std::deque<Span> spans_;
  Span open_;
  double ended_ns_ = 0;
};

}  // namespace xpool_server
