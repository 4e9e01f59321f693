// The gradient of a weight of 1x1: dW = dY^T X over all points of all images. oneDNN's convolution makes it in a layout of
// its own, and bringing a large one back costs as much as the sums; its matrix product writes it where it belongs.

#include <algorithm>

#include "convolution.hpp"
#include "epilogue.hpp"

namespace metafuse_onednn {
namespace {

// Fewer channels of the image are better off with the convolution, unless memory is the limit. Measured, see docs/decisions/0009-onednn.md.
constexpr dnnl_dim_t kFewestChannels = 64;

bool is_pointwise(const Operation& operation, const Parties& parties) {
    if (operation.groups != 1) return false;
    for (std::size_t d = 0; d < parties.stride.size(); ++d) {
        if (parties.weight.dims[2 + d] != 1 || parties.before[d] != 0 || parties.after[d] != 0) return false;
    }
    return true;
}

desc_t dense_last(const Tensor& tensor, dnnl::memory::data_type type) {
    return desc_t(tensor.dims, type, dense_strides(tensor.dims, true));
}

// The points that windows meet, of an image that is strided over.
Tensor met(const Parties& parties) {
    Tensor image = parties.image;
    for (std::size_t d = 0; d < parties.stride.size(); ++d) {
        image.dims[2 + d] = parties.output.dims[2 + d];
        image.strides[2 + d] *= parties.stride[d];
    }
    return canonical(image, true);
}

}  // namespace

std::unique_ptr<Recipe> pointwise_weight_recipe(const Operation& operation, const Parties& parties) {
    if (!is_pointwise(operation, parties)) return nullptr;
    if (!channels_last(parties.image) || !channels_last(parties.output)) return nullptr;
    const Tensor image = met(parties);
    if (!describable(image)) return nullptr;
    const dnnl_dim_t in = image.dims[1], out = parties.output.dims[1], weight_step = parties.weight.strides[1];
    dnnl_dim_t points = image.dims[0];
    for (std::size_t d = 0; d < parties.stride.size(); ++d) points *= image.dims[2 + d];
    const auto bytes = static_cast<dnnl_dim_t>(dnnl::memory::data_type_size(operation.computed)) * points * (in + out);
    if (in < kFewestChannels && bytes < kManyBytes) return nullptr;
    // The first is copied block by block: a narrow one, else the one whose channels are the rows of the weight as it is stored.
    const bool by_columns = weight_step != 1 && parties.weight.strides[0] == 1;
    const bool turned = std::min(in, out) <= kFewestChannels ? in < out : by_columns;
    const dnnl_dim_t rows = turned ? in : out, columns = turned ? out : in;
    const dnnl::memory::data_type type = operation.computed;
    const desc_t first({rows, points}, type, dims_t{1, rows}), second({points, columns}, type, dims_t{columns, 1});
    Tensor given = parties.weight;
    given.dims = {rows, columns};
    given.strides = {turned ? weight_step : parties.weight.strides[0], turned ? parties.weight.strides[0] : weight_step};
    // A weight is small: what lies by columns is made by rows and copied.
    const desc_t made = given.strides[1] == 1 ? given.desc(operation.made()) : desc_t(given.dims, operation.made(), dims_t{columns, 1});
    const dnnl::matmul::primitive_desc description(engine(), first, second, made, bare().attributes, true);
    if (!good(description)) return nullptr;
    auto recipe = std::make_unique<Recipe>();
    recipe->about = std::string(description.impl_info_str()) + " as a product";
    const int pixels = brought(*recipe, 0, image, dense_last(image, type), parties.offset);
    const int gradient = brought(*recipe, 1, parties.output, dense_last(parties.output, type));
    if (pixels < 0 || gradient < 0) return nullptr;
    // The same memory, seen as matrices.
    const int left = recipe->seen_as(turned ? pixels : gradient, first), right = recipe->seen_as(turned ? gradient : pixels, second);
    const int place = made == given.desc() ? recipe->buffer(2, made) : recipe->scratch(made);
    recipe->add(dnnl::matmul(description), description, {{DNNL_ARG_SRC, left}, {DNNL_ARG_WEIGHTS, right}, {DNNL_ARG_DST, place}});
    if (!deliver(*recipe, operation, given, place, false)) return nullptr;
    recipe->tell();
    return recipe;
}

}  // namespace metafuse_onednn
