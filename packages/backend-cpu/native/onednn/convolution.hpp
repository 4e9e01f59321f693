// The parties of a convolution and how they are brought to primitives: what convolution.cpp and pointwise.cpp share.
#pragma once

#include <memory>

#include "recipe.hpp"

namespace metafuse_onednn {

// The three parties in oneDNN's terms, whatever the kind: the weight has a dimension of groups where there are several.
struct Parties {
    Tensor image, weight, output;
    dnnl_dim_t offset = 0;  // of the image's first element, where it is cropped
    dims_t stride, gaps, before, after;
};

// Image and output of so many bytes together are more than caches hold.
constexpr dnnl_dim_t kManyBytes = 24 << 20;

// The item of a party that is read, in the layout `wanted`: its buffer, or a copy made in every run.
int brought(Recipe& recipe, int number, const Tensor& given, const desc_t& wanted, dnnl_dim_t offset = 0);

// The weight's gradient of a convolution by 1x1 as a matrix product, where that is faster; nullptr where it isn't.
std::unique_ptr<Recipe> pointwise_weight_recipe(const Operation& operation, const Parties& parties);

}  // namespace metafuse_onednn
