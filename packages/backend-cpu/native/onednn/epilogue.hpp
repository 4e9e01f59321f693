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
Epilogue bare();
// Operand number `operand` with the rank of the result, and extent 1 where it is broadcast.
Tensor operand_of(const Operation& operation, int operand);
// The item of an operand in the type that primitives take: see `operand_type`.
int operand_item(Recipe& recipe, const Operation& operation, int operand);
// Adds the arguments of a fused epilogue to those of its primitive. False where an operand can't be brought.
bool add_arguments(Recipe& recipe, const Operation& operation, const Epilogue& epilogue, const desc_t& bias,
                   std::vector<std::pair<int, int>>& arguments);
// What a primitive finds at `place` is brought to the result's buffer, which `given` describes; where `apart`, the post-operations run on the way, as
// primitives of their own. Answers false where oneDNN lacks one.
bool deliver(Recipe& recipe, const Operation& operation, const Tensor& given, int place, bool apart);

}  // namespace metafuse_onednn
