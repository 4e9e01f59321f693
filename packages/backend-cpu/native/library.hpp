// What the runtime and an extension that brings a vendor's library have in common. The runtime knows of a library only that it has
// steps that can be run; the library gets memory and threads from the runtime. Neither includes the other's headers.
//
// Both are built together, from one tree and with one compiler, so C++ types may cross the border. A step travels to the
// runtime in a capsule named kStepCapsule that points to a std::shared_ptr<LibraryStep>; the runtime's services are
// the capsule `_native.runtime`, named kRuntimeCapsule.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace metafuse_cpu {

class LibraryStep {
public:
    virtual ~LibraryStep() = default;
    // How many buffers a run takes.
    virtual std::size_t buffers() const = 0;
    // Runs on the calling thread and the runtime's helpers. `scratch`: as many bytes as the step asked for, or nullptr.
    // `changed`: constant operands differ from those of the last run, or this is the first. May be called from several
    // threads at once. Answers false with a message where it failed.
    virtual bool run(void* const* buffers, void* scratch, bool changed, std::string& message) noexcept = 0;
};

// The runtime's services. A region is one body that `members` threads run at the same time with numbers 0 .. members-1;
// the caller is number 0, between begin_region and end_region, and the body is called for the others.
struct Runtime {
    int (*threads)();
    std::uint64_t (*threads_generation)();
    // How many members a region may have, at most threads(): as many threads as there really are.
    int (*members)();
    void (*begin_region)(int members, void (*body)(void* context, int number), void* context);
    void (*end_region)();
    // Of the pool; nullptr where there is none left.
    void* (*allocate)(std::size_t bytes);
    void (*release)(void* block);
};

constexpr const char* kStepCapsule = "metafuse_backend_cpu.step";
constexpr const char* kRuntimeCapsule = "metafuse_backend_cpu._native.runtime";

}  // namespace metafuse_cpu
