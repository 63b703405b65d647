// The fingerprint for ctypes, see test_fingerprint.py.
#include "fingerprint.h"

extern "C" uint64_t probe_fingerprint(const char *data, uint64_t nbytes) { return xpool::fingerprint(data, nbytes); }
