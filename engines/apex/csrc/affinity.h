// What the pool needs from the operating system beyond the standard library.
#pragma once

#include <cstdint>

namespace apex {

// Binds the calling thread to one core and names it; false if the system refuses.
bool pin_this_thread(int core);
void name_this_thread(int worker);

// The core the calling thread runs on, -1 where that is unknown.
int current_core();
// Cores the calling thread may run on.
int usable_cores();
int64_t process_id();

}  // namespace apex
