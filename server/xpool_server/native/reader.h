// Takes the wire's primitive types from the front of a batch, checking every bound (protocol/SPEC.md section 3).
#pragma once
#include <cstdint>
#include <cstring>
#include <string_view>

namespace xpool_server {

// This record is not for the native executor: it breaks a rule, or is of a kind that Python executes. Thrown only
// before the record has had any effect, so that Python can take it from its first byte on, and words every refusal.
struct HandBack {};

class Reader {
 public:
  Reader(const uint8_t *data, size_t nbytes) : begin_(data), at_(data), end_(data + nbytes) {}

  bool is_exhausted() const { return at_ == end_; }
  size_t position() const { return at_ - begin_; }
  void go_to(size_t position) { at_ = begin_ + position; }
  size_t left() const { return end_ - at_; }
  const uint8_t *here() const { return at_; }

  uint8_t uint8() {
    if (at_ == end_)
      throw HandBack{};
    return *at_++;
  }

  uint64_t uvarint(uint64_t limit) {
    if (at_ != end_ && *at_ < 0x80 && *at_ <= limit)
      return *at_++;
    return long_uvarint(limit);
  }

  int64_t svarint() {
    const uint64_t value = uvarint(UINT64_MAX);
    return static_cast<int64_t>(value >> 1) ^ -static_cast<int64_t>(value & 1);
  }

  double float64() {
    double value;
    memcpy(&value, raw(sizeof value), sizeof value);
    return value;
  }

  const uint8_t *raw(size_t nbytes) {
    if (nbytes > left())
      throw HandBack{};
    at_ += nbytes;
    return at_ - nbytes;
  }

  // Whether these very bytes come next; if so they are taken.
  bool takes(std::string_view bytes) {
    if (bytes.size() > left() || memcmp(at_, bytes.data(), bytes.size()) != 0)
      return false;
    at_ += bytes.size();
    return true;
  }

 private:
  uint64_t long_uvarint(uint64_t limit) {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const uint8_t byte = uint8();
      if (shift == 63 && byte > 1)
        throw HandBack{};
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (!(byte & 0x80)) {
        // The shortest form has no zero at its end.
        if ((shift > 0 && byte == 0) || value > limit)
          throw HandBack{};
        return value;
      }
    }
    throw HandBack{};
  }

  const uint8_t *begin_, *at_, *end_;
};

}  // namespace xpool_server
