#include "lane.h"

#include "streams.h"

#include <c10/util/Exception.h>

#include <dlfcn.h>
#include <sys/socket.h>

#include <cstring>
#include <memory>

namespace xpool {
namespace {

constexpr uint64_t kFailed = ~0ull;  // in the place of a length: the record's answer says why
constexpr size_t kDigestBytes = 32;

// Waiting for the network must not stop the threads that make it move.
class WithoutPython {
 public:
  WithoutPython() {
    static const auto holds = reinterpret_cast<int (*)()>(dlsym(RTLD_DEFAULT, "PyGILState_Check"));
    static const auto save = reinterpret_cast<void *(*)()>(dlsym(RTLD_DEFAULT, "PyEval_SaveThread"));
    if (holds && save && holds())
      thread_ = save();
  }
  ~WithoutPython() {
    static const auto restore = reinterpret_cast<void (*)(void *)>(dlsym(RTLD_DEFAULT, "PyEval_RestoreThread"));
    if (thread_)
      restore(thread_);
  }
  WithoutPython(const WithoutPython &) = delete;
  WithoutPython &operator=(const WithoutPython &) = delete;

 private:
  void *thread_ = nullptr;
};

struct Header {
  uint64_t number, nbytes;  // little-endian hosts only, see log.cpp
};

}  // namespace

Lane &Lane::of(int device) {
  static auto *lanes = [] {
    auto *all = new std::array<std::unique_ptr<Lane>, kMaxDevices>;
    for (int i = 0; i < kMaxDevices; i++)
      (*all)[i].reset(new Lane(i));
    return all;
  }();
  return *(*lanes)[device];
}

bool Lane::is_open() {
  check_usable(device_);
  std::call_once(opened_, [&] {
    if (callbacks.open_lane)
      callbacks.open_lane(device_);
  });
  return fd_ >= 0 && !is_broken_;
}

// After a transfer that did not come to its end: throws the reason.
[[noreturn]] static void report(End end, int device) {
  TORCH_CHECK(end != End::kInterrupted, "interrupted while waiting for the server");
  // The session may be over as well, and knows better why; or the server says what became of the bytes.
  const uint64_t request = Log::of(device).next_request();
  Bytes fence;
  fence.uint8(kFence);
  fence.uvarint(request);
  Log::of(device).append(fence);
  await(device, request, "synchronize");
  C10_THROW_ERROR(Error, "xpool: the bulk lane to the server broke off in the middle of a transfer");
}

void Lane::set_stream(int fd, int memory, int freed) {
  if (memory >= 0)
    ring_ = std::make_unique<SharedRing>(memory, freed);
  fd_ = fd;
}

void Lane::set_known(const char *contents, uint64_t nbytes) {
  for (uint64_t at = 0; at + sizeof(uint64_t) + kDigestBytes <= nbytes; at += sizeof(uint64_t) + kDigestBytes) {
    uint64_t length;
    memcpy(&length, contents + at, sizeof length);
    known_[length].emplace(contents + at + sizeof length, kDigestBytes);
  }
}

bool Lane::upload_known(uint64_t storage, uint64_t offset, const char *data, uint64_t nbytes) {
  const auto same_length = known_.find(nbytes);
  if (same_length == known_.end())
    return false;
  char digest[kDigestBytes];
  if (!callbacks.digest(reinterpret_cast<uint64_t>(data), nbytes, reinterpret_cast<uint64_t>(digest)) ||
      !same_length->second.contains(std::string(digest, kDigestBytes)))
    return false;
  Bytes record;
  record.uint8(kUploadKnown);
  record.uvarint(storage);
  record.uvarint(offset);
  record.uvarint(nbytes);
  record.raw(digest, kDigestBytes);
  Log::of(device_).append(record);
  known_uploads_++;
  return true;
}

bool Lane::upload(uint64_t storage, uint64_t offset, const char *data, uint64_t nbytes) {
  leave_room(device_);
  if (upload_known(storage, offset, data, nbytes))
    return true;
  End end;
  {
    WithoutPython others_run;
    std::lock_guard<std::mutex> lock(uploading_);
    if (is_broken_)
      return false;
    Bytes record;
    record.uint8(kUpload);
    record.uvarint(storage);
    record.uvarint(offset);
    record.uvarint(nbytes);
    uploads_++;
    const Header header{Log::of(device_).append(record), nbytes};
    end = send_all(fd_, &header, sizeof header, MSG_MORE);
    if (end == End::kDone)
      end = ring_ ? ring_->send(fd_, data, nbytes) : send_all(fd_, data, nbytes);
    if (end != End::kDone)
      is_broken_ = true;  // for good: the other direction may be done just now
  }
  if (end != End::kDone)
    report(end, device_);
  return true;
}

bool Lane::download(uint64_t storage, uint64_t offset, char *to, uint64_t nbytes) {
  leave_room(device_);
  uint64_t request = 0;
  End end;
  {
    WithoutPython others_run;
    std::lock_guard<std::mutex> lock(downloading_);
    if (is_broken_)
      return false;
    downloads_++;
    request = Log::of(device_).next_request();
    Bytes record;
    record.uint8(kDownload);
    record.uvarint(request);
    record.uvarint(storage);
    record.uvarint(offset);
    record.uvarint(nbytes);
    Log::of(device_).append(record);
    Watch watch("download");
    watch.nbytes = nbytes;
    Header header{};
    end = receive_all(fd_, &header, sizeof header);
    if (end == End::kDone && (header.number != request || (header.nbytes != nbytes && header.nbytes != kFailed)))
      end = End::kBroken;
    if (end == End::kDone && header.nbytes == nbytes)
      end = ring_ ? ring_->receive(fd_, to, nbytes) : receive_all(fd_, to, nbytes);
    if (end != End::kDone)
      is_broken_ = true;  // for good: the other direction may be done just now
  }
  if (end == End::kInterrupted)
    report(end, device_);
  await(device_, request, "download");  // throws what went wrong on the server
  if (end != End::kDone)
    report(end, device_);
  return true;
}

}  // namespace xpool
