#include "packing.hpp"

namespace metafuse_onednn {
namespace {

int scaled(Recipe& recipe, const Operation& operation, const desc_t& given, const desc_t& wanted, const dims_t& scale_dims) {
    const desc_t factors(scale_dims, dnnl::memory::data_type::f32, dense_strides(scale_dims, false));
    const desc_t any(given.get_dims(), given.get_data_type(), dnnl::memory::format_tag::any);
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    const dnnl::binary::primitive_desc description(engine(), dnnl::algorithm::binary_mul, given, factors, any, attributes,
                                                   true);
    if (!description) return -1;
    const desc_t made = description.dst_desc();
    const bool stays = operation.constant && made == wanted;
    const int target = stays ? recipe.kept(made) : recipe.scratch(made);
    recipe.add(dnnl::binary(description), description,
               {{DNNL_ARG_SRC_0, recipe.buffer(1, given)}, {DNNL_ARG_SRC_1, recipe.buffer(3, factors)}, {DNNL_ARG_DST, target}},
               operation.constant);
    return target;
}

}  // namespace

int pack(Recipe& recipe, const Operation& operation, const desc_t& given, const desc_t& wanted, const dims_t& scale_dims) {
    const int source =
        operation.scale ? scaled(recipe, operation, given, wanted, scale_dims) : recipe.buffer(operation.second_buffer(), given);
    if (source < 0 || recipe.items[static_cast<std::size_t>(source)].desc == wanted) return source;
    const int target = operation.constant ? recipe.kept(wanted) : recipe.scratch(wanted);
    recipe.reorder(source, target, operation.constant);
    return target;
}

}  // namespace metafuse_onednn
