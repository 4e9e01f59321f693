// Pooled host memory: blocks aligned to 64 bytes, kept in free lists by size class and reused between steps, since fresh
// pages are slow. A block is known by its address; every address given back is looked up, so a wrong one is an error
// and not a crash. Thread-safe. Called by bindings.cpp (alloc, free, copies, host views).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <vector>

namespace metafuse_cpu {

struct MemoryStats {
    std::size_t in_use = 0;      // bytes handed out, rounded to size classes
    std::size_t cached = 0;      // bytes kept in free lists
    std::size_t peak = 0;        // largest in_use so far
    std::size_t limit = 0;       // bytes that in_use + cached may reach
    std::size_t blocks = 0;      // number of blocks handed out
    std::uint64_t system_calls = 0;  // how often the system was asked for memory
};

class Pool {
public:
    // The pool of this process. It is never destroyed: handles may be freed while the interpreter shuts down.
    static Pool& instance();

    // At least `bytes` of uninitialised memory. Throws OutOfMemory.
    void* allocate(std::size_t bytes);
    // Throws BackendError for anything that `allocate` did not hand out or that was freed before.
    void release(void* block);
    // How many bytes may be used at `block`, a block or a place within one; throws BackendError for another address.
    std::size_t capacity(const void* block);
    // Throws BackendError unless every one of `blocks` is handed out.
    void check(const void* const* blocks, std::size_t count);
    // Gives cached memory back to the system until at most `keep` bytes are cached; answers how many went.
    std::size_t trim(std::size_t keep);
    void set_limit(std::size_t bytes);
    MemoryStats stats();
    void reset_peak();

private:
    Pool();
    void* take_cached(std::size_t size, std::size_t& capacity);
    void* take_fresh(std::size_t bytes, std::size_t size);
    std::size_t trim_locked(std::size_t keep);
    std::size_t find_used(const void* block, const char* verb) const;
    // How many bytes lie between a place and the end of the block that it is in; 0 if it is in none.
    std::size_t find_room(const void* place) const;
    [[noreturn]] void fail(std::size_t bytes);

    std::mutex mutex_;
    std::map<std::size_t, std::vector<void*>> free_;       // size class -> free blocks, last freed first out
    std::map<const void*, std::size_t, std::less<>> used_;    // address -> size class
    MemoryStats stats_;
};

}  // namespace metafuse_cpu
