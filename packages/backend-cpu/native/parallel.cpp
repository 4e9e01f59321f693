#include "parallel.hpp"

#include <atomic>

#include <pthread.h>

#ifdef METAFUSE_OPENMP
#include <omp.h>
#else
#include <system_error>
#include <thread>
#include <vector>
#endif

namespace metafuse_cpu {
namespace {

std::atomic<int> thread_count{1};
std::atomic<bool> threads_were_used{false};
std::atomic<bool> forked{false};
std::atomic<std::uint64_t> generation{0};

void after_fork_in_child() {
    if (!threads_were_used.load()) return;
    forked.store(true);
    generation.fetch_add(1);
#ifdef METAFUSE_OPENMP
    omp_set_num_threads(1);
#endif
}

const int fork_handler = pthread_atfork(nullptr, nullptr, after_fork_in_child);

}  // namespace

int threads() { return forked.load(std::memory_order_relaxed) ? 1 : thread_count.load(std::memory_order_relaxed); }

void set_threads(int count) {
    (void)fork_handler;
    thread_count.store(count < 1 ? 1 : count);
    generation.fetch_add(1);
}

std::uint64_t threads_generation() { return generation.load(std::memory_order_relaxed); }

#ifdef METAFUSE_OPENMP

bool has_openmp() { return true; }

void apply_to_user_code() {
    omp_set_num_threads(threads());
    threads_were_used.store(true, std::memory_order_relaxed);
}

void parallel(int parts, Body body, void* context) {
    if (parts <= 1) {
        if (parts == 1) body(context, 0);
        return;
    }
    threads_were_used.store(true, std::memory_order_relaxed);
#pragma omp parallel num_threads(parts)
    {
        // The system may give fewer threads than asked for.
        const int given = omp_get_num_threads();
        for (int part = omp_get_thread_num(); part < parts; part += given) body(context, part);
    }
}

#else

bool has_openmp() { return false; }

void apply_to_user_code() {}

void parallel(int parts, Body body, void* context) {
    std::vector<std::thread> helpers;
    int started = 1;
    try {
        helpers.reserve(static_cast<std::size_t>(parts));
        for (; started < parts; ++started) {
            const int part = started;
            helpers.emplace_back([=] { body(context, part); });
        }
    } catch (const std::exception&) {
        // No more threads to be had: this one does the rest.
    }
    body(context, 0);
    for (int part = started; part < parts; ++part) body(context, part);
    for (std::thread& helper : helpers) helper.join();
}

#endif

}  // namespace metafuse_cpu
