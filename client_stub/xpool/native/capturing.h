// Whether what happens now goes into a graph in place of the log (capture.h says how).
#pragma once
#include <ATen/core/Generator.h>

#include <mutex>

#include "remote.h"

namespace xpool {

class Capture;

// Guards all captures; taken before a log's mutex.
std::mutex &captures_mutex();
// The capture to which this thread's operations on a device belong, or null.
Capture *capturing(int device);
// Where a capture is under way: throws, and the capture has failed. For what a graph can't hold.
void refuse_capture(int device);
// A captured call uses a generator, which so lives as long as the graph.
void keep_generator(int device, const at::Generator &generator);
// A stream that waits for a capturing one is captured with it.
void follow_capture(int device, int64_t stream, int64_t leader);
bool is_stream_capturing(int device, int64_t stream);

// Within its scope this thread's operations are not captured.
struct CapturePause {
  CapturePause();
  ~CapturePause();
  CapturePause(const CapturePause &) = delete;
  CapturePause &operator=(const CapturePause &) = delete;
};

}  // namespace xpool
