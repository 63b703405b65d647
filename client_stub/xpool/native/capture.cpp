// Captures: which there are, and what they record.
#include "capture.h"

#include <algorithm>
#include <map>

namespace xpool {

static std::atomic<int> capture_count{0};  // 0 nearly always, so operations look no further
static thread_local std::unique_ptr<Capture> this_region;
static thread_local int pauses = 0;

std::mutex &captures_mutex() {
  static auto *mutex = new std::mutex;
  return *mutex;
}

using Place = std::pair<int, int64_t>;  // device, stream
static std::map<Place, std::shared_ptr<Capture>> &streams() {
  static auto *all = new std::map<Place, std::shared_ptr<Capture>>;
  return *all;
}

Capture *capturing(int device) {
  if (capture_count.load(std::memory_order_relaxed) == 0 || pauses)
    return nullptr;
  if (this_region && this_region->device == device)
    return this_region.get();
  std::lock_guard<std::mutex> lock(captures_mutex());
  const auto found = streams().find({device, current_stream(device)});
  return found == streams().end() ? nullptr : found->second.get();
}

void refuse_capture(int device) {
  Capture *capture = capturing(device);
  if (!capture)
    return;
  capture->is_invalid = true;
  constexpr int kUnsupported = 900;  // cudaErrorStreamCaptureUnsupported
  throw c10::AcceleratorError({__func__, __FILE__, static_cast<uint32_t>(__LINE__)}, kUnsupported,
                              "CUDA error: operation not permitted when stream is capturing");
}

void keep_generator(int device, const at::Generator &generator) {
  if (Capture *capture = capturing(device))
    capture->keep(generator);
}

CapturePause::CapturePause() { pauses++; }
CapturePause::~CapturePause() { pauses--; }

void begin_capture(int device, int64_t stream) {
  std::lock_guard<std::mutex> lock(captures_mutex());
  TORCH_CHECK(!streams().count({device, stream}), "CUDA error: the stream is capturing a graph already");
  streams()[{device, stream}] = std::make_shared<Capture>(device, Capture::Kind::kGraph);
  capture_count++;
}

std::shared_ptr<Capture> take_capture(int device, int64_t stream) {
  std::lock_guard<std::mutex> lock(captures_mutex());
  const auto found = streams().find({device, stream});
  TORCH_CHECK(found != streams().end(), "Capture must end on the same stream it began on.");
  auto capture = found->second;
  std::erase_if(streams(), [&](const auto &entry) { return entry.second == capture; });
  capture_count--;
  return capture;
}

void follow_capture(int device, int64_t stream, int64_t leader) {
  if (capture_count.load(std::memory_order_relaxed) == 0 || stream == leader)
    return;
  std::lock_guard<std::mutex> lock(captures_mutex());
  const auto found = streams().find({device, leader});
  if (found != streams().end() && !streams().count({device, stream}))
    streams()[{device, stream}] = found->second;
}

bool is_stream_capturing(int device, int64_t stream) {
  if (capture_count.load(std::memory_order_relaxed) == 0)
    return false;
  std::lock_guard<std::mutex> lock(captures_mutex());
  return streams().count({device, stream}) > 0;
}

Capture *region_capture() { return this_region.get(); }

void set_region_capture(std::unique_ptr<Capture> capture) {
  this_region = std::move(capture);
  capture_count++;
}

std::unique_ptr<Capture> take_region_capture() {
  if (this_region)
    capture_count--;
  return std::move(this_region);
}

// ---------------------------------------------------------------- recording

Capture::~Capture() {
  std::vector<StorageName *> kept;
  {
    std::lock_guard<std::mutex> lock(captures_mutex());
    for (StorageName *name : born)
      name->born = nullptr;
    for (const Slot &slot : slots)
      if (slot.is_parameter && slot.name)
        kept.push_back(slot.name);
  }
  for (StorageName *name : kept)
    drop_storage(name);
}

uint32_t Capture::number_locked(StorageName *name) {
  const auto found = numbers.find(name);
  if (found != numbers.end())
    return found->second;
  TORCH_CHECK(slots.size() < kMaxGraphStorages, "xpool: a graph names at most ", kMaxGraphStorages, " storages");
  const auto number = static_cast<uint32_t>(slots.size());
  const bool is_parameter = name->born != this;
  if (is_parameter)
    name->keepers++;  // the graph's calls need it, whether the program does or not
  slots.push_back({name, name->charged, is_parameter, false});
  numbers[name] = number;
  return number;
}

uint64_t Capture::number(StorageName *name) {
  std::lock_guard<std::mutex> lock(captures_mutex());
  return number_locked(name);
}

void Capture::note_birth(StorageName *name) {
  std::lock_guard<std::mutex> lock(captures_mutex());
  name->born = this;
  born.insert(name);
  charged_now += name->charged;
  charged_most = std::max(charged_most, charged_now);
}

void Capture::append_locked(const Bytes &record) {
  if (++record_count > kMaxGraphRecords || records.size() + record.size() > kMaxGraphBytes) {
    is_invalid = true;
    TORCH_CHECK(false, "xpool: a graph has at most ", kMaxGraphRecords, " operations and ", kMaxGraphBytes, " bytes");
  }
  records += record.str();
}

void Capture::append_allocate(StorageName *name, uint64_t nbytes) {
  std::lock_guard<std::mutex> lock(captures_mutex());
  const uint32_t number = number_locked(name);
  Bytes record;
  record.uint8(kAllocate);
  record.uvarint(number);
  record.uvarint(nbytes);
  append_locked(record);
  slots[number].allocate_at = records.size() - record.size();
  slots[number].allocate_nbytes = record.size();
  slots[number].is_made = true;
}

void Capture::note_made(StorageName *name) {
  std::lock_guard<std::mutex> lock(captures_mutex());
  slots[number_locked(name)].is_made = true;
}

void Capture::append_call(WireOperation &operation, const Bytes &head, const Bytes &tail) {
  std::lock_guard<std::mutex> lock(captures_mutex());
  Bytes record;
  record.append(head);
  record.uvarint(Log::of(device).define(operation));
  record.append(tail);
  append_locked(record);
}

void Capture::append_write(uint64_t number, uint64_t offset, const char *data, size_t nbytes) {
  std::lock_guard<std::mutex> lock(captures_mutex());
  for (size_t at = 0; at < nbytes; at += kInlineBytes) {
    const size_t part = std::min(kInlineBytes, nbytes - at);
    Bytes record;
    record.uint8(kWrite);
    record.uvarint(number);
    record.uvarint(offset + at);
    record.uvarint(part);
    record.uvarint(0);
    record.raw(data + at, part);
    append_locked(record);
  }
}

void Capture::keep(const at::Generator &generator) {
  std::lock_guard<std::mutex> lock(captures_mutex());
  if (std::find(generators.begin(), generators.end(), generator) == generators.end())
    generators.push_back(generator);
}

void Capture::copy_in_replays(const HostCopy &copy) {
  std::lock_guard<std::mutex> lock(captures_mutex());
  for (const HostCopy &earlier : host_copies)
    if (copy.is_upload && !earlier.is_upload && earlier.host.is_alias_of(copy.host)) {
      is_invalid = true;
      TORCH_CHECK(false, "xpool: a CUDA graph can't bring to the device what it has brought to the host itself");
    }
  host_copies.push_back(copy);
}

void Capture::note_end(StorageName *name) {
  charged_now -= name->charged;
  born.erase(name);
  const auto found = numbers.find(name);
  if (found == numbers.end())
    return;
  Slot &slot = slots[found->second];
  slot.name = nullptr;
  if (slot.is_made && records.size() + 16 < kMaxGraphBytes) {  // at the run's end it goes anyway
    Bytes record;
    record.uint8(kFree);
    record.uvarint(found->second);
    records += record.str();
    record_count++;
  }
  numbers.erase(found);  // another storage may get this address
}

// Removes pieces of the records; they do not overlap.
void Capture::cut(const std::vector<std::pair<size_t, size_t>> &spots) {
  auto ordered = spots;
  std::sort(ordered.begin(), ordered.end(), std::greater<>());
  for (const auto &[at, nbytes] : ordered) {
    records.erase(at, nbytes);
    record_count--;
  }
}

}  // namespace xpool
