#include "equibit/parallel.h"

#include <algorithm>
#include <atomic>

#if defined(__unix__) || defined(__APPLE__)
#include <dlfcn.h>
#endif

namespace equibit {

namespace {

struct Job {
  const std::function<void(int, std::int64_t, std::int64_t)>& body;
  std::int64_t count;
  std::int64_t grain;
  std::atomic<std::int64_t> next{0};
  std::atomic<int> slots{0};
};

void work(void* data) {
  Job& job = *static_cast<Job*>(data);
  const int slot = job.slots.fetch_add(1, std::memory_order_relaxed);
  for (;;) {
    const std::int64_t first = job.next.fetch_add(job.grain, std::memory_order_relaxed);
    if (first >= job.count) return;
    job.body(slot, first, std::min(first + job.grain, job.count));
  }
}

// Calls a function on each of a number of threads: the entry point of the OpenMP runtime that a parallel
// region compiles to.
using Region = void (*)(void (*function)(void*), void* data, unsigned threads, unsigned flags);

// Looked up, not linked: a second copy of the runtime would bring a second set of threads.
Region find_region() {
#if defined(__unix__) || defined(__APPLE__)
  return reinterpret_cast<Region>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
#else
  return nullptr;
#endif
}

}  // namespace

void run_parallel(int threads, std::int64_t count, std::int64_t grain,
                  const std::function<void(int slot, std::int64_t first, std::int64_t last)>& body) {
  const std::int64_t ranges = (count + grain - 1) / grain;
  const auto useful = static_cast<unsigned>(std::min<std::int64_t>(threads, ranges));
  const Region region = useful > 1 ? find_region() : nullptr;
  Job job{body, count, grain};
  if (region != nullptr) {
    region(work, &job, useful, 0);
  } else {
    work(&job);
  }
}

}  // namespace equibit
