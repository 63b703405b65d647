// A number that tells whether memory has changed. Not against an adversary: both memories are the program's own.
#pragma once
#include <cstdint>
#include <cstring>

namespace xpool {

inline uint64_t mixed(uint64_t value) {
  value ^= value >> 32;
  value *= 0xd6e8feb86659fd93;
  return value ^ (value >> 32);
}

// Two memories of the same length with different bytes have the same one by chance alone. Each word takes part by steps
// that are one to one, so a single word that differs always shows.
inline uint64_t fingerprint(const char *data, uint64_t nbytes) {
  constexpr uint64_t kOdd = 0x9e3779b97f4a7c15;
  uint64_t lanes[4] = {1, 2, 3, 4}, words[4];
  uint64_t at = 0;
  for (; at + sizeof words <= nbytes; at += sizeof words) {
    memcpy(words, data + at, sizeof words);
    for (int i = 0; i < 4; i++) {
      lanes[i] = (lanes[i] ^ words[i]) * kOdd;
      lanes[i] = (lanes[i] << 29) | (lanes[i] >> 35);
    }
  }
  memset(words, 0, sizeof words);
  memcpy(words, data + at, nbytes - at);
  uint64_t result = mixed(nbytes);
  for (int i = 0; i < 4; i++)
    result = mixed(mixed(result ^ lanes[i]) ^ words[i]);
  return result;
}

}  // namespace xpool
