// The runtime's parallel loop. Generated kernels hold no threading of their own: the program executor divides their units
// into parts and calls this.
//
// The calling thread takes parts from the front, helper threads from the back, so that a thread finds in its cache what it
// wrote a step ago. Of a loop whose data fits in no cache all take parts from the front: neighbouring parts of memory at
// one time are read some percent faster than distant ones. The caller never waits for a helper that has not begun a part: where the system gives the other cores
// to somebody else, a loop is as slow as on one thread and no slower. (A region of OpenMP waits for every thread of its team
// to arrive, which takes milliseconds on a busy machine.) Helpers watch for work for a millisecond or two, most of it
// offering their core to others at every look, and then sleep: what follows one program is soon the next.
#pragma once

#include <cstdint>

namespace metafuse_cpu {

// How many threads a loop may use: what was set, or 1 in a child that was forked after threads were used, where there are
// no helpers and OpenMP (of users' snippets) would wait for threads that did not survive.
int threads();
void set_threads(int count);
// The changes of `threads()` so far; a plan made for an older number is stale.
std::uint64_t threads_generation();
// The same for a user's snippet, which may hold OpenMP regions of its own.
int threads_for_snippet();

using Body = void (*)(void* context, int part);
// Calls body(context, 0 .. parts-1), each exactly once, and returns when all are done. `wake`: whether the work is worth
// waking helpers that sleep, which takes microseconds. `streams`: whether the data fits in no cache. Bodies must not throw.
void parallel(int parts, bool wake, bool streams, Body body, void* context);

// A region for a library whose threads wait for one another: body(context, 1 .. members-1) is called by helpers while the
// caller, between begin and end, does the work of number 0. Bodies that nobody has begun by the end are done by the caller.
// Only one region or loop is open at a time: begin_region waits for those of other threads.
void begin_region(int members, Body body, void* context);
void end_region();
// How many members a region may have.
int members();

}  // namespace metafuse_cpu
