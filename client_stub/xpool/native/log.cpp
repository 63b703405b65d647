#include "log.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <new>
#include <utility>

#include <pthread.h>
#include <unistd.h>

#include "replay.h"

static_assert(std::endian::native == std::endian::little, "the wire is little-endian and so must be this host");

namespace xpool {

Batch::~Batch() {
  for (char *payload : payloads)
    free(payload);
}

std::atomic<bool> Log::closed_{false};

Log &Log::of(int device) {
  static const auto *logs = [] {
    auto *made = new std::array<Log *, kMaxDevices>;
    for (int i = 0; i < kMaxDevices; i++)
      (*made)[i] = new Log(i);
    // A child records nothing: what its parent was about to write under a mutex does not matter there.
    pthread_atfork(nullptr, nullptr, [] {
      for (int i = 0; i < kMaxDevices; i++)
        new (&of(i).mutex_) std::mutex;
      close_all();
    });
    return made;
  }();
  return *(*logs)[device];
}

void Log::wake() {
  const uint64_t one = 1;
  // A full eventfd counter means that a wake is pending already, so a failed write loses nothing.
  if (wake_fd_ >= 0 && ::write(wake_fd_, &one, sizeof one) < 0)
    return;
}

void Log::note_queued(size_t nbytes, Ring ring) {
  const size_t before = queued_bytes_.fetch_add(nbytes);
  if (ring == Ring::kYes && before < ring_at_ && before + nbytes >= ring_at_)
    wake();
}

size_t Log::ring_at(size_t nbytes) {
  std::lock_guard<std::mutex> lock(mutex_);
  ring_at_ = nbytes;
  return queued_bytes_;
}

// The batch to append to: the last one, unless it is full or has no room for this payload.
Batch &Log::open_batch(size_t payload_bytes) {
  const bool is_full = batches_.empty() || batches_.back()->records.size() >= kBatchBytes ||
                       batches_.back()->cost - batches_.back()->payload_bytes >= kBatchCost ||
                       (payload_bytes && (batches_.back()->payload_bytes + payload_bytes > kTransferBytes ||
                                          batches_.back()->payloads.size() >= kBatchPayloads));
  if (is_full) {
    if (replay_ && !batches_.empty())
      replay_->flush(batches_.back()->records);
    batches_.push_back(new Batch);
  }
  return *batches_.back();
}

uint64_t Log::append_locked(std::string_view record, Ring ring) {
  const uint64_t number = add_locked(record);
  note_queued(record.size(), ring);
  return number;
}

uint64_t Log::add_locked(std::string_view record) {
  Batch &batch = open_batch(0);
  uint32_t ours = 0;
  if (replay_)
    ours = replay_->append(record, batch.records);
  else
    batch.records += record;
  batch.record_count += 1 + ours;
  batch.cost += record.size();
  const uint64_t number = record_count_;
  record_count_ += 1 + ours;
  return number;
}

uint64_t Log::append(const Bytes &record, Ring ring) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (closed_)
    return 0;
  return append_locked(record.str(), ring);
}

uint64_t Log::position() {
  std::lock_guard<std::mutex> lock(mutex_);
  return record_count_;
}

uint64_t Log::define_locked(WireOperation &operation) {
  int32_t &known = operation.numbers[device_];
  if (known == 0) {
    known = ++next_operation_;
    Bytes define;
    define.uint8(kDefineOperation);
    define.uvarint(known - 1);
    define.text(operation.name);
    define.uvarint(operation.argument_names.size());
    for (const auto &name : operation.argument_names)
      define.text(name);
    append_locked(define.str());
  }
  return known - 1;
}

uint64_t Log::define(WireOperation &operation) {
  std::lock_guard<std::mutex> lock(mutex_);
  return closed_ ? 0 : define_locked(operation);
}

uint64_t Log::append_call(WireOperation &operation, const Bytes &head, const Bytes &tail, Ring ring) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (closed_)
    return 0;
  const uint64_t defined = define_locked(operation);
  Bytes number;
  number.uvarint(defined);
  scratch_ = head.str();
  scratch_ += number.str();
  scratch_ += tail.str();
  return append_locked(scratch_, ring);
}

uint64_t Log::append_for_peer(int peer, const Bytes &define, const Bytes &record) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (closed_)
    return 0;
  if (!std::exchange(defined_peers_[peer], true))
    append_locked(define.str());
  return append_locked(record.str());
}

Around Log::append_write(uint64_t storage, uint64_t offset, const char *data, size_t nbytes, std::string_view before,
                         std::string_view after) {
  Around around;
  while (nbytes) {
    const size_t part = nbytes <= kInlineBytes ? nbytes : std::min(nbytes, kTransferBytes);
    std::vector<char *> chunks;
    for (size_t at = 0; part > kInlineBytes && at < part; at += kChunkBytes) {
      const size_t length = std::min(kChunkBytes, part - at);
      char *chunk = static_cast<char *>(malloc(length));
      if (!chunk)
        throw std::bad_alloc();
      memcpy(chunk, data + at, length);
      chunks.push_back(chunk);
    }
    std::lock_guard<std::mutex> lock(mutex_);
    if (closed_)
      return {};
    if (!before.empty())
      around.before = add_locked(before);
    Batch &batch = open_batch(chunks.empty() ? 0 : part);
    Bytes record;
    record.uint8(kWrite);
    record.uvarint(storage);
    record.uvarint(offset);
    record.uvarint(part);
    record.uvarint(chunks.empty() ? 0 : batch.payloads.size() + 1);
    if (chunks.empty())
      record.raw(data, part);
    for (size_t i = 0; i < chunks.size(); i++) {
      batch.payloads.push_back(chunks[i]);
      batch.sizes.push_back(std::min(kChunkBytes, part - i * kChunkBytes));
    }
    size_t queued = before.size() + record.str().size();
    if (!chunks.empty()) {
      batch.payload_bytes += part;
      batch.cost += part;
      queued += part;
    }
    add_locked(record.str());
    if (part == nbytes && !after.empty()) {
      around.after = add_locked(after);
      queued += after.size();
    }
    note_queued(queued, Ring::kYes);
    before = {};
    data += part;
    offset += part;
    nbytes -= part;
  }
  return around;
}

Batch *Log::take() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (batches_.empty())
    return nullptr;
  Batch *batch = batches_.front();
  if (replay_ && batches_.size() == 1)
    replay_->flush(batch->records);
  batches_.pop_front();
  queued_bytes_ -= batch->cost;
  return batch;
}

uint64_t Log::append_read(uint64_t storage, uint64_t offset, uint64_t nbytes) {
  std::lock_guard<std::mutex> lock(mutex_);
  const uint64_t request = replay_ ? replay_->request_for_read(storage, offset, nbytes) : next_request();
  if (closed_)
    return request;
  Bytes record;
  record.uint8(kRead);
  record.uvarint(request);
  record.uvarint(storage);
  record.uvarint(offset);
  record.uvarint(nbytes);
  append_locked(record.str(), Ring::kNo);
  return request;
}

void Log::use_plans(bool with_early_answers) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!replay_)
    replay_ = new Replay(requests_, with_early_answers);
}

std::vector<uint64_t> Log::take_abandoned() {
  std::lock_guard<std::mutex> lock(mutex_);
  return replay_ ? replay_->take_abandoned() : std::vector<uint64_t>();
}

ReplayCounters Log::replay_counters() {
  std::lock_guard<std::mutex> lock(mutex_);
  return replay_ ? replay_->counters() : ReplayCounters{};
}

}  // namespace xpool
