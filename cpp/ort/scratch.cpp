#include "scratch.h"

#include <new>
#include <utility>

namespace equibit::ort {

namespace {

constexpr std::size_t border = 64;  // of a cache line, and of the widest vectors

}  // namespace

ScratchPool::Lease::Lease(ScratchPool& pool, std::size_t bytes) : pool_(pool) {
  {
    const std::lock_guard<std::mutex> lock(pool_.mutex_);
    if (!pool_.free_.empty()) {
      block_ = std::move(pool_.free_.back());
      pool_.free_.pop_back();
    }
  }
  if (block_.bytes >= bytes) return;
  const std::size_t whole = (bytes + border - 1) / border * border;
  block_.memory.reset();  // before the new one is taken: its content is nobody's
  block_.memory.reset(std::aligned_alloc(border, whole));
  if (block_.memory == nullptr) throw std::bad_alloc();
  block_.bytes = whole;
}

ScratchPool::Lease::~Lease() {
  const std::lock_guard<std::mutex> lock(pool_.mutex_);
  pool_.free_.push_back(std::move(block_));
}

std::shared_ptr<ScratchPool> ScratchPool::shared() {
  static std::mutex mutex;
  static std::weak_ptr<ScratchPool> existing;
  const std::lock_guard<std::mutex> lock(mutex);
  std::shared_ptr<ScratchPool> pool = existing.lock();
  if (pool == nullptr) existing = pool = std::make_shared<ScratchPool>();
  return pool;
}

}  // namespace equibit::ort
