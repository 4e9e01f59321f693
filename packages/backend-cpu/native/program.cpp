#include "program.hpp"

#include <algorithm>
#include <utility>

#include "failure.hpp"
#include "memory.hpp"
#include "parallel.hpp"

namespace metafuse_cpu {
namespace {

// A part has at least this many innermost points, and a thread gets up to so many parts: small enough that threads which
// get less of the machine take fewer of them.
constexpr long long kElementsPerPart = 16384;
constexpr long long kPartsPerThread = 4;
// Steps of so many innermost points read or write more than caches hold; their parts may be smaller.
constexpr long long kElementsToStream = 1 << 23;
constexpr long long kPartsOfStream = 8;
// Fewer innermost points, in all the steps still to come, are not worth waking a sleeping thread.
constexpr long long kElementsToWake = 131072;

[[noreturn]] void mismatch(const std::string& symbol, const char* what, std::size_t given, std::size_t wanted) {
    throw Failure("ArgumentError", "[launch] kernel " + symbol + " takes " + std::to_string(wanted) + " " + what + ": " +
                                       std::to_string(given) + " given");
}

}  // namespace

Program::Program(std::string scalar_kinds) : scalar_kinds_(std::move(scalar_kinds)) {
    for (char kind : scalar_kinds_) {
        if (kind != 'f' && kind != 'i') {
            throw Failure("ArgumentError", "[prepare] unknown scalar kind: '" + std::string(1, kind) + "'; use f or i");
        }
    }
}

void Program::begin_step(const Kernel& kernel, bool constant) {
    steps_.push_back(Step{kernel, calls_.size(), calls_.size(), 0, constant, nullptr, 0, false});
}

void Program::add_slots(const std::vector<long long>& slots) {
    for (long long slot : slots) {
        if (slot < 0) throw Failure("ArgumentError", "[prepare] negative slot: " + std::to_string(slot));
        handles_ = std::max(handles_, static_cast<std::size_t>(slot) + 1);
    }
    slots_.insert(slots_.end(), slots.begin(), slots.end());
}

void Program::add_library(std::shared_ptr<LibraryStep> library, const std::vector<long long>& slots, long long scratch,
                          bool constant) {
    if (slots.size() != library->buffers()) mismatch("of a library", "buffers", slots.size(), library->buffers());
    const std::size_t first = slots_.size();
    add_slots(slots);
    if (scratch >= 0) add_slots({scratch});
    // Its threads are its own business; kernels before it had better leave the helpers awake.
    steps_.push_back(Step{Kernel{}, calls_.size(), calls_.size(), kElementsToWake, constant, std::move(library), first,
                          scratch >= 0});
}

void Program::add_call(const std::vector<long long>& slots, const std::vector<long long>& sizes,
                       const std::vector<long long>& scalars, long long elements) {
    if (steps_.empty() || steps_.back().library != nullptr) {
        throw Failure("ArgumentError", "[prepare] a call needs a step of a kernel");
    }
    Step& step = steps_.back();
    const Kernel& kernel = step.kernel;
    if (slots.size() != kernel.buffers) mismatch(kernel.symbol, "buffers", slots.size(), kernel.buffers);
    if (sizes.size() != kernel.sizes) mismatch(kernel.symbol, "sizes", sizes.size(), kernel.sizes);
    if (scalars.size() != kernel.scalar_kinds.size()) {
        mismatch(kernel.symbol, "scalars", scalars.size(), kernel.scalar_kinds.size());
    }
    for (std::size_t i = 0; i < scalars.size(); ++i) {
        const bool inside = scalars[i] >= 0 && static_cast<std::size_t>(scalars[i]) < scalar_kinds_.size();
        if (!inside || scalar_kinds_[static_cast<std::size_t>(scalars[i])] != kernel.scalar_kinds[i]) {
            throw Failure("ArgumentError", "[prepare] scalar " + std::to_string(i) + " of kernel " + kernel.symbol +
                                               " must be of kind '" + kernel.scalar_kinds[i] + "': position " +
                                               std::to_string(scalars[i]) + " of the kinds \"" + scalar_kinds_ + "\"");
        }
    }
    Call call{slots_.size(), sizes_.size(), scalars_.size(), 0, std::max(elements, 1LL)};
    add_slots(slots);
    sizes_.insert(sizes_.end(), sizes.begin(), sizes.end());
    scalars_.insert(scalars_.end(), scalars.begin(), scalars.end());
    call.units = std::max(kernel.units(sizes.data()), 0LL);
    step.elements += call.elements;
    calls_.push_back(call);
    step.last = calls_.size();
}

std::size_t Program::parallel_steps() const {
    const std::shared_ptr<const Plan> current = plan();
    return static_cast<std::size_t>(std::count_if(current->parts.begin(), current->parts.end(), [](int p) { return p > 1; }));
}

std::shared_ptr<const Program::Plan> Program::plan() const {
    std::lock_guard<std::mutex> lock(plan_mutex_);
    const std::uint64_t generation = threads_generation();
    if (plan_ != nullptr && plan_->generation == generation) return plan_;
    auto fresh = std::make_shared<Plan>();
    fresh->generation = generation;
    for (const Step& step : steps_) {
        const long long share = step.elements >= kElementsToStream ? kPartsOfStream : kPartsPerThread;
        const long long most = threads() > 1 ? threads() * share : 1;
        const long long worth = step.library ? 1 : std::max(step.elements / kElementsPerPart, 1LL);
        divide(step, static_cast<int>(std::min(most, worth)), *fresh);
    }
    fresh->wake.resize(steps_.size());
    long long coming = 0;
    for (std::size_t s = steps_.size(); s-- > 0;) {
        if (fresh->parts[s] > 1 || steps_[s].library) coming += steps_[s].elements;
        fresh->wake[s] = coming >= kElementsToWake;
    }
    plan_ = std::move(fresh);
    return plan_;
}

// Cuts the units of all calls of a step into `parts` equal shares, each call weighted by its elements.
void Program::divide(const Step& step, int parts, Plan& plan) const {
    const long double share = static_cast<long double>(step.elements) / parts;
    const long long grain = step.kernel.grain;
    const std::size_t first = plan.borders.size();
    plan.first_border.push_back(first);
    plan.borders.push_back(plan.chunks.size());
    for (int part = 0; part < parts; ++part) {
        long double before = 0;  // elements of the calls so far
        for (std::size_t c = step.first; c < step.last; ++c) {
            const Call& call = calls_[c];
            const auto border = [&](int p) -> long long {
                if (p == parts) return call.units;
                const long double inside = (share * p - before) / static_cast<long double>(call.elements);
                if (inside <= 0) return 0;
                if (inside >= 1) return call.units;
                const auto grains = static_cast<long long>(inside * static_cast<long double>(call.units) / grain + 0.5L);
                return std::min(grains * grain, call.units);
            };
            const long long begin = part == 0 ? 0 : border(part);
            const long long end = border(part + 1);
            if (begin < end) plan.chunks.push_back(Chunk{c, begin, end});
            before += static_cast<long double>(call.elements);
        }
        plan.borders.push_back(plan.chunks.size());
    }
    // A step whose work could not be cut (one unit, a coarse grain) must not pay for waking threads.
    int busy = 0;
    for (int part = 0; part < parts; ++part) busy += plan.borders[first + part] < plan.borders[first + part + 1];
    plan.parts.push_back(busy > 1 ? parts : 1);
    if (busy <= 1) {
        plan.borders.resize(first + 2);
        plan.borders[first + 1] = plan.chunks.size();
    }
}

struct Program::Region {
    const Program* program;
    const Step* step;
    const Chunk* chunks;
    const std::size_t* borders;
    void** buffers;
    const Scalar* scalars;
};

void Program::run_part(void* context, int part) {
    const Region& region = *static_cast<const Region*>(context);
    const Program& program = *region.program;
    for (std::size_t k = region.borders[part]; k < region.borders[part + 1]; ++k) {
        const Chunk& chunk = region.chunks[k];
        const Call& call = program.calls_[chunk.call];
        region.step->kernel.run(region.buffers + call.buffers, program.sizes_.data() + call.sizes,
                                region.scalars + call.scalars, chunk.begin, chunk.end);
    }
}

void Program::run_library(const Step& step, void* const* buffers, bool changed) {
    std::string message;
    void* scratch = step.scratch ? buffers[step.library->buffers()] : nullptr;
    if (!step.library->run(buffers, scratch, changed, message)) {
        throw Failure("KernelError", "[run] a step of a library failed: " + message);
    }
}

void Program::run(void* const* table, std::size_t count, const Scalar* scalars, bool changed) const {
    if (count < handles_) {
        throw Failure("ArgumentError", "[run] the program uses " + std::to_string(handles_) + " handles: " +
                                           std::to_string(count) + " given");
    }
    // Arguments are laid out per call once, in memory that this thread keeps for its next run.
    static thread_local std::vector<void*> buffers;
    static thread_local std::vector<Scalar> values;
    buffers.resize(slots_.size());
    values.resize(scalars_.size());
    for (std::size_t i = 0; i < slots_.size(); ++i) buffers[i] = table[slots_[i]];
    for (std::size_t i = 0; i < scalars_.size(); ++i) values[i] = scalars[scalars_[i]];
    Pool::instance().check(buffers.data(), buffers.size());
    const std::shared_ptr<const Plan> current = plan();
    Region region{this, nullptr, current->chunks.data(), nullptr, buffers.data(), values.data()};
    for (std::size_t s = 0; s < steps_.size(); ++s) {
        const Step& step = steps_[s];
        if (step.constant && !changed) continue;
        if (step.library) {
            run_library(step, buffers.data() + step.buffers, changed);
            continue;
        }
        region.step = &step;
        region.borders = current->borders.data() + current->first_border[s];
        if (current->parts[s] == 1) {
            run_part(&region, 0);
        } else {
            const bool streams = step.elements >= kElementsToStream;
            parallel(current->parts[s], current->wake[s] != 0, streams, run_part, &region);
        }
    }
}

}  // namespace metafuse_cpu
