// A program: the frozen steps of one run, as flat arrays, executed in one call without Python.
//
// The interface of a generated kernel is two functions and a constant:
//   void SYMBOL(void** buffers, const long long* sizes, const Scalar* scalars, long long begin, long long end);
//   long long SYMBOL_units(const long long* sizes);
//   const long long SYMBOL_grain;
// A kernel's work is a number of independent units; any split of them into ranges gives the same result. Chunk borders
// are multiples of the grain, the fewest units that are worth a thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "library.hpp"

namespace metafuse_cpu {

union Scalar {
    double f;
    long long i;
};

struct Kernel {
    using Run = void (*)(void** buffers, const long long* sizes, const Scalar* scalars, long long begin, long long end);
    using Units = long long (*)(const long long* sizes);

    std::string symbol;
    Run run = nullptr;
    Units units = nullptr;
    long long grain = 1;
    std::size_t buffers = 0;
    std::size_t sizes = 0;
    std::string scalar_kinds;  // one letter per scalar: f double, i integer
};

class Program {
public:
    // `scalar_kinds`: one letter per entry of the scalar table of a run.
    explicit Program(std::string scalar_kinds);

    // `constant`: the step is run only where its inputs may have changed.
    void begin_step(const Kernel& kernel, bool constant = false);
    // A step of a library, with all its slots; `scratch`: the slot of its scratch memory, or -1.
    void add_library(std::shared_ptr<LibraryStep> library, const std::vector<long long>& slots, long long scratch,
                     bool constant = false);
    // Throws ArgumentError where counts do not fit the kernel of the current step.
    void add_call(const std::vector<long long>& slots, const std::vector<long long>& sizes,
                  const std::vector<long long>& scalars, long long elements);

    const std::string& scalar_kinds() const { return scalar_kinds_; }
    std::size_t handles() const { return handles_; }
    std::size_t steps() const { return steps_.size(); }
    // How many steps use more than one thread.
    std::size_t parallel_steps() const;

    // Runs all steps in order. `table` has `count` handles, `scalars` one entry per letter of scalar_kinds. Without
    // `changed`, what constant steps made is as the last run left it. May be called from several threads at once.
    void run(void* const* table, std::size_t count, const Scalar* scalars, bool changed = true) const;

private:
    struct Call {
        std::size_t buffers;  // where its arguments start in slots_, sizes_ and scalars_
        std::size_t sizes;
        std::size_t scalars;
        long long units;
        long long elements;
    };
    struct Step {
        Kernel kernel;
        std::size_t first;  // in calls_
        std::size_t last;
        long long elements;
        bool constant;
        std::shared_ptr<LibraryStep> library;  // instead of a kernel
        std::size_t buffers;                   // of a library: where its arguments start in slots_
        bool scratch;                          // whether the slot after its buffers is scratch memory
    };
    struct Chunk {
        std::size_t call;
        long long begin;
        long long end;
    };
    // How the work of each step is divided for one number of threads.
    struct Plan {
        std::uint64_t generation;
        std::vector<int> parts;                 // per step; 1: on the calling thread, else for any thread to take
        std::vector<char> wake;                 // per step: whether it and what follows is worth waking a thread
        std::vector<std::size_t> first_border;  // per step: where its parts + 1 borders start
        std::vector<std::size_t> borders;       // part p does chunks[borders[p] .. borders[p + 1])
        std::vector<Chunk> chunks;
    };
    struct Region;

    std::shared_ptr<const Plan> plan() const;
    void divide(const Step& step, int parts, Plan& plan) const;
    void add_slots(const std::vector<long long>& slots);
    static void run_library(const Step& step, void* const* buffers, bool changed);
    static void run_part(void* context, int part);

    std::string scalar_kinds_;
    std::size_t handles_ = 0;
    std::vector<Step> steps_;
    std::vector<Call> calls_;
    std::vector<std::size_t> slots_;
    std::vector<long long> sizes_;
    std::vector<std::size_t> scalars_;
    mutable std::mutex plan_mutex_;
    mutable std::shared_ptr<const Plan> plan_;
};

}  // namespace metafuse_cpu
