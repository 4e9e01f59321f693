// A user's own C++ snippet, compiled by codeop.py's wrapper. Its interface:
//   int SYMBOL_snippet(void* const* buffers, const long long* shapes_in, long long* shapes_out, const char* const* names,
//                      const double* values, long long count, int threads, char* message, long long capacity);
//   const long long SYMBOL_signature[] = {inputs, outputs, rank and itemsize of each input, then of each output};
// It answers 0, or 1 with a message; exceptions of user code are caught inside it.
//   SnippetServices SYMBOL_services;  // only where its OpenMP regions run on the runtime's threads (code_threads.py)
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace metafuse_cpu {

// As in library.hpp; filled in when the snippet is found.
struct SnippetServices {
    int (*members)();
    void (*begin_region)(int members, void (*body)(void* context, int number), void* context);
    void (*end_region)();
};

class Snippet {
public:
    using Array = std::pair<void*, std::vector<long long>>;
    using Run = int (*)(void* const*, const long long*, long long*, const char* const*, const double*, long long, int,
                        char*, long long);

    Snippet(std::string symbol, void* run, const long long* signature);
    // Runs it and answers the final shapes of the outputs, each of which begins that many bytes into its buffer (0 where
    // offsets are missing). Throws ArgumentError, BackendError or KernelError.
    std::vector<std::vector<long long>> run(const std::vector<Array>& inputs, const std::vector<Array>& outputs,
                                            const std::map<std::string, double>& data,
                                            const std::vector<std::size_t>& offsets) const;

private:
    void check(const std::vector<Array>& arrays, const std::vector<std::size_t>& offsets, const char* role,
               std::size_t first, std::vector<void*>& buffers, std::vector<long long>& shapes) const;

    std::string symbol_;
    Run run_;
    std::vector<std::pair<long long, long long>> arrays_;  // rank, itemsize
    std::size_t inputs_ = 0;
    std::size_t outputs_ = 0;
};

}  // namespace metafuse_cpu
