// The wire's primitive types, as in protocol/SPEC.md section 3. Knows bytes and nothing else.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string_view>

namespace xpool {

// Bytes that are being put together. Those of a small record lie in the object itself.
class Bytes {
 public:
  Bytes() = default;
  Bytes(const Bytes &other) { append(other); }
  Bytes &operator=(const Bytes &other) {
    if (this != &other) {
      clear();
      append(other);
    }
    return *this;
  }
  ~Bytes() {
    if (begin_ != inside_)
      free(begin_);
  }

  void uint8(uint8_t value) {
    need(1);
    *end_++ = static_cast<char>(value);
  }
  void uvarint(uint64_t value) {
    need(kMaxVarintBytes);
    while (value >= 0x80) {
      *end_++ = static_cast<char>(value | 0x80);
      value >>= 7;
    }
    *end_++ = static_cast<char>(value);
  }
  void svarint(int64_t value) {
    uvarint((static_cast<uint64_t>(value) << 1) ^ static_cast<uint64_t>(value >> 63));
  }
  void uint64(uint64_t value) { raw(&value, sizeof value); }  // little-endian hosts only, see log.cpp
  void float64(double value) { raw(&value, sizeof value); }
  void raw(const void *from, size_t nbytes) {
    need(nbytes);
    if (nbytes)
      memcpy(end_, from, nbytes);
    end_ += nbytes;
  }
  void append(const Bytes &other) { raw(other.begin_, other.size()); }
  void text(std::string_view value) {
    uvarint(value.size());
    raw(value.data(), value.size());
  }

  // Good until something is added.
  std::string_view str() const { return {begin_, size()}; }
  size_t size() const { return end_ - begin_; }
  void clear() { end_ = begin_; }
  char &at(size_t position) { return begin_[position]; }

 private:
  static constexpr size_t kInsideBytes = 104, kMaxVarintBytes = 10;

  void need(size_t nbytes) {
    if (static_cast<size_t>(limit_ - end_) < nbytes)
      grow(nbytes);
  }
  void grow(size_t nbytes) {
    const size_t used = size(), room = 2 * (used + nbytes);
    auto *made = static_cast<char *>(malloc(room));
    if (!made)
      throw std::bad_alloc();
    memcpy(made, begin_, used);
    if (begin_ != inside_)
      free(begin_);
    begin_ = made;
    end_ = made + used;
    limit_ = made + room;
  }

  char *begin_ = inside_, *end_ = inside_, *limit_ = inside_ + kInsideBytes;
  char inside_[kInsideBytes];
};

// Reads what a server wrote. A value that is cut short or out of range makes `ok` false and yields zeros.
class BytesReader {
 public:
  BytesReader(const char *data, size_t nbytes) : at_(data), end_(data + nbytes) {}

  bool ok = true;

  uint8_t uint8() { return need(1) ? static_cast<uint8_t>(*at_++) : 0; }
  uint64_t uvarint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      uint8_t byte = uint8();
      if (shift == 63 && byte > 1)
        ok = false;
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (!(byte & 0x80))
        return value;
    }
    ok = false;
    return 0;
  }
  int64_t svarint() {
    uint64_t value = uvarint();
    return static_cast<int64_t>(value >> 1) ^ -static_cast<int64_t>(value & 1);
  }
  double float64() {
    double value = 0;
    if (need(sizeof value)) {
      memcpy(&value, at_, sizeof value);
      at_ += sizeof value;
    }
    return value;
  }
  std::string_view text() {
    size_t nbytes = uvarint();
    if (!need(nbytes))
      return {};
    at_ += nbytes;
    return {at_ - nbytes, nbytes};
  }
  bool exhausted() const { return at_ == end_; }

 private:
  bool need(size_t nbytes) {
    if (nbytes <= static_cast<size_t>(end_ - at_))
      return ok;
    ok = false;
    at_ = end_;
    return false;
  }
  const char *at_, *end_;
};

}  // namespace xpool
