#include "record_walk.h"

#include "record_kinds.h"

namespace xpool {

namespace {

// Tags of section 4.
enum Tag : uint8_t {
  kNone, kFalse, kTrue, kInt, kFloat, kComplex, kText, kList, kInts, kTensor, kHostTensor, kDType, kDevice, kLayout,
  kMemoryFormat, kGenerator, kSparse,
};

constexpr uint8_t kRowMajor = 4, kCoo = 1;
constexpr int kMostLists = 8;  // deeper than any list of ours

uint64_t item_bytes(uint8_t dtype) {
  constexpr uint8_t sizes[] = {1, 1, 2, 4, 8, 2, 4, 8, 4, 8, 16, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 4, 8};
  return dtype < sizeof sizes ? sizes[dtype] : 0;
}

struct Unreadable {};

class Walker {
 public:
  Walker(std::string_view record, Walk &to) : to_(to), begin_(record.data()), at_(begin_), end_(begin_ + record.size()) {}

  void record() {
    switch (shape8()) {
      case kCall:
        to_.is_plannable = true;
        shape_number();
        arguments();
        outputs();
        break;
      case kAllocate:
        to_.is_plannable = true;
        spot(SpotKind::kStorage);
        spot(SpotKind::kNumber);
        break;
      case kFree:
        to_.is_plannable = true;
        spot(SpotKind::kStorage);
        break;
      case kRead:
        to_.is_plannable = true;
        spot(SpotKind::kRequest);
        spot(SpotKind::kStorage);
        shape_number();
        shape_number();
        break;
      case kRequestCall:
        spot(SpotKind::kRequest);
        shape_number();
        shape_number();
        arguments();
        break;
      case kWrite:
      case kUpload:
        spot(SpotKind::kStorage);
        at_ = end_;
        break;
      case kDownload:
        spot(SpotKind::kRequest);
        spot(SpotKind::kStorage);
        at_ = end_;
        break;
      case kDefineOperation:
      case kFence:
      case kStatistics:
      case kNewGenerator:
      case kSeedGenerator:
      case kReadGenerator:
      case kWriteGenerator:
      case kFreeGenerator:
      case kDefinePeer:
        at_ = end_;
        break;
      default:  // of an array, say: no plan holds it, and it may have to do with any storage
        return;
    }
    if (at_ != end_)
      throw Unreadable{};
    to_.names_all_storages = true;
    to_.signature = hash_;
  }

 private:
  void need(uint64_t nbytes) const {
    if (nbytes > static_cast<uint64_t>(end_ - at_))
      throw Unreadable{};
  }
  void mix(uint8_t byte) { hash_ = (hash_ ^ byte) * 0x100000001b3ull; }

  // These belong to the shape.
  uint8_t shape8() {
    need(1);
    const uint8_t byte = static_cast<uint8_t>(*at_++);
    mix(byte);
    return byte;
  }
  uint64_t shape_number() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const uint8_t byte = shape8();
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (!(byte & 0x80))
        return value;
    }
    throw Unreadable{};
  }

  // These may differ.
  void spot(SpotKind kind) {
    const char *from = at_;
    do
      need(1);
    while (*at_++ & 0x80);
    to_.spots.push_back({static_cast<uint32_t>(from - begin_), static_cast<uint32_t>(at_ - from), kind});
  }
  void raw(uint64_t nbytes) {
    need(nbytes);
    if (nbytes)
      to_.spots.push_back({static_cast<uint32_t>(at_ - begin_), static_cast<uint32_t>(nbytes), SpotKind::kRaw});
    at_ += nbytes;
  }
  void spots(uint64_t count) {
    need(count);
    for (uint64_t i = 0; i < count; i++)
      spot(SpotKind::kNumber);
  }

  void tensor() {
    spot(SpotKind::kStorage);
    shape8();
    const uint8_t flags = shape8();
    spot(SpotKind::kNumber);
    const uint64_t ndim = shape_number();
    spots(ndim);
    if (!(flags & kRowMajor))
      spots(ndim);
  }

  void host_tensor() {
    uint64_t nbytes = item_bytes(shape8());
    shape8();
    for (uint64_t left = shape_number(); left > 0; left--)
      nbytes *= shape_number();
    raw(nbytes);
  }

  void sparse() {
    const uint8_t layout = shape8();
    shape8();
    shape_number();
    spots(shape_number());
    for (int parts = layout == kCoo ? 2 : 3; parts > 0; parts--)
      tensor();
  }

  void value(int depth) {
    switch (shape8()) {
      case kNone:
      case kFalse:
      case kTrue: break;
      case kInt: spot(SpotKind::kNumber); break;
      case kFloat: raw(8); break;
      case kComplex: raw(16); break;
      case kText:
        for (uint64_t left = shape_number(); left > 0; left--)
          shape8();
        break;
      case kList:
        if (depth == kMostLists)
          throw Unreadable{};
        for (uint64_t left = shape_number(); left > 0; left--)
          value(depth + 1);
        break;
      case kInts: spots(shape_number()); break;
      case kTensor: tensor(); break;
      case kHostTensor: host_tensor(); break;
      case kDType:
      case kDevice:
      case kLayout:
      case kMemoryFormat: shape8(); break;
      case kGenerator: shape_number(); break;
      case kSparse: sparse(); break;
      default: throw Unreadable{};
    }
  }

  void arguments() {
    for (uint64_t left = shape_number(); left > 0; left--) {
      shape_number();
      value(0);
    }
  }

  void outputs() {
    for (uint64_t left = shape_number(); left > 0; left--)
      if (shape8())
        tensor();
  }

  Walk &to_;
  const char *begin_, *at_, *end_;
  uint64_t hash_ = 0xcbf29ce484222325ull;
};

}  // namespace

void walk_record(std::string_view record, Walk &to) {
  to.is_plannable = to.names_all_storages = false;
  to.signature = 0;
  to.spots.clear();
  try {
    Walker(record, to).record();
  } catch (const Unreadable &) {
    to.is_plannable = false;
  }
}

}  // namespace xpool
