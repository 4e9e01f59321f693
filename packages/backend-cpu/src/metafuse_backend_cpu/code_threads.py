"""OpenMP in C++ snippets on the runtime's threads.

What it is: the few functions that ``parallel`` regions and their loops call, as C++ that hands the region to the runtime's
helpers, and the decision for which snippets they are enough. GNU OpenMP's own threads would go on watching for work for
milliseconds, on cores where the helpers of the next kernel want to run.
What it is not: all of OpenMP. A snippet that says more (``single``, ``task``, ``sections``, dynamic schedules), that brings
files or options of its own, or that another compiler than g++ compiles, keeps the library's threads.
Who calls it: ``codeop``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["threads"]

_PRAGMA = re.compile(r"#[ \t]*pragma[ \t]+omp\b((?:[^\n\\]|\\\r?\n|\\.)*)")
_DIRECTIVES = re.compile(r"(parallel( for)?|for|barrier|atomic|critical)?( ?simd)?")
_CLAUSES = frozenset(
    "reduction private firstprivate lastprivate shared default if num_threads collapse nowait schedule simdlen safelen aligned "
    "linear read write update capture".split()
)
_CALLS = frozenset({"omp_get_thread_num", "omp_get_num_threads", "omp_get_max_threads"})
_INCLUDE = re.compile(r"#[ \t]*include[ \t]*(.*)")
_STANDARD = re.compile(r"<[a-z0-9_]+(\.h)?>")

_TEXT = r"""
#if defined(_OPENMP) && defined(__ELF__) && defined(__GNUC__) && !defined(__clang__)
#include <atomic>
#include <sched.h>
namespace metafuse_threads {
struct Services {
    int (*members)();
    void (*begin)(int, void (*)(void*, int), void*);
    void (*end)();
};
}
extern "C" metafuse_threads::Services SYMBOL_services;
metafuse_threads::Services SYMBOL_services = {nullptr, nullptr, nullptr};
namespace metafuse_threads {
struct Team {
    void (*body)(void*);
    void* data;
    int members;
    std::atomic<int> arrived{0};
    std::atomic<unsigned> passed{0};
};
struct Member {
    Team* team;  // nullptr outside of regions and in a nested one, which has one member
    int number, most;
    bool inside;
};
static thread_local Member me = {nullptr, 0, 1, false};
static void member(void* context, int number) {
    Team* team = static_cast<Team*>(context);
    const Member former = me;
    me = {team, number, team->members, true};
    team->body(team->data);
    me = former;
}
#define MF_REPLACES(name) __asm__(name) __attribute__((visibility("hidden"), used))
extern "C" {
void mf_parallel(void (*body)(void*), void* data, unsigned wanted, unsigned flags) MF_REPLACES("GOMP_parallel");
void mf_barrier() MF_REPLACES("GOMP_barrier");
void mf_set_num_threads(int count) MF_REPLACES("omp_set_num_threads");
int mf_get_max_threads() MF_REPLACES("omp_get_max_threads");
int mf_get_num_threads() MF_REPLACES("omp_get_num_threads");
int mf_get_thread_num() MF_REPLACES("omp_get_thread_num");
void mf_parallel(void (*body)(void*), void* data, unsigned wanted, unsigned) {
    const int there = me.inside || SYMBOL_services.members == nullptr ? 1 : SYMBOL_services.members();
    int members = wanted == 0 ? me.most : wanted > 1024 ? 1024 : static_cast<int>(wanted);
    members = members < there ? members : there;
    const Member former = me;
    if (members <= 1) {
        me = {nullptr, 0, former.most, true};
        body(data);
    } else {
        Team team{body, data, members};
        SYMBOL_services.begin(members, member, &team);
        member(&team, 0);
        SYMBOL_services.end();
    }
    me = former;
}
void mf_barrier() {
    Team* const team = me.team;
    if (team == nullptr) return;
    const unsigned now = team->passed.load(std::memory_order_acquire);
    if (team->arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == team->members) {
        team->arrived.store(0, std::memory_order_relaxed);
        team->passed.fetch_add(1, std::memory_order_release);
        return;
    }
    for (int looks = 0; team->passed.load(std::memory_order_acquire) == now; ++looks) {
        if (looks >= 1000) {
            sched_yield();
            continue;
        }
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#endif
    }
}
void mf_set_num_threads(int count) { me.most = count; }
int mf_get_max_threads() { return me.most; }
int mf_get_num_threads() { return me.team == nullptr ? 1 : me.team->members; }
int mf_get_thread_num() { return me.number; }
}
}  // namespace metafuse_threads
#endif
"""


def threads(symbol: str, texts: Sequence[str], options: Sequence[str]) -> str:
    """What a snippet of these texts, macros expanded, needs to run on the runtime's threads; empty where it can't.

    Example:
        >>> "GOMP_parallel" in threads("f", ["#pragma omp parallel for"], ())
        True
        >>> threads("f", ["#pragma omp single"], ())
        ''
    """
    whole = "\n".join(texts)
    pragmas = _PRAGMA.findall(whole)
    plain = (
        not options
        and "_Pragma" not in whole
        and set(re.findall(r"\bomp_\w+", whole)) <= _CALLS
        and all(map(_regular, pragmas))
        and all(_STANDARD.fullmatch(_code(name)) for name in _INCLUDE.findall(whole))
    )
    return _TEXT.replace("SYMBOL", symbol) if pragmas and plain else ""


def _code(line: str) -> str:
    """A line without its comment."""
    return re.sub(r"//.*|/\*.*?\*/", " ", line).strip()


def _regular(pragma: str) -> bool:
    """Whether a directive, with its clauses, is one of ``parallel``, ``for`` with a static schedule, ``simd`` or a lock."""
    words = _code(pragma.replace("\\\n", " ").replace("\\\r\n", " "))
    schedules = re.findall(r"\bschedule\s*\(\s*(\w+)", words)
    depth, outside = 0, ""
    for letter in words:
        depth += (letter == "(") - (letter == ")")
        outside += letter if depth == 0 and letter not in "()," else " "
    found = outside.split()
    directive = [word for word in found if word not in _CLAUSES]
    return all(s == "static" for s in schedules) and bool(_DIRECTIVES.fullmatch(" ".join(directive)))
