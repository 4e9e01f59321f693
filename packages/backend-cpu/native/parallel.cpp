#include "parallel.hpp"

#include <atomic>
#include <condition_variable>
#include <csignal>
#include <mutex>
#include <system_error>
#include <thread>

#include <pthread.h>
#include <sched.h>
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace metafuse_cpu {
namespace {

// How often a thread looks again before it gives its core to others, and a helper before it sleeps.
constexpr int kLooks = 1000;
constexpr int kYields = 4000;
constexpr int kMostThreads = 1024;
constexpr int kLooksPerNote = 64;

std::atomic<int> thread_count{1};
std::atomic<bool> threads_were_used{false};
std::atomic<bool> forked{false};
std::atomic<std::uint64_t> generation{0};

void after_fork_in_child() {
    if (!threads_were_used.load()) return;
    forked.store(true);
    generation.fetch_add(1);
}

const int fork_handler = pthread_atfork(nullptr, nullptr, after_fork_in_child);

inline void pause_briefly() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Where the helpers run. A helper that watches for work on the caller's core gets to run when the caller's time is up,
// milliseconds later, and the system is slow to move one of two threads that keep yielding to each other. So a caller
// that finds a helper on its own core sends it to the others.
class Cores {
public:
    // Called by helper `number`, now and then.
    void here(int number) {
#ifdef __linux__
        if (threads_[number].load(std::memory_order_relaxed) == 0) {
            threads_[number].store(static_cast<int>(syscall(SYS_gettid)), std::memory_order_relaxed);
        }
        cores_[number].store(sched_getcpu() + 1, std::memory_order_relaxed);
#else
        (void)number;
#endif
    }

    // Called by the caller, before it gives work to the first `helpers`.
    void clear_mine(int helpers) {
#ifdef __linux__
        const int mine = sched_getcpu();
        for (int number = 0; number < helpers && number < kMostCores; ++number) {
            if (mine >= 0 && cores_[number].load(std::memory_order_relaxed) == mine + 1) send_away(number, mine);
        }
#else
        (void)helpers;
#endif
    }

    static constexpr int kMostCores = 256;

private:
#ifdef __linux__
    void send_away(int number, int mine) {
        cpu_set_t allowed;
        if (sched_getaffinity(0, sizeof allowed, &allowed) != 0 || mine >= CPU_SETSIZE) return;
        CPU_CLR(mine, &allowed);
        if (CPU_COUNT(&allowed) == 0) return;
        sched_setaffinity(threads_[number].load(std::memory_order_relaxed), sizeof allowed, &allowed);
        cores_[number].store(0, std::memory_order_relaxed);
    }

    std::atomic<int> threads_[kMostCores]{};  // the system's numbers of the helpers; 0 while unknown
    std::atomic<int> cores_[kMostCores]{};    // the core that each was last seen on, plus 1; 0 where unknown
#endif
};

// The parts of the current loop that nobody has taken: [front, back) of loop number `loop`. One word, so that taking a
// part and making sure that it belongs to this very loop are one step.
struct Ticket {
    std::uint32_t loop;
    std::uint16_t front;
    std::uint16_t back;

    explicit Ticket(std::uint64_t word)
        : loop(std::uint32_t(word >> 32)), front(std::uint16_t(word >> 16)), back(std::uint16_t(word)) {}
    Ticket(std::uint32_t number, int first, int last)
        : loop(number), front(std::uint16_t(first)), back(std::uint16_t(last)) {}
    std::uint64_t word() const { return std::uint64_t(loop) << 32 | std::uint64_t(front) << 16 | back; }
    bool empty() const { return front >= back; }
};
constexpr int kMostParts = 0xffff;

class Team {
public:
    // The helpers of this process; never destroyed, since they may still run while the process ends.
    static Team& instance() {
        static Team* team = new Team();
        return *team;
    }

    // Runs a loop with helpers; answers false, having done nothing, where another thread is running one.
    bool run(int parts, bool wake, bool streams, Body body, void* context) {
        std::unique_lock<std::mutex> only(running_, std::try_to_lock);
        if (!only.owns_lock()) return false;
        start_helpers(threads() - 1);
        if (!wake && sleepers_.load(std::memory_order_relaxed) == helpers_) return false;
        cores_.clear_mine(helpers_);
        streams_.store(streams, std::memory_order_relaxed);
        publish(0, parts, body, context);
        // A helper that is just falling asleep may miss this; its parts are then done here.
        if (wake && sleepers_.load() > 0 && sleeping_.try_lock()) call_sleepers();
        while (take(true)) {
        }
        wait_for_helpers();
        return true;
    }

    // Publishes parts 1 .. members-1 and comes back; every one of them will find a thread, unless the caller ends the region first.
    void begin(int members, Body body, void* context) {
        running_.lock();
        start_helpers(members - 1);
        region_.store(members);
        cores_.clear_mine(helpers_);
        publish(1, members, body, context);
        if (sleepers_.load() > 0) {
            sleeping_.lock();
            call_sleepers();
        }
    }

    void end() {
        while (take(true)) {
        }
        wait_for_helpers();
        region_.store(0);
        running_.unlock();
    }

    // How many helpers there are, once as many as possible of `wanted` were started.
    int helpers(int wanted) {
        std::lock_guard<std::mutex> only(running_);
        start_helpers(wanted);
        return helpers_;
    }

private:
    void publish(int first, int last, Body body, void* context) {
        body_.store(body, std::memory_order_relaxed);
        context_.store(context, std::memory_order_relaxed);
        pending_.store(last - first, std::memory_order_relaxed);
        loop_ += 1;
        ticket_.store(Ticket(loop_, first, last).word());
    }

    // Needs sleeping_, and gives it back.
    void call_sleepers() {
        calls_ += 1;
        sleepers_.store(0);  // they count as awake from now on: nobody calls them twice
        sleeping_.unlock();
        work_.notify_all();
    }

    // Takes one part and does it; false if none is left. The body and context read here are those of the part's loop: that
    // can't end before the part is done.
    bool take(bool from_front) {
        std::uint64_t word = ticket_.load(std::memory_order_acquire);
        for (;;) {
            Ticket ticket(word);
            if (ticket.empty()) return false;
            const int part = from_front ? ticket.front++ : --ticket.back;
            if (ticket_.compare_exchange_weak(word, ticket.word(), std::memory_order_acq_rel, std::memory_order_acquire)) {
                body_.load(std::memory_order_relaxed)(context_.load(std::memory_order_relaxed), part);
                pending_.fetch_sub(1, std::memory_order_release);
                return true;
            }
        }
    }

    void wait_for_helpers() {
        for (int looks = 0; pending_.load(std::memory_order_acquire) > 0; ++looks) {
            if (looks < kLooks) {
                pause_briefly();
            } else {
                sched_yield();
            }
        }
    }

    void start_helpers(int wanted) {
        for (; helpers_ < wanted && helpers_ < kMostThreads; ++helpers_) {
            // Signals belong to the threads of the interpreter.
            sigset_t all, former;
            sigfillset(&all);
            pthread_sigmask(SIG_SETMASK, &all, &former);
            bool started = true;
            try {
                std::thread([this, number = helpers_] { help(number); }).detach();
            } catch (const std::system_error&) {
                started = false;  // no more threads to be had: the others do the work
            }
            pthread_sigmask(SIG_SETMASK, &former, nullptr);
            if (!started) return;
        }
    }

    void help(int number) {
        for (;;) {
            while (wanted(number) && watch(number)) {
                while (take(streams_.load(std::memory_order_relaxed))) {
                }
            }
            sleep(number);
        }
    }

    // Helpers beyond a lowered number of threads sleep on, unless a region counts on them.
    bool wanted(int number) const {
        return number < thread_count.load(std::memory_order_relaxed) - 1 || number < region_.load() - 1;
    }

    // Whether work appeared within the time that is worth waiting for.
    bool watch(int number) {
        for (int looks = 0; looks < kLooks + kYields; ++looks) {
            if (looks % kLooksPerNote == 0 && number < Cores::kMostCores) cores_.here(number);
            if (!Ticket(ticket_.load(std::memory_order_acquire)).empty()) return true;
            if (looks < kLooks) {
                pause_briefly();
            } else {
                sched_yield();
            }
        }
        return false;
    }

    // Until the next call. The loop that it came from may be over by then: another may follow at once.
    void sleep(int number) {
        std::unique_lock<std::mutex> lock(sleeping_);
        const std::uint64_t heard = calls_;
        sleepers_.fetch_add(1);
        // Either begin() sees the sleeper counted here, or the sleeper sees its region: none is forgotten.
        if (number < region_.load() - 1 && !Ticket(ticket_.load()).empty()) {
            sleepers_.fetch_sub(1);
            return;
        }
        work_.wait(lock, [&] { return calls_ != heard; });
    }

    Cores cores_;
    std::mutex running_;  // held by the thread whose loop it is
    int helpers_ = 0;
    std::atomic<int> region_{0};  // members of the open region
    std::uint32_t loop_ = 0;
    alignas(64) std::atomic<std::uint64_t> ticket_{0};
    alignas(64) std::atomic<int> pending_{0};
    std::atomic<Body> body_{nullptr};
    std::atomic<void*> context_{nullptr};
    std::atomic<bool> streams_{false};  // only where helpers begin depends on it: an old value does no harm
    alignas(64) std::atomic<int> sleepers_{0};  // changed under sleeping_
    std::mutex sleeping_;
    std::uint64_t calls_ = 0;  // guarded by sleeping_
    std::condition_variable work_;
};

}  // namespace

int threads() { return forked.load(std::memory_order_relaxed) ? 1 : thread_count.load(std::memory_order_relaxed); }

void set_threads(int count) {
    (void)fork_handler;
    thread_count.store(count < 1 ? 1 : count > kMostThreads ? kMostThreads : count);
    generation.fetch_add(1);
}

std::uint64_t threads_generation() { return generation.load(std::memory_order_relaxed); }

int threads_for_snippet() {
    threads_were_used.store(true, std::memory_order_relaxed);
    return threads();
}

void parallel(int parts, bool wake, bool streams, Body body, void* context) {
    if (parts > 1 && parts <= kMostParts && threads() > 1) {
        threads_were_used.store(true, std::memory_order_relaxed);
        if (Team::instance().run(parts, wake, streams, body, context)) return;
    }
    for (int part = 0; part < parts; ++part) body(context, part);
}

void begin_region(int members, Body body, void* context) {
    threads_were_used.store(true, std::memory_order_relaxed);
    Team::instance().begin(members, body, context);
}

void end_region() { Team::instance().end(); }

int members() {
    static std::atomic<int> most{1};
    const int wanted = threads();
    if (wanted > most.load(std::memory_order_relaxed)) {
        threads_were_used.store(true, std::memory_order_relaxed);
        const int there = Team::instance().helpers(wanted - 1) + 1;
        if (there < wanted) return there;
        most.store(wanted, std::memory_order_relaxed);
    }
    return wanted;
}

}  // namespace metafuse_cpu
