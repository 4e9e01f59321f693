#include "threads.hpp"

#include <atomic>
#include <cstdint>
#include <cstring>
#include <vector>

#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include <oneapi/dnnl/dnnl.h>

namespace metafuse_onednn {
namespace {

constexpr int kLooks = 1000;

const metafuse_cpu::Runtime* services = nullptr;

// -- What replaces libgomp --------------------------------------------------------------------------------------------
struct Team {
    void (*body)(void*) = nullptr;
    void* data = nullptr;
    int members = 1;
    int most = 1;  // what its members are told that a region may have
    std::atomic<int> arrived{0};
    std::atomic<unsigned> passed{0};  // barriers so far
};

// Which member of which team the thread is; no team outside of regions and in a nested one, which has one member.
struct Member {
    Team* team = nullptr;
    int number = 0;
    bool inside = false;
};
thread_local Member me;
thread_local Team own_team;
thread_local std::vector<Member> outer;  // of the open regions of this thread
// The number of threads for what this thread makes and runs: one and the same from the beginning to the end of a primitive's
// making and of its run, though others may change the setting meanwhile.
thread_local int most_threads = 1;

void run_member(void* context, int number) {
    Team* team = static_cast<Team*>(context);
    const Member former = me;
    me = Member{team, number, true};
    team->body(team->data);
    me = former;
}

void parallel_start(void (*body)(void*), void* data, unsigned wanted) {
    outer.push_back(me);
    const int members = wanted == 0 ? most_threads : static_cast<int>(wanted);
    if (me.inside || members <= 1) {
        me = Member{nullptr, 0, me.inside};
        return;
    }
    own_team.body = body;
    own_team.data = data;
    own_team.members = members;
    own_team.most = most_threads;
    own_team.arrived.store(0, std::memory_order_relaxed);
    me = Member{&own_team, 0, true};
    services->begin_region(members, run_member, &own_team);
}

void parallel_end() {
    const bool real = me.team != nullptr;
    me = outer.back();
    outer.pop_back();
    if (real) services->end_region();
}

void parallel_whole(void (*body)(void*), void* data, unsigned wanted, unsigned) {
    parallel_start(body, data, wanted);
    body(data);
    parallel_end();
}

void barrier() {
    Team* team = me.team;
    if (team == nullptr) return;
    const unsigned now = team->passed.load(std::memory_order_acquire);
    if (team->arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == team->members) {
        team->arrived.store(0, std::memory_order_relaxed);
        team->passed.fetch_add(1, std::memory_order_release);
        return;
    }
    for (int looks = 0; team->passed.load(std::memory_order_acquire) == now; ++looks) {
        looks < kLooks ? __builtin_ia32_pause() : static_cast<void>(sched_yield());
    }
}

int max_threads() { return me.team != nullptr ? me.team->most : most_threads; }
int num_threads() { return me.team != nullptr ? me.team->members : 1; }
int thread_num() { return me.number; }
int in_parallel() { return me.inside; }

// -- The table of imported functions ----------------------------------------------------------------------------------
struct Redirection {
    const char* name;
    void* target;
    bool needed;
    void** entry;
};

Redirection redirections[] = {
    {"GOMP_parallel_start", reinterpret_cast<void*>(&parallel_start), true, nullptr},
    {"GOMP_parallel_end", reinterpret_cast<void*>(&parallel_end), true, nullptr},
    {"GOMP_barrier", reinterpret_cast<void*>(&barrier), true, nullptr},
    {"omp_get_max_threads", reinterpret_cast<void*>(&max_threads), true, nullptr},
    {"omp_get_num_threads", reinterpret_cast<void*>(&num_threads), true, nullptr},
    {"omp_get_thread_num", reinterpret_cast<void*>(&thread_num), true, nullptr},
    {"omp_in_parallel", reinterpret_cast<void*>(&in_parallel), true, nullptr},
    {"GOMP_parallel", reinterpret_cast<void*>(&parallel_whole), false, nullptr},
};

struct Table {
    const ElfW(Sym)* symbols = nullptr;
    const char* names = nullptr;
    std::size_t size = 0;
    const ElfW(Rela)* entries = nullptr;
};

Table read_table(const link_map& library) {
    Table table;
    for (const ElfW(Dyn)* item = library.l_ld; item->d_tag != DT_NULL; ++item) {
        // glibc has made these absolute; other loaders leave them relative.
        const auto value = item->d_un.d_ptr < library.l_addr ? item->d_un.d_ptr + library.l_addr : item->d_un.d_ptr;
        if (item->d_tag == DT_SYMTAB) table.symbols = reinterpret_cast<const ElfW(Sym)*>(value);
        if (item->d_tag == DT_STRTAB) table.names = reinterpret_cast<const char*>(value);
        if (item->d_tag == DT_JMPREL) table.entries = reinterpret_cast<const ElfW(Rela)*>(value);
        if (item->d_tag == DT_PLTRELSZ) table.size = item->d_un.d_val / sizeof(ElfW(Rela));
    }
    return table;
}

// Functions that are about threads and that we have no replacement for would be lost among two sorts of threads. The three
// of statically scheduled loops are called by one primitive only, which is never used here.
bool about_threads(const char* name) {
    return (std::strncmp(name, "GOMP_", 5) == 0 && std::strncmp(name, "GOMP_loop_", 10) != 0) ||
           std::strncmp(name, "omp_", 4) == 0;
}

bool find_entries(const link_map& library) {
    const Table table = read_table(library);
    if (table.symbols == nullptr || table.names == nullptr || table.entries == nullptr) return false;
    for (std::size_t k = 0; k < table.size; ++k) {
        if (ELF64_R_TYPE(table.entries[k].r_info) != R_X86_64_JUMP_SLOT) continue;
        const char* name = table.names + table.symbols[ELF64_R_SYM(table.entries[k].r_info)].st_name;
        if (!about_threads(name)) continue;
        bool known = false;
        for (Redirection& redirection : redirections) {
            if (std::strcmp(name, redirection.name) != 0) continue;
            redirection.entry = reinterpret_cast<void**>(library.l_addr + table.entries[k].r_offset);
            known = true;
        }
        if (!known) return false;
    }
    for (const Redirection& redirection : redirections) {
        if (redirection.needed && redirection.entry == nullptr) return false;
    }
    return true;
}

// Which access the system gives to a page: the loader makes the table read-only once it is filled.
struct Page {
    std::uintptr_t start;
    int protection;
};

int protection_of(const link_map& library, std::uintptr_t page, std::size_t page_bytes) {
    struct Search {
        ElfW(Addr) base;
        std::uintptr_t page;
        std::size_t page_bytes;
        int protection;
    } search{library.l_addr, page, page_bytes, PROT_READ | PROT_WRITE};
    dl_iterate_phdr(
        [](dl_phdr_info* info, std::size_t, void* context) {
            Search& asked = *static_cast<Search*>(context);
            if (info->dlpi_addr != asked.base) return 0;
            for (int k = 0; k < info->dlpi_phnum; ++k) {
                const ElfW(Phdr)& part = info->dlpi_phdr[k];
                const std::uintptr_t start = asked.base + part.p_vaddr;
                if (part.p_type == PT_GNU_RELRO && asked.page >= start / asked.page_bytes * asked.page_bytes &&
                    asked.page + asked.page_bytes <= start + part.p_memsz) {
                    asked.protection = PROT_READ;
                }
            }
            return 1;
        },
        &search);
    return search.protection;
}

bool write_entries(const link_map& library) {
    const auto page_bytes = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    std::vector<Page> pages;
    for (const Redirection& redirection : redirections) {
        if (redirection.entry == nullptr) continue;
        const std::uintptr_t start = reinterpret_cast<std::uintptr_t>(redirection.entry) / page_bytes * page_bytes;
        pages.push_back(Page{start, protection_of(library, start, page_bytes)});
        if (mprotect(reinterpret_cast<void*>(start), page_bytes, PROT_READ | PROT_WRITE) != 0) return false;
    }
    for (const Redirection& redirection : redirections) {
        if (redirection.entry != nullptr) *redirection.entry = redirection.target;
    }
    for (const Page& page : pages) mprotect(reinterpret_cast<void*>(page.start), page_bytes, page.protection);
    return true;
}

bool redirected = false;

// For OpenMP's own threads: a setting of each thread of ours.
void set_openmp_threads(int count) {
    using Set = void (*)(int);
    static const auto set = [] {
        void* openmp = dlopen("libgomp.so.1", RTLD_LAZY | RTLD_NOLOAD);
        return openmp == nullptr ? nullptr : reinterpret_cast<Set>(dlsym(openmp, "omp_set_num_threads"));
    }();
    thread_local int former = 0;
    if (set != nullptr && former != count) set(count);
    former = count;
}

}  // namespace

bool redirect_threads(const metafuse_cpu::Runtime& runtime) {
    services = &runtime;
    Dl_info info{};
    link_map* library = nullptr;
    const auto address = reinterpret_cast<void*>(&dnnl_primitive_execute);
    if (dladdr1(address, &info, reinterpret_cast<void**>(&library), RTLD_DL_LINKMAP) == 0 || library == nullptr) {
        return false;
    }
    redirected = find_entries(*library) && write_entries(*library);
    return redirected;
}

int use_threads(const metafuse_cpu::Runtime& runtime) {
    if (redirected) return most_threads = runtime.members();
    const int count = runtime.threads();
    set_openmp_threads(count);
    return count;
}

}  // namespace metafuse_onednn
