// Scratch memory that is kept between runs.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <vector>

namespace equibit::ort {

// Blocks of scratch memory, shared by the layers of all sessions: the layers of a network run one after the
// other, so one block serves them all and stays in the cache. A block only grows; the pool ends with its last
// user.
class ScratchPool {
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };

 public:
  struct Block {
    std::unique_ptr<void, Free> memory;
    std::size_t bytes = 0;
  };

  // A block for the duration of one run.
  class Lease {
   public:
    Lease(ScratchPool& pool, std::size_t bytes);
    ~Lease();
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;

    void* memory() const { return block_.memory.get(); }

   private:
    ScratchPool& pool_;
    Block block_;
  };

  // The one pool, made anew where nobody holds it.
  static std::shared_ptr<ScratchPool> shared();

 private:
  std::mutex mutex_;
  std::vector<Block> free_;
};

}  // namespace equibit::ort
