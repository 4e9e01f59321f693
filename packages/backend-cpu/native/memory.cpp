#include "memory.hpp"

#include <cstdlib>
#include <iterator>
#include <new>
#include <string>

#include <pthread.h>
#include <sys/mman.h>

#include "failure.hpp"

namespace metafuse_cpu {
namespace {

constexpr std::size_t kAlignment = 64;
// Blocks from this size on come from mmap in whole huge pages and may serve somewhat smaller requests.
constexpr std::size_t kLarge = std::size_t(2) << 20;
// Blocks from this size on begin at different offsets within a page of memory. A load waits for an earlier store whose address
// has the same last twelve bits, so a loop that walks through several arrays side by side, all of which begin with a page,
// stands still at every step.
constexpr std::size_t kStaggered = std::size_t(64) << 10;
constexpr std::size_t kCompared = 4096, kStagger = 9 * kAlignment;
// What a large block has beyond its size, for the stagger: a page of any system.
constexpr std::size_t kTail = std::size_t(64) << 10;
// The cache may always hold this much beyond what was in use at the peak.
constexpr std::size_t kSlack = std::size_t(64) << 20;

// Eight classes per doubling: at most an eighth is wasted, and shapes that differ a little share blocks.
std::size_t size_class(std::size_t bytes) {
    if (bytes <= kAlignment) return kAlignment;
    std::size_t step = kAlignment;
    while (bytes > step * 16) step *= 2;
    std::size_t rounded = (bytes + step - 1) / step * step;
    return rounded >= kLarge ? (rounded + kLarge - 1) / kLarge * kLarge : rounded;
}

// How far the next block is moved: 64 distances in turn. Called with the pool's lock held.
std::size_t next_stagger() {
    static std::size_t last = 0;
    last = (last + kStagger) % kCompared;
    return last;
}

void* staggered(void* block) { return block ? static_cast<char*>(block) + next_stagger() : nullptr; }

// What the system handed out for a staggered block.
void* origin(void* block) {
    return reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(block) / kCompared * kCompared);
}

// `size` bytes in huge pages, and the tail.
void* allocate_large(std::size_t size) {
    // Over-allocate by one huge page and cut both ends, so that the block starts on a huge-page border.
    const std::size_t total = size + kLarge + kTail;
    void* base = mmap(nullptr, total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) return nullptr;
    const auto start = reinterpret_cast<std::uintptr_t>(base);
    const std::uintptr_t aligned = (start + kLarge - 1) / kLarge * kLarge;
    const std::uintptr_t end = aligned + size + kTail;
    if (aligned != start) munmap(base, aligned - start);
    if (end != start + total) munmap(reinterpret_cast<void*>(end), start + total - end);
    void* block = reinterpret_cast<void*>(aligned);
#ifdef MADV_HUGEPAGE
    madvise(block, size, MADV_HUGEPAGE);  // advice only: failure changes nothing
#endif
    return block;
}

void* system_allocate(std::size_t size) {
    if (size >= kLarge) return staggered(allocate_large(size));
    void* block = nullptr;
    if (size >= kStaggered) {
        return posix_memalign(&block, kCompared, size + kCompared) == 0 ? staggered(block) : nullptr;
    }
    return posix_memalign(&block, kAlignment, size) == 0 ? block : nullptr;
}

void system_release(void* block, std::size_t size) {
    if (size >= kLarge) {
        munmap(origin(block), size + kTail);
    } else {
        std::free(size >= kStaggered ? origin(block) : block);
    }
}

std::string megabytes(std::size_t bytes) {
    return std::to_string(bytes) + " bytes (" + std::to_string(bytes >> 20) + " MiB)";
}

}  // namespace

Pool& Pool::instance() {
    static Pool* pool = new Pool();
    return *pool;
}

Pool::Pool() {
    stats_.limit = ~std::size_t(0) / 2;
    // A fork while another thread holds the lock must not leave it locked in the child. The handlers find the pool
    // through the address kept here: instance() is still being initialised.
    static Pool* self = this;
    pthread_atfork([] { self->mutex_.lock(); }, [] { self->mutex_.unlock(); }, [] { self->mutex_.unlock(); });
}

void* Pool::allocate(std::size_t bytes) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (bytes > stats_.limit) fail(bytes);
    std::size_t size = size_class(bytes);
    void* block = take_cached(size, size);
    if (block == nullptr) block = take_fresh(bytes, size);
    try {
        used_.emplace(block, size);
    } catch (const std::bad_alloc&) {
        system_release(block, size);
        fail(bytes);
    }
    stats_.in_use += size;
    stats_.blocks += 1;
    if (stats_.in_use > stats_.peak) stats_.peak = stats_.in_use;
    return block;
}

// A cached block of this class, or a large one that is at most a quarter too large; `capacity` becomes its size.
void* Pool::take_cached(std::size_t size, std::size_t& capacity) {
    auto found = free_.lower_bound(size);
    if (found == free_.end()) return nullptr;
    if (found->first != size && (size < kLarge || found->first > size + size / 4)) return nullptr;
    void* block = found->second.back();
    found->second.pop_back();
    capacity = found->first;
    stats_.cached -= capacity;
    if (found->second.empty()) free_.erase(found);
    return block;
}

void* Pool::take_fresh(std::size_t bytes, std::size_t size) {
    const std::size_t would_use = stats_.in_use + size;
    if (would_use > stats_.limit) fail(bytes);
    // Shapes that change from step to step must not pile up blocks that nobody asks for again.
    const std::size_t peak = would_use > stats_.peak ? would_use : stats_.peak;
    std::size_t room = peak + peak / 2 + kSlack;
    if (room > stats_.limit) room = stats_.limit;
    if (would_use + stats_.cached > room) trim_locked(room > would_use ? room - would_use : 0);
    stats_.system_calls += 1;
    void* block = system_allocate(size);
    if (block == nullptr && stats_.cached > 0) {
        trim_locked(0);
        block = system_allocate(size);
    }
    if (block == nullptr) fail(bytes);
    return block;
}

void Pool::release(void* block) {
    std::lock_guard<std::mutex> lock(mutex_);
    const std::size_t size = find_used(block, "free");
    try {
        free_[size].push_back(block);
        stats_.cached += size;
    } catch (const std::bad_alloc&) {
        system_release(block, size);
    }
    used_.erase(block);
    stats_.in_use -= size;
    stats_.blocks -= 1;
}

std::size_t Pool::capacity(const void* block) {
    std::lock_guard<std::mutex> lock(mutex_);
    const std::size_t room = find_room(block);
    return room ? room : find_used(block, "memory");
}

void Pool::check(const void* const* blocks, std::size_t count) {
    std::lock_guard<std::mutex> lock(mutex_);
    for (std::size_t i = 0; i < count; ++i) {
        if (!find_room(blocks[i])) find_used(blocks[i], "launch");
    }
}

std::size_t Pool::find_room(const void* place) const {
    auto next = used_.upper_bound(place);
    if (next == used_.begin()) return 0;
    const auto& [start, size] = *std::prev(next);
    const char* const end = static_cast<const char*>(start) + size;
    return std::less<>()(place, end) ? static_cast<std::size_t>(end - static_cast<const char*>(place)) : 0;
}

std::size_t Pool::find_used(const void* block, const char* verb) const {
    auto found = used_.find(block);
    if (found != used_.end()) return found->second;
    throw Failure("BackendError", std::string("[") + verb + "] unknown handle: " +
                                      std::to_string(reinterpret_cast<std::uintptr_t>(block)) +
                                      "; it was never allocated here or is already free");
}

std::size_t Pool::trim(std::size_t keep) {
    std::lock_guard<std::mutex> lock(mutex_);
    return trim_locked(keep);
}

std::size_t Pool::trim_locked(std::size_t keep) {
    const std::size_t before = stats_.cached;
    while (stats_.cached > keep && !free_.empty()) {
        auto largest = std::prev(free_.end());
        system_release(largest->second.back(), largest->first);
        stats_.cached -= largest->first;
        largest->second.pop_back();
        if (largest->second.empty()) free_.erase(largest);
    }
    return before - stats_.cached;
}

void Pool::set_limit(std::size_t bytes) {
    std::lock_guard<std::mutex> lock(mutex_);
    stats_.limit = bytes;
    if (stats_.in_use + stats_.cached > bytes) trim_locked(bytes > stats_.in_use ? bytes - stats_.in_use : 0);
}

MemoryStats Pool::stats() {
    std::lock_guard<std::mutex> lock(mutex_);
    return stats_;
}

void Pool::reset_peak() {
    std::lock_guard<std::mutex> lock(mutex_);
    stats_.peak = stats_.in_use;
}

void Pool::fail(std::size_t bytes) {
    throw Failure("OutOfMemory", "[alloc] no memory for " + megabytes(bytes) + ": " + megabytes(stats_.in_use) +
                                     " in use, " + megabytes(stats_.cached) + " cached, limit " +
                                     megabytes(stats_.limit) +
                                     "; use smaller batches, drop what is no longer needed, or raise "
                                     "METAFUSE_CPU_MEMORY_LIMIT");
}

}  // namespace metafuse_cpu
