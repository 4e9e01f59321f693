#include "description.hpp"

#include <algorithm>
#include <numeric>

namespace metafuse_onednn {
namespace {

void append(std::string& key, const void* bytes, std::size_t count) {
    key.append(static_cast<const char*>(bytes), count);
}

template <class Number>
void append(std::string& key, Number number) {
    append(key, &number, sizeof number);
}

void append(std::string& key, const dims_t& numbers) {
    append(key, numbers.size());
    append(key, numbers.data(), numbers.size() * sizeof(dnnl_dim_t));
}

void append(std::string& key, const Tensor& tensor) {
    append(key, static_cast<int>(tensor.type));
    append(key, tensor.dims);
    append(key, tensor.strides);
}

// Order of dimensions from the slowest to the fastest.
std::vector<std::size_t> order(std::size_t rank, bool channels_last) {
    std::vector<std::size_t> dimensions(rank);
    std::iota(dimensions.begin(), dimensions.end(), std::size_t{0});
    if (channels_last && rank > 2) std::rotate(dimensions.begin() + 1, dimensions.begin() + 2, dimensions.end());
    return dimensions;
}

bool same_where_it_matters(const Tensor& tensor, const dims_t& strides) {
    for (std::size_t d = 0; d < tensor.dims.size(); ++d) {
        if (tensor.dims[d] != 1 && tensor.strides[d] != strides[d]) return false;
    }
    return true;
}

}  // namespace

std::string Operation::key() const {
    std::string key;
    append(key, static_cast<int>(kind));
    append(key, first);
    append(key, second);
    append(key, result);
    append(key, groups);
    for (const dims_t* numbers : {&stride, &dilation, &before, &after}) append(key, *numbers);
    append(key, scale);
    append(key, constant);
    append(key, static_cast<int>(computed));
    append(key, operands.size());
    for (const Tensor& operand : operands) append(key, operand);
    for (const Post& post : posts) {
        key += post.kind + '\0';
        append(key, post.operand);
        append(key, post.alpha);
        append(key, post.beta);
    }
    return key;
}

dims_t dense_strides(const dims_t& dims, bool channels_last) {
    dims_t strides(dims.size());
    dnnl_dim_t step = 1;
    const std::vector<std::size_t> dimensions = order(dims.size(), channels_last);
    for (auto d = dimensions.rbegin(); d != dimensions.rend(); ++d) {
        strides[*d] = step;
        step *= dims[*d];
    }
    return strides;
}

bool channels_last(const Tensor& tensor) {
    return same_where_it_matters(tensor, dense_strides(tensor.dims, true));
}

bool describable(const Tensor& tensor) {
    std::vector<std::pair<dnnl_dim_t, dnnl_dim_t>> dimensions;  // stride, extent
    for (std::size_t d = 0; d < tensor.dims.size(); ++d) {
        if (tensor.dims[d] > 1) dimensions.emplace_back(tensor.strides[d], tensor.dims[d]);
    }
    std::sort(dimensions.begin(), dimensions.end());
    for (std::size_t k = 1; k < dimensions.size(); ++k) {
        if (dimensions[k].first < dimensions[k - 1].first * dimensions[k - 1].second) return false;
    }
    return true;
}

Tensor canonical(const Tensor& tensor, bool image) {
    Tensor answer = tensor;
    for (bool last : {true, false}) {
        if (last && !image) continue;
        const dims_t dense = dense_strides(tensor.dims, last);
        if (same_where_it_matters(tensor, dense)) {
            answer.strides = dense;
            return answer;
        }
    }
    // Dimensions of extent 1 count as the slowest ones.
    dnnl_dim_t whole = 1;
    for (std::size_t d = 0; d < tensor.dims.size(); ++d) {
        if (tensor.dims[d] != 1) whole = std::max(whole, tensor.dims[d] * tensor.strides[d]);
    }
    for (std::size_t d = 0; d < tensor.dims.size(); ++d) {
        if (tensor.dims[d] == 1) answer.strides[d] = whole;
    }
    return answer;
}

}  // namespace metafuse_onednn
