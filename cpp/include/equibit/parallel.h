// Work on ranges, spread over the cores.
#pragma once

#include <cstdint>
#include <functional>

namespace equibit {

// Runs body(slot, first, last) for ranges of at most `grain` that cover 0 .. count - 1, on at most `threads`
// threads. No two calls with the same slot, 0 <= slot < threads, run at once.
//
// The threads are those of the OpenMP runtime that the process has loaded for all to see, which is torch's
// where torch runs: they are awake, and threads of our own would compete with them for the cores. Where there
// is none the calling thread does everything. As torch's own operators, it must not ask for several threads
// in a child of fork whose parent did.
void run_parallel(int threads, std::int64_t count, std::int64_t grain,
                  const std::function<void(int slot, std::int64_t first, std::int64_t last)>& body);

}  // namespace equibit
