// The CRC-32 of zlib and Ethernet, eight bytes at a time.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace xpool_protocol {

using CrcTables = std::array<std::array<uint32_t, 256>, 8>;

constexpr CrcTables crc_tables() {
  CrcTables made{};
  for (uint32_t i = 0; i < 256; i++) {
    uint32_t state = i;
    for (int bit = 0; bit < 8; bit++)
      state = state >> 1 ^ (state & 1 ? 0xedb88320u : 0);
    made[0][i] = state;
  }
  for (size_t table = 1; table < made.size(); table++)
    for (uint32_t i = 0; i < 256; i++)
      made[table][i] = made[table - 1][i] >> 8 ^ made[0][made[table - 1][i] & 0xff];
  return made;
}

class Crc32 {
 public:
  void add(const char *data, size_t nbytes) {
    uint32_t state = state_;
    for (; nbytes >= 8; data += 8, nbytes -= 8) {
      uint64_t word;
      memcpy(&word, data, sizeof word);
      word ^= state;
      state = kTables[7][word & 0xff] ^ kTables[6][word >> 8 & 0xff] ^ kTables[5][word >> 16 & 0xff] ^
              kTables[4][word >> 24 & 0xff] ^ kTables[3][word >> 32 & 0xff] ^ kTables[2][word >> 40 & 0xff] ^
              kTables[1][word >> 48 & 0xff] ^ kTables[0][word >> 56];
    }
    for (; nbytes > 0; data++, nbytes--)
      state = kTables[0][(state ^ static_cast<uint8_t>(*data)) & 0xff] ^ state >> 8;
    state_ = state;
  }
  uint32_t value() const { return ~state_; }

 private:
  static constexpr CrcTables kTables = crc_tables();

  uint32_t state_ = ~0u;
};

}  // namespace xpool_protocol
