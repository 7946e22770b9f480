// Tasks on the session's own threads.
#pragma once

#include "equibit/convolution.h"
#include "ort_api.h"
#include "status.h"

namespace equibit::ort {

class SessionThreads final : public ParallelFor {
 public:
  SessionThreads(const Api* api, const KernelContext* context, int threads)
      : api_(api), context_(context), threads_(threads) {}

  int threads() const override { return threads_; }

  void run(std::size_t count, Task task, void* user) override {
    if (count == 1) {
      task(user, 0);
    } else {
      call<RunTasks>(api_, context_, task, count, std::size_t{0}, user);
    }
  }

 private:
  const Api* api_;
  const KernelContext* context_;
  int threads_;
};

}  // namespace equibit::ort
