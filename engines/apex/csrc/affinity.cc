#include "affinity.h"

#include <unistd.h>

#include <thread>

#if defined(__linux__)
#  include <pthread.h>
#  include <sched.h>

#  include <cstdio>
#endif

namespace apex {

#if defined(__linux__)

bool pin_this_thread(int core) {
  if (core < 0 || core >= CPU_SETSIZE) return false;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(core, &set);
  return pthread_setaffinity_np(pthread_self(), sizeof(set), &set) == 0;
}

void name_this_thread(int worker) {
  char name[16];
  std::snprintf(name, sizeof(name), "attention-%d", worker);
  pthread_setname_np(pthread_self(), name);
}

int current_core() { return sched_getcpu(); }

int usable_cores() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return static_cast<int>(std::thread::hardware_concurrency());
  return CPU_COUNT(&set);
}

#else

bool pin_this_thread(int) { return false; }
void name_this_thread(int) {}
int current_core() { return -1; }
int usable_cores() { return static_cast<int>(std::thread::hardware_concurrency()); }

#endif

int64_t process_id() { return getpid(); }

}  // namespace apex
