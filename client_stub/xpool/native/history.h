// The records that a log has taken last, and whether they repeat themselves.
//
// Takes signatures and bytes, tells a period. Bounded in records and in bytes; knows nothing of what records mean.
#pragma once
#include <cstdint>
#include <string_view>
#include <vector>

namespace xpool {

// How many signatures in a row say where in a repetition a stream stands.
constexpr size_t kGram = 8;

constexpr uint64_t power(uint64_t of, size_t exponent) { return exponent ? of * power(of, exponent - 1) : 1; }

// A hash of the last kGram signatures that rolls on with each new one.
class Gram {
 public:
  void roll(uint64_t newest, uint64_t oldest) { value_ = value_ * kFactor + newest - oldest * kOldestFactor; }
  uint64_t value() const { return value_; }

 private:
  static constexpr uint64_t kFactor = 0x9e3779b97f4a7c15ull;
  static constexpr uint64_t kOldestFactor = power(kFactor, kGram);
  uint64_t value_ = 0;
};

class History {
 public:
  static constexpr size_t kRecords = 1 << 15, kBytes = 4 << 20, kPlaces = 1 << 14;
  static constexpr size_t kMostRecordBytes = 64 << 10;

  // A record that was sent as it is, or (`is_single` false) as part of a plan's run, with so many bytes of values.
  void push(uint64_t signature, std::string_view record, bool is_single, bool is_read, size_t sent);

  uint64_t count() const { return count_; }
  uint64_t gram() const { return gram_.value(); }
  // The stream has repeated itself for so many records, at this period; 0 if it has not.
  uint64_t repeated() const { return repeated_; }
  uint64_t period() const { return period_; }

  // Of the last `length` records.
  uint64_t singles(uint64_t length) const { return uint16_t(now().singles - before(length).singles); }
  uint64_t reads(uint64_t length) const { return uint16_t(now().reads - before(length).reads); }
  uint64_t single_reads(uint64_t length) const {
    return uint16_t(now().single_reads - before(length).single_reads);
  }
  uint64_t bytes(uint64_t length) const { return now().end - before(length).end; }
  uint64_t sent(uint64_t length) const { return uint32_t(now().sent - before(length).sent); }
  bool last_is_read() const { return count_ > 0 && reads(1) > 0; }
  // Whether the last `length` records are all still there.
  bool holds(uint64_t length) const;
  // The record so many before the next one; 1 is the last.
  std::string_view record(uint64_t back) const;
  uint64_t signature(uint64_t back) const { return before(back - 1).signature; }

 private:
  struct Past {
    uint64_t signature = 0;
    uint64_t end = 0;  // of its bytes, in the count of all bytes
    uint32_t nbytes : 31 = 0;
    uint32_t is_lost : 1 = false;
    // Up to here, less what has run over: they are used for no more than kRecords in a row.
    uint32_t sent = 0;
    uint16_t singles = 0, reads = 0, single_reads = 0;
  };
  struct Place {
    uint64_t gram = 0, count = 0;
  };

  const Past &now() const { return before(0); }
  // What was the last record when `back` fewer had come.
  const Past &before(uint64_t back) const { return records_[(count_ - back) % kRecords]; }
  void follow(uint64_t signature, bool is_single);

  std::vector<Past> records_{kRecords};
  std::vector<char> bytes_ = std::vector<char>(kBytes);
  std::vector<Place> places_{kPlaces};
  uint64_t count_ = 0, end_ = 0;
  Gram gram_;
  uint64_t period_ = 0, repeated_ = 0;
};

}  // namespace xpool
