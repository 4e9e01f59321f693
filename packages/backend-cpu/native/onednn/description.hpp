// What is asked of oneDNN, in its own terms: a contraction on strided operands and what follows it. Mirrors LibraryOp of
// metafuse.backend.library; bindings.cpp makes it from one. Pure data, no primitive is made here.
#pragma once

#include <string>
#include <vector>

#include <oneapi/dnnl/dnnl.hpp>

namespace metafuse_onednn {

using dims_t = dnnl::memory::dims;
using desc_t = dnnl::memory::desc;

enum class Kind { matmul, convolution, convolution_data, convolution_weight };

struct Tensor {
    dnnl::memory::data_type type = dnnl::memory::data_type::undef;
    dims_t dims;
    dims_t strides;  // in elements

    desc_t desc() const { return desc_t(dims, type, strides); }
    // The same elements in another type.
    desc_t desc(dnnl::memory::data_type other) const { return desc_t(dims, other, strides); }
};

struct Post {
    std::string kind;
    int operand = -1;
    float alpha = 0;
    float beta = 0;
};

// Buffers of a run: 0 first, 1 second (the other way round where `turned`), 2 result, then scale (if any), then operands.
struct Operation {
    Kind kind = Kind::matmul;
    Tensor first, second, result;
    dnnl_dim_t groups = 1;
    dims_t stride, dilation, before, after;
    bool scale = false;
    std::vector<Tensor> operands;
    std::vector<Post> posts;
    bool constant = false;
    dnnl::memory::data_type computed = dnnl::memory::data_type::f32;  // the type of what is multiplied
    bool turned = false;  // first and second have changed places: see matmul.cpp

    int first_buffer() const { return turned ? 1 : 0; }
    int second_buffer() const { return turned ? 0 : 1; }
    int operand_buffer(int operand) const { return 3 + (scale ? 1 : 0) + operand; }
    std::size_t buffers() const { return 3 + (scale ? 1 : 0) + operands.size(); }
    // The type in which primitives make the result: its own if they can.
    dnnl::memory::data_type made() const {
        return result.type == computed ? computed : dnnl::memory::data_type::f32;
    }
    // Equal operations have equal keys.
    std::string key() const;
};

// The same view with strides of dimensions of extent 1 made those of a dense layout, in which libraries recognise formats:
// channels last if it can be read as that, else in the given order of strides.
Tensor canonical(const Tensor& tensor, bool image);
// Whether every element is apart from the others and `dims` in the order of channels last without gaps.
bool channels_last(const Tensor& tensor);
// Whether oneDNN can describe the view: each dimension's step spans the whole of the next faster one.
bool describable(const Tensor& tensor);
// Strides of the dense layout of `dims` in which the last dimension, or the channels, vary fastest.
dims_t dense_strides(const dims_t& dims, bool channels_last);

}  // namespace metafuse_onednn
