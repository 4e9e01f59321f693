// What follows a contraction: fused into its primitive as far as oneDNN can, else as primitives of its own on the stored
// result.
#pragma once

#include <vector>

#include "recipe.hpp"

namespace metafuse_onednn {

// Attributes of a contraction and the memory that they ask for at run time.
struct Epilogue {
    dnnl::primitive_attr attributes;
    std::vector<std::pair<int, int>> arguments;  // DNNL_ARG_..., operand
    int bias = -1;                               // the operand that is the bias, or none
    dnnl::memory::data_type bias_type = dnnl::memory::data_type::f32;
};

// All of `operation.posts` in one primitive. The result has the dims of operation.result.
// `with_bias`: whether the primitive takes a bias: a first addition of a vector along dimension `channel` becomes one.
Epilogue fused(const Operation& operation, bool with_bias, std::size_t channel);
// No post-operation at all.
Epilogue bare(const Operation& operation);
// Operand number `operand` with the rank of the result, and extent 1 where it is broadcast.
Tensor operand_of(const Operation& operation, int operand);
// The same as primitives that follow, in place on buffer 2. Answers false where oneDNN lacks one.
bool add_separately(Recipe& recipe, const Operation& operation);

}  // namespace metafuse_onednn
