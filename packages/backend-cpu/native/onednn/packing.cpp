#include "packing.hpp"

namespace metafuse_onednn {

int pack(Recipe& recipe, const Operation& operation, const desc_t& given, const desc_t& wanted, const dims_t& scale_dims) {
    const int source = recipe.buffer(operation.second_buffer(), given);
    if (!operation.scale && given == wanted) return source;
    const bool once = operation.constant;
    const int target = once ? recipe.kept(wanted) : recipe.scratch(wanted);
    if (!operation.scale) return recipe.reorder(source, target, once) ? target : -1;
    const int factors = recipe.buffer(3, desc_t(scale_dims, dnnl::memory::data_type::f32, dense_strides(scale_dims, false)));
    if (recipe.reorder(source, target, once, factors)) return target;
    const dims_t dims = given.get_dims();
    const int between = recipe.scratch(desc_t(dims, wanted.get_data_type(), dense_strides(dims, false)));
    return recipe.reorder(source, between, once, factors) && recipe.reorder(between, target, once) ? target : -1;
}

}  // namespace metafuse_onednn
