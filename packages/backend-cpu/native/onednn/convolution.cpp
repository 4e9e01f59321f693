// Convolutions: forward and both backward ones, as recipes.

#include <algorithm>
#include <array>
#include <utility>

#include "convolution.hpp"
#include "epilogue.hpp"
#include "packing.hpp"
#include "recipe.hpp"

namespace metafuse_onednn {
namespace {

using type_t = dnnl::memory::data_type;
// Bytes between points that fall onto the same few lines of a cache, and what a core's own cache holds.
constexpr dnnl_dim_t kCacheStep = 2048, kNearCache = 1 << 19;
constexpr auto kDirect = dnnl::algorithm::convolution_direct;

Tensor grouped(const Tensor& weight, dnnl_dim_t groups) {
    if (groups == 1) return canonical(weight, false);
    Tensor answer = weight;
    answer.dims[0] /= groups;
    answer.dims.insert(answer.dims.begin(), groups);
    answer.strides.insert(answer.strides.begin(), answer.dims[1] * weight.strides[0]);
    return canonical(answer, false);
}

// False where extents do not belong together or the image would have to be cropped where it is written.
bool arrange(const Operation& operation, Parties& parties) {
    const bool data = operation.kind == Kind::convolution_data, filter = operation.kind == Kind::convolution_weight;
    parties.image = data ? operation.result : operation.first;
    parties.weight = grouped(filter ? operation.result : operation.second, operation.groups);
    parties.output = canonical(data ? operation.first : filter ? operation.second : operation.result, true);
    parties.stride = operation.stride;
    parties.before = operation.before;
    parties.after = operation.after;
    const std::size_t kernel = parties.weight.dims.size() - operation.stride.size();
    for (std::size_t d = 0; d < operation.stride.size(); ++d) {
        for (dims_t* side : {&parties.before, &parties.after}) {
            const dnnl_dim_t cropped = -(*side)[d];
            if (cropped <= 0) continue;
            if (data) return false;
            if (side == &parties.before) parties.offset += cropped * parties.image.strides[2 + d];
            parties.image.dims[2 + d] -= cropped;
            (*side)[d] = 0;
        }
        parties.gaps.push_back(operation.dilation[d] - 1);
        const dnnl_dim_t range = (parties.weight.dims[kernel + d] - 1) * operation.dilation[d] + 1;
        const dnnl_dim_t room = parties.image.dims[2 + d] + parties.before[d] + parties.after[d] - range;
        if (parties.image.dims[2 + d] <= 0 || room < 0) return false;
        if (room / parties.stride[d] + 1 != parties.output.dims[2 + d]) return false;
    }
    parties.image = canonical(parties.image, true);
    return true;
}

desc_t any(const Tensor& tensor, type_t type) { return desc_t(tensor.dims, type, dnnl::memory::format_tag::any); }

// The library's layout in blocks of a vector's channels, where it has kernels for it and all blocks are full: one filter per channel of
// two-dimensional images, or no groups.
dnnl::memory::format_tag blocks(const Parties& p, type_t type) {
    using tag = dnnl::memory::format_tag;
    constexpr int kWide = static_cast<int>(dnnl::cpu_isa::avx512_core);  // a set of bits, those of narrower processors among them
    static const bool wide = (static_cast<int>(dnnl::get_effective_cpu_isa()) & kWide) == kWide;
    const dims_t& weight = p.weight.dims;
    const std::size_t spatial = p.stride.size();
    const bool single = weight.size() == spatial + 3 && weight[1] == 1 && weight[2] == 1 && spatial == 2;
    const bool full = p.image.dims[1] % 16 == 0 && p.output.dims[1] % 16 == 0;
    if (!wide || type != type_t::f32 || !full || !(single || weight.size() == spatial + 2)) return tag::any;
    return spatial == 1 ? tag::nCw16c : spatial == 2 ? tag::nChw16c : tag::nCdhw16c;
}

// Channels last, or in blocks: left to itself the library often asks for channels last, to which copies are slower.
desc_t image_desc(const Parties& p, const Tensor& tensor, type_t type, bool last) {
    if (last) return desc_t(tensor.dims, type, dense_strides(tensor.dims, true));
    return desc_t(tensor.dims, type, blocks(p, type));
}

dnnl_dim_t bytes_of(const Tensor& tensor, type_t type) {
    dnnl_dim_t bytes = static_cast<dnnl_dim_t>(dnnl::memory::data_type_size(type));
    for (const dnnl_dim_t extent : tensor.dims) bytes *= extent;
    return bytes;
}

// Kernels for narrow groups visit point after point, a step of all channels apart: steps that are multiples of 2 KiB meet in a few lines of the cache.
bool steps_collide(const Operation& operation, const Parties& parties, bool large) {
    if (operation.groups == 1) return false;
    const dims_t& image = parties.image.dims;
    const dnnl_dim_t channels = image[1] / operation.groups;
    const dnnl_dim_t step = image[1] * static_cast<dnnl_dim_t>(sizeof(float));
    const dnnl_dim_t each = bytes_of(parties.image, operation.computed) / image[0];
    if (channels < 8 || channels > 16 || step % kCacheStep != 0 || each <= kNearCache) return false;
    if (operation.kind == Kind::convolution || parties.stride[0] == 1) return true;
    return step % (2 * kCacheStep) == 0 || (large && channels == 16);
}

// Whether, for float32, the library's own layout is so much faster that copies of image and output there pay. Measured, see
// docs/decisions/0009-onednn.md.
bool copies_pay(const Operation& operation, const Parties& parties) {
    if (parties.stride.size() != 2 || operation.computed != type_t::f32) return false;
    const bool large = bytes_of(parties.image, operation.computed) + bytes_of(parties.output, operation.computed) >= kManyBytes;
    if (operation.kind != Kind::convolution_weight) return steps_collide(operation, parties, large);
    const dims_t& image = parties.image.dims;
    const dnnl_dim_t extent = std::min(image[2], image[3]), channels = image[1] / operation.groups;
    const bool strided = parties.stride[0] > 1 && parties.weight.dims.back() > 1;
    if (operation.groups > 1) return extent >= 14 && (channels >= 16 || (channels >= 8 && large));
    return (strided && channels >= 96) || (channels >= 64 && extent >= 112 && parties.weight.dims[2] > 1);
}

// Layouts of image and output to try, best first: channels last or not. What is channels last already is used as it is;
// where both have to be copied anyway, the library chooses.
std::array<bool, 2> layouts(const Operation& operation, const Parties& parties) {
    const bool is_last = channels_last(parties.image) || channels_last(parties.output);
    const bool last = is_last && !copies_pay(operation, parties);
    return {last, !last};
}

dnnl::convolution_forward::primitive_desc forward(const Parties& p, type_t type, const desc_t& image, const desc_t& output,
                                                  const desc_t* bias, dnnl::prop_kind kind,
                                                  const dnnl::primitive_attr& attributes) {
    const desc_t weight = any(p.weight, type);
    if (bias != nullptr) {
        return {engine(), kind, kDirect, image, weight, *bias, output, p.stride, p.gaps, p.before, p.after, attributes, true};
    }
    return {engine(), kind, kDirect, image, weight, output, p.stride, p.gaps, p.before, p.after, attributes, true};
}

// What gradients are made for.
dnnl::convolution_forward::primitive_desc hint(const Parties& p, type_t type, bool last, const dnnl::primitive_attr& attributes) {
    return forward(p, type, image_desc(p, p.image, type, last), image_desc(p, p.output, type, last), nullptr,
                   dnnl::prop_kind::forward_training, attributes);
}

// The item of the result, in the layout `made`.
int result_place(Recipe& recipe, const Tensor& given, const desc_t& made) {
    return given.desc() == made ? recipe.buffer(2, made) : recipe.scratch(made);
}

dims_t scale_dims(const Parties& parties, dnnl_dim_t groups) {
    dims_t dims(parties.weight.dims.size(), 1);
    for (std::size_t d = 0; d < (groups == 1 ? 1u : 2u); ++d) dims[d] = parties.weight.dims[d];
    return dims;
}

bool has_full_operand(const Operation& operation) {
    for (const Post& post : operation.posts) {
        if (post.operand < 0) continue;
        int extents = 0;
        for (dnnl_dim_t extent : operand_of(operation, post.operand).dims) extents += extent > 1;
        if (extents > 1) return true;
    }
    return false;
}

std::unique_ptr<Recipe> forward_recipe(const Operation& operation, const Parties& p, bool last, bool fuse) {
    const type_t type = operation.computed;
    const Epilogue epilogue = fuse ? fused(operation, true, 1) : bare();
    const desc_t bias({p.output.dims[1]}, epilogue.bias_type, dims_t{1});
    const auto description = forward(p, type, image_desc(p, p.image, type, last), image_desc(p, p.output, operation.made(), last),
                                     epilogue.bias < 0 ? nullptr : &bias, dnnl::prop_kind::forward_inference,
                                     epilogue.attributes);
    if (!good(description)) return nullptr;
    const desc_t made = description.dst_desc();
    // A full operand comes in the layout of the result that was asked for.
    if (fuse && made != p.output.desc(operation.made()) && has_full_operand(operation)) return nullptr;
    auto recipe = std::make_unique<Recipe>();
    recipe->about = description.impl_info_str();
    const int weight = pack(*recipe, operation, p.weight.desc(), description.weights_desc(), scale_dims(p, operation.groups));
    const int image = brought(*recipe, 0, p.image, description.src_desc(), p.offset);
    if (weight < 0 || image < 0) return nullptr;
    const int place = result_place(*recipe, p.output, made);
    std::vector<std::pair<int, int>> arguments = {{DNNL_ARG_SRC, image}, {DNNL_ARG_WEIGHTS, weight}, {DNNL_ARG_DST, place}};
    if (!add_arguments(*recipe, operation, epilogue, bias, arguments)) return nullptr;
    recipe->add(dnnl::convolution_forward(description), description, std::move(arguments));
    if (!deliver(*recipe, operation, p.output, place, !fuse)) return nullptr;
    recipe->tell();
    return recipe;
}

std::unique_ptr<Recipe> data_recipe(const Operation& operation, const Parties& p, bool last) {
    const type_t type = operation.computed;
    const dnnl::primitive_attr attributes = bare().attributes;
    const auto forward_description = hint(p, type, last, attributes);
    if (!forward_description) return nullptr;
    const dnnl::convolution_backward_data::primitive_desc description(
        engine(), kDirect, image_desc(p, p.image, operation.made(), last), any(p.weight, type),
        image_desc(p, p.output, type, last), p.stride, p.gaps, p.before, p.after, forward_description, attributes, true);
    if (!good(description)) return nullptr;
    auto recipe = std::make_unique<Recipe>();
    recipe->about = description.impl_info_str();
    const int weight = pack(*recipe, operation, p.weight.desc(), description.weights_desc(), {});
    const int gradient = brought(*recipe, 0, p.output, description.diff_dst_desc());
    if (weight < 0 || gradient < 0) return nullptr;
    const int place = result_place(*recipe, p.image, description.diff_src_desc());
    recipe->add(dnnl::convolution_backward_data(description), description,
                {{DNNL_ARG_DIFF_DST, gradient}, {DNNL_ARG_WEIGHTS, weight}, {DNNL_ARG_DIFF_SRC, place}});
    if (!deliver(*recipe, operation, p.image, place, true)) return nullptr;
    recipe->tell();
    return recipe;
}

std::unique_ptr<Recipe> weight_recipe(const Operation& operation, const Parties& p, bool last) {
    const type_t type = operation.computed;
    const dnnl::primitive_attr attributes = bare().attributes;
    const auto forward_description = hint(p, type, last, attributes);
    if (!forward_description) return nullptr;
    const dnnl::convolution_backward_weights::primitive_desc description(
        engine(), kDirect, image_desc(p, p.image, type, last), any(p.weight, operation.made()),
        image_desc(p, p.output, type, last), p.stride, p.gaps, p.before, p.after, forward_description, attributes, true);
    if (!good(description)) return nullptr;
    auto recipe = std::make_unique<Recipe>();
    recipe->about = description.impl_info_str();
    const int image = brought(*recipe, 0, p.image, description.src_desc(), p.offset);
    const int gradient = brought(*recipe, 1, p.output, description.diff_dst_desc());
    if (image < 0 || gradient < 0) return nullptr;
    // It meets the images in pieces that lie far apart, block of channels after block.
    const dnnl_dim_t bytes = bytes_of(p.image, type) + bytes_of(p.output, type);
    if (bytes > 8 * kNearCache && bytes < kManyBytes) {
        for (const int item : {image, gradient}) {
            if (recipe->items[static_cast<std::size_t>(item)].where == Recipe::Where::buffer) recipe->foresee(item);
        }
    }
    const int place = result_place(*recipe, p.weight, description.diff_weights_desc());
    recipe->add(dnnl::convolution_backward_weights(description), description,
                {{DNNL_ARG_SRC, image}, {DNNL_ARG_DIFF_DST, gradient}, {DNNL_ARG_DIFF_WEIGHTS, place}});
    if (!deliver(*recipe, operation, p.weight, place, true)) return nullptr;
    recipe->tell();
    return recipe;
}

}  // namespace

int brought(Recipe& recipe, int number, const Tensor& given, const desc_t& wanted, dnnl_dim_t offset) {
    return recipe.converted(recipe.buffer(number, given.desc(), offset), wanted);
}

std::unique_ptr<Recipe> make_convolution(const Operation& operation) {
    Parties parties;
    if (!arrange(operation, parties)) return nullptr;
    if (operation.kind != Kind::convolution && operation.scale) return nullptr;
    if (operation.kind == Kind::convolution_weight) {
        if (!operation.posts.empty()) return nullptr;
        if (auto recipe = pointwise_weight_recipe(operation, parties)) return recipe;
    }
    for (bool fuse : {true, false}) {
        for (const bool last : layouts(operation, parties)) {
            std::unique_ptr<Recipe> recipe;
            if (operation.kind == Kind::convolution) recipe = forward_recipe(operation, parties, last, fuse);
            if (operation.kind == Kind::convolution_data) recipe = data_recipe(operation, parties, last);
            if (operation.kind == Kind::convolution_weight) recipe = weight_recipe(operation, parties, last);
            if (recipe != nullptr) return recipe;
        }
        if (operation.kind != Kind::convolution || operation.posts.empty()) return nullptr;
    }
    return nullptr;
}

}  // namespace metafuse_onednn
