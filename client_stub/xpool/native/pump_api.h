// Which pump serves a device.
#pragma once
#include "pump.h"

namespace xpool {

// Null where the link lives in Python.
Pump *pump_of(int device);

}  // namespace xpool
