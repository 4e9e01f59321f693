// The second operand in the format that a primitive wants, once per change or once per run.
#pragma once

#include "recipe.hpp"

namespace metafuse_onednn {

// Adds what brings the buffer of the second operand, described as `given`, into `wanted`; answers the item to use. `scale_dims`: extents of the
// scale vector beside those of `given`, 1 where it is broadcast. -1 where oneDNN can't.
int pack(Recipe& recipe, const Operation& operation, const desc_t& given, const desc_t& wanted, const dims_t& scale_dims);

}  // namespace metafuse_onednn
