// The wire's primitive types, as in protocol/SPEC.md section 3. Knows bytes and nothing else.
#pragma once
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace xpool {

class Bytes {
 public:
  void uint8(uint8_t value) { data_.push_back(static_cast<char>(value)); }
  void uvarint(uint64_t value) {
    while (value >= 0x80) {
      uint8(static_cast<uint8_t>(value) | 0x80);
      value >>= 7;
    }
    uint8(static_cast<uint8_t>(value));
  }
  void svarint(int64_t value) {
    uvarint((static_cast<uint64_t>(value) << 1) ^ static_cast<uint64_t>(value >> 63));
  }
  void uint64(uint64_t value) { raw(&value, sizeof value); }  // little-endian hosts only, see log.cpp
  void float64(double value) { raw(&value, sizeof value); }
  void raw(const void *from, size_t nbytes) { data_.append(static_cast<const char *>(from), nbytes); }
  void append(const Bytes &other) { data_ += other.data_; }
  void text(std::string_view value) {
    uvarint(value.size());
    data_.append(value);
  }

  const std::string &str() const { return data_; }
  size_t size() const { return data_.size(); }
  void clear() { data_.clear(); }
  char &at(size_t position) { return data_[position]; }

 private:
  std::string data_;
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
