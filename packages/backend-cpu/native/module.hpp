// Compiled code made callable: a shared object held in memory becomes symbols. Modules are never unloaded: user snippets may
// leave thread-local objects and OpenMP threads behind that point into them, and a kernel is small.
#pragma once

#include <cstddef>
#include <string>

namespace metafuse_cpu {

class Module {
public:
    // Loads from memory, or, without `in_memory` or where the system can't, through a temporary file. Throws BackendError
    // with the loader's words.
    Module(const char* bytes, std::size_t size, bool in_memory = true);
    // The address of `symbol`, or nullptr.
    void* find(const std::string& symbol) const;

private:
    void* library_ = nullptr;
};

}  // namespace metafuse_cpu
