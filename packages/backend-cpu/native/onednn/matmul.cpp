// Matrix products as recipes.

#include <utility>

#include "epilogue.hpp"
#include "packing.hpp"
#include "recipe.hpp"

namespace metafuse_onednn {
namespace {

Tensor without_broadcast(Tensor tensor) {
    for (std::size_t d = 0; d + 2 < tensor.dims.size(); ++d) {
        if (tensor.strides[d] == 0) tensor.dims[d] = 1;
    }
    return tensor;
}

// Whether dimensions d and d + 1 of a tensor can be read as one.
bool mergeable(const Tensor& tensor, std::size_t d) {
    if (tensor.dims[d] == 1 && tensor.dims[d + 1] == 1) return true;
    return tensor.strides[d] == tensor.dims[d + 1] * tensor.strides[d + 1];
}

// As `mergeable`, for a tensor that is broadcast to `whole`.
bool mergeable(const Tensor& tensor, const Tensor& whole, std::size_t d) {
    const bool all = tensor.dims[d] == whole.dims[d] && tensor.dims[d + 1] == whole.dims[d + 1];
    const bool none = tensor.dims[d] == 1 && tensor.dims[d + 1] == 1;
    return none || (all && mergeable(tensor, d));
}

void merge(Tensor& tensor, std::size_t d) {
    const auto at = static_cast<std::ptrdiff_t>(d);
    tensor.dims[d + 1] *= tensor.dims[d];
    tensor.dims.erase(tensor.dims.begin() + at);
    tensor.strides.erase(tensor.strides.begin() + at);
}

void drop(Tensor& tensor, std::size_t d) {
    const auto at = static_cast<std::ptrdiff_t>(d);
    tensor.dims.erase(tensor.dims.begin() + at);
    tensor.strides.erase(tensor.strides.begin() + at);
}

// Fewer batch dimensions: neighbours become one, and rows of all batches one long matrix where the second operand is the same
// for all. Libraries are fast for few dimensions.
Operation simplified(Operation operation) {
    operation.first = without_broadcast(operation.first);
    operation.second = without_broadcast(operation.second);
    for (std::size_t k = 0; k < operation.operands.size(); ++k) {
        operation.operands[k] = operand_of(operation, static_cast<int>(k));
    }
    for (std::size_t d = operation.result.dims.size() - 2; d-- > 0;) {
        const bool rows = d + 3 == operation.result.dims.size();  // d + 1 is M of first and result, K of second
        Tensor& second = operation.second;
        bool fits = mergeable(operation.result, d) && mergeable(operation.first, operation.result, d);
        if (rows) {
            fits = fits && second.dims[d] == 1 && operation.first.dims[d] == operation.result.dims[d];
        } else {
            fits = fits && mergeable(second, operation.result, d);
        }
        for (const Tensor& operand : operation.operands) fits = fits && mergeable(operand, operation.result, d);
        if (!fits) continue;
        merge(operation.first, d);
        merge(operation.result, d);
        rows ? drop(second, d) : merge(second, d);
        for (Tensor& operand : operation.operands) merge(operand, d);
    }
    operation.first = canonical(operation.first, false);
    operation.second = canonical(operation.second, false);
    operation.result = canonical(operation.result, false);
    return operation;
}

// C' = B' A' instead of C = A B.
Operation turned(Operation operation) {
    const std::size_t rank = operation.result.dims.size();
    const auto turn = [rank](Tensor& tensor) {
        std::swap(tensor.dims[rank - 2], tensor.dims[rank - 1]);
        std::swap(tensor.strides[rank - 2], tensor.strides[rank - 1]);
        tensor = canonical(tensor, false);
    };
    std::swap(operation.first, operation.second);
    for (Tensor* tensor : {&operation.first, &operation.second, &operation.result}) turn(*tensor);
    for (Tensor& operand : operation.operands) turn(operand);
    operation.turned = true;
    return operation;
}

// Whether a matrix has its rows, and not its columns, apart by one element.
bool by_columns(const Tensor& tensor) {
    const std::size_t rank = tensor.dims.size();
    return tensor.dims[rank - 2] > 1 && tensor.dims[rank - 1] > 1 && tensor.strides[rank - 2] == 1;
}

// The library writes rows, and would copy a result that is stored by columns. It is also better at one row than at one column.
bool better_turned(const Operation& operation) {
    if (operation.constant || operation.scale) return false;
    return by_columns(operation.result) || (operation.result.dims.back() == 1 && by_columns(operation.first));
}

// Extents that do not belong together, or an operand whose elements overlap.
bool sound(const Operation& operation) {
    const std::size_t rank = operation.result.dims.size();
    for (const Tensor* tensor : {&operation.first, &operation.second, &operation.result}) {
        for (std::size_t d = 0; d < rank; ++d) {
            if (tensor->strides[d] == 0 && tensor->dims[d] != 1) return false;
        }
    }
    for (std::size_t d = 0; d + 2 < rank; ++d) {
        const dnnl_dim_t extent = std::max(operation.first.dims[d], operation.second.dims[d]);
        if (extent != operation.result.dims[d]) return false;
    }
    return operation.first.dims[rank - 1] == operation.second.dims[rank - 2] &&
           operation.first.dims[rank - 2] == operation.result.dims[rank - 2] &&
           operation.second.dims[rank - 1] == operation.result.dims[rank - 1];
}

desc_t chosen(const Tensor& tensor, bool free, dnnl::memory::data_type type) {
    return free ? desc_t(tensor.dims, type, dnnl::memory::format_tag::any) : tensor.desc(type);
}

// Which of first, second and result the library may choose the layout of.
struct Freedom {
    bool first, second, result;
};

std::unique_ptr<Recipe> recipe_for(const Operation& operation, const Freedom& freedom, bool fuse) {
    const std::size_t rank = operation.result.dims.size();
    const Epilogue epilogue = fuse ? fused(operation, true, rank - 1) : bare();
    const desc_t first = chosen(operation.first, freedom.first, operation.computed),
                 second = chosen(operation.second, freedom.second, operation.computed),
                 result = chosen(operation.result, freedom.result, operation.made());
    dims_t bias_dims(rank, 1);
    bias_dims.back() = operation.result.dims.back();
    const desc_t bias(bias_dims, epilogue.bias_type, dense_strides(bias_dims, false));
    using description_t = dnnl::matmul::primitive_desc;
    const description_t description =
        epilogue.bias < 0 ? description_t(engine(), first, second, result, epilogue.attributes, true)
                          : description_t(engine(), first, second, bias, result, epilogue.attributes, true);
    if (!good(description)) return nullptr;
    if (fuse && freedom.result && !epilogue.arguments.empty()) return nullptr;
    auto recipe = std::make_unique<Recipe>();
    recipe->about = description.impl_info_str();
    const int weight = pack(*recipe, operation, operation.second.desc(), description.weights_desc(), bias_dims);
    if (weight < 0) return nullptr;
    const int source = recipe->converted(recipe->buffer(operation.first_buffer(), operation.first.desc()), description.src_desc());
    if (source < 0) return nullptr;
    const desc_t made = description.dst_desc();
    const int place = made == operation.result.desc() ? recipe->buffer(2, made) : recipe->scratch(made);
    std::vector<std::pair<int, int>> arguments = {{DNNL_ARG_SRC, source}, {DNNL_ARG_WEIGHTS, weight}, {DNNL_ARG_DST, place}};
    if (!add_arguments(*recipe, operation, epilogue, bias, arguments)) return nullptr;
    recipe->add(dnnl::matmul(description), description, std::move(arguments));
    if (!deliver(*recipe, operation, operation.result, place, !fuse)) return nullptr;
    recipe->tell();
    return recipe;
}

}  // namespace

std::unique_ptr<Recipe> make_matmul(const Operation& asked) {
    const Operation operation = simplified(asked);
    if (!sound(operation)) return nullptr;
    static constexpr Freedom kChoices[] = {
        {false, false, false}, {false, true, false}, {true, true, false}, {true, true, true}};
    if (better_turned(operation)) {
        const Operation other = turned(operation);
        for (const Freedom& freedom : {kChoices[0], kChoices[1]}) {
            if (auto recipe = recipe_for(other, freedom, true)) return recipe;
        }
    }
    for (bool fuse : {true, false}) {
        for (const Freedom& freedom : kChoices) {
            const bool converted = operation.second.type != operation.computed;
            if ((operation.constant || converted) && !freedom.second) continue;
            if (auto recipe = recipe_for(operation, freedom, fuse)) return recipe;
        }
        if (operation.posts.empty()) return nullptr;
    }
    return nullptr;
}

}  // namespace metafuse_onednn
