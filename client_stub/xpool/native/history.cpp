#include "history.h"

#include <algorithm>
#include <cstring>

namespace xpool {

void History::push(uint64_t signature, std::string_view record, bool is_single, bool is_read, size_t sent) {
  Past past = now();
  past.signature = signature;
  past.nbytes = std::min<uint64_t>(record.size(), kMostRecordBytes);  // that of a lost one is of no use
  past.is_lost = record.size() > kMostRecordBytes;
  past.singles += is_single;
  past.reads += is_read;
  past.single_reads += is_single && is_read;
  past.sent += static_cast<uint32_t>(sent);
  if (!past.is_lost) {
    if (end_ % kBytes + record.size() > kBytes)
      end_ += kBytes - end_ % kBytes;  // a record lies in one piece
    memcpy(bytes_.data() + end_ % kBytes, record.data(), record.size());
    end_ += record.size();
  }
  past.end = end_;
  const uint64_t oldest = count_ >= kGram ? before(kGram - 1).signature : 0;
  records_[++count_ % kRecords] = past;
  gram_.roll(signature, oldest);
  follow(signature, is_single);
}

// Keeps to a period as long as it holds; then looks for the last place where the stream stood like this. Of what a plan
// replays at its period no places are kept: there is nothing to find that is not known.
void History::follow(uint64_t signature, bool is_single) {
  if (period_) {
    if (before(period_).signature == signature) {
      repeated_++;
      if (!is_single)
        return;
    } else {
      period_ = repeated_ = 0;
    }
  }
  Place &place = places_[(gram_.value() >> 40) % kPlaces];
  if (!period_ && count_ > kGram && place.gram == gram_.value() && count_ - place.count < kRecords / 2) {
    period_ = count_ - place.count;
    repeated_ = kGram;
  }
  place = {gram_.value(), count_};
}

bool History::holds(uint64_t length) const {
  if (length > count_ || length >= kRecords)
    return false;
  const Past &first = before(length - 1);
  if (end_ - (first.end - first.nbytes) > kBytes)
    return false;
  for (uint64_t back = 0; back < length; back++)
    if (before(back).is_lost)
      return false;
  return true;
}

std::string_view History::record(uint64_t back) const {
  const Past &past = before(back - 1);
  return {bytes_.data() + (past.end - past.nbytes) % kBytes, past.nbytes};
}

}  // namespace xpool
