// The runtime's parallel loop. Generated kernels hold no threading of their own: the program executor splits their units
// and calls this. OpenMP where the build found it (so that library calls and user snippets share its threads), else plain
// threads.
#pragma once

#include <cstdint>

namespace metafuse_cpu {

// How many threads a parallel step may use: what was set, or 1 in a child that was forked after threads were used
// (the threads of OpenMP do not survive a fork, and waiting for them would hang).
int threads();
void set_threads(int count);
// The changes of `threads()` so far; a plan made for an older number is stale.
std::uint64_t threads_generation();
// Makes OpenMP regions of user code that runs on this thread use `threads()`.
void apply_to_user_code();
// Whether parallel regions share OpenMP's threads.
bool has_openmp();

using Body = void (*)(void* context, int part);
// Calls body(context, 0 .. parts-1), each exactly once, on up to `parts` threads; returns when all are done.
void parallel(int parts, Body body, void* context);

}  // namespace metafuse_cpu
