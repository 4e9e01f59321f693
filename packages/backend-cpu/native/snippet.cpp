#include "snippet.hpp"

#include <climits>

#include "failure.hpp"
#include "memory.hpp"
#include "parallel.hpp"

namespace metafuse_cpu {

Snippet::Snippet(std::string symbol, void* run, const long long* signature)
    : symbol_(std::move(symbol)),
      run_(reinterpret_cast<Run>(run)),
      inputs_(static_cast<std::size_t>(signature[0])),
      outputs_(static_cast<std::size_t>(signature[1])) {
    for (std::size_t i = 0; i < inputs_ + outputs_; ++i) {
        arrays_.emplace_back(signature[2 + 2 * i], signature[3 + 2 * i]);
    }
}

void Snippet::check(const std::vector<Array>& arrays, const std::vector<std::size_t>& offsets, const char* role,
                    std::size_t first, std::vector<void*>& buffers, std::vector<long long>& shapes) const {
    for (std::size_t k = 0; k < arrays.size(); ++k) {
        const std::string name = role + std::to_string(k);
        const auto& [rank, itemsize] = arrays_[first + k];
        const std::vector<long long>& shape = arrays[k].second;
        if (static_cast<long long>(shape.size()) != rank) {
            throw Failure("ArgumentError", "[code] " + name + " must have " + std::to_string(rank) + " dimensions: " +
                                               std::to_string(shape.size()) + " given");
        }
        unsigned long long bytes = static_cast<unsigned long long>(itemsize);
        for (long long extent : shape) {
            if (extent < 0 || extent > INT_MAX) {
                throw Failure("ArgumentError", "[code] a dimension of " + name + " must lie in 0.." +
                                                   std::to_string(INT_MAX) + ": " + std::to_string(extent));
            }
            if (__builtin_mul_overflow(bytes, static_cast<unsigned long long>(extent), &bytes)) bytes = ULLONG_MAX / 2;
        }
        const std::size_t offset = k < offsets.size() ? offsets[k] : 0;
        const std::size_t whole = Pool::instance().capacity(arrays[k].first);
        const std::size_t there = offset < whole ? whole - offset : 0;
        if (bytes > there) {
            throw Failure("ArgumentError", "[code] the buffer of " + name + " is too small: " + std::to_string(bytes) +
                                               " bytes needed, " + std::to_string(there) + " there");
        }
        buffers.push_back(static_cast<char*>(arrays[k].first) + offset);
        shapes.insert(shapes.end(), shape.begin(), shape.end());
    }
}

std::vector<std::vector<long long>> Snippet::run(const std::vector<Array>& inputs, const std::vector<Array>& outputs,
                                                 const std::map<std::string, double>& data,
                                                 const std::vector<std::size_t>& offsets) const {
    if (inputs.size() != inputs_ || outputs.size() != outputs_) {
        throw Failure("ArgumentError", "[code] the snippet takes " + std::to_string(inputs_) + " inputs and " +
                                           std::to_string(outputs_) + " outputs: " + std::to_string(inputs.size()) +
                                           " and " + std::to_string(outputs.size()) + " given");
    }
    std::vector<void*> buffers;
    std::vector<long long> shapes_in, shapes_out;
    check(inputs, {}, "in", 0, buffers, shapes_in);
    check(outputs, offsets, "out", inputs_, buffers, shapes_out);
    std::vector<const char*> names;
    std::vector<double> values;
    for (const auto& [name, value] : data) {
        names.push_back(name.c_str());
        values.push_back(value);
    }
    char message[2048] = "";
    const int status = run_(buffers.data(), shapes_in.data(), shapes_out.data(), names.data(), values.data(),
                            static_cast<long long>(names.size()), threads_for_snippet(), message, sizeof message);
    if (status != 0) throw Failure("KernelError", std::string("[code] the snippet failed: ") + message);
    std::vector<std::vector<long long>> answer;
    std::size_t at = 0;
    for (std::size_t k = 0; k < outputs_; ++k) {
        const auto rank = static_cast<std::size_t>(arrays_[inputs_ + k].first);
        answer.emplace_back(shapes_out.begin() + static_cast<long>(at), shapes_out.begin() + static_cast<long>(at + rank));
        at += rank;
    }
    return answer;
}

}  // namespace metafuse_cpu
