// The one exception type of the native runtime. `kind` is the name of a class in metafuse.errors; bindings.cpp turns it
// into that Python exception. Nothing else is thrown on purpose, and no exception ever passes through a kernel.
#pragma once

#include <exception>
#include <string>
#include <utility>

namespace metafuse_cpu {

class Failure : public std::exception {
public:
    Failure(const char* kind, std::string message) : kind_(kind), message_(std::move(message)) {}
    const char* what() const noexcept override { return message_.c_str(); }
    const char* kind() const noexcept { return kind_; }

private:
    const char* kind_;
    std::string message_;
};

}  // namespace metafuse_cpu
