// Rows of elements of any floating point type as float32, and back with one rounding to nearest: what copies are made of.
#pragma once

#include <cstddef>

#include "description.hpp"

namespace metafuse_onednn {

// Steps count elements of the 16- or 32-bit type.
using Widen = void (*)(const char* from, dnnl_dim_t step, float* to, std::size_t count);
using Narrow = void (*)(const float* from, char* to, dnnl_dim_t step, std::size_t count);

// Whether this processor has what the others need.
bool can_widen();
// nullptr for other types.
Widen widener(dnnl::memory::data_type kind);
Narrow narrower(dnnl::memory::data_type kind);
// Eight rows of eight words become eight columns; steps count words.
void turn8(const float* from, dnnl_dim_t from_step, float* to, dnnl_dim_t to_step);

}  // namespace metafuse_onednn
