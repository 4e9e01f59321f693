#include "epilogue.hpp"

namespace metafuse_onednn {
namespace {

using algorithm = dnnl::algorithm;

struct Named {
    const char* kind;
    algorithm code;
};
constexpr Named kBinary[] = {{"add", algorithm::binary_add}, {"sub", algorithm::binary_sub}, {"mul", algorithm::binary_mul},
                             {"max", algorithm::binary_max}, {"min", algorithm::binary_min}};
constexpr Named kElementwise[] = {
    {"relu", algorithm::eltwise_relu},         {"clip", algorithm::eltwise_clip},
    {"sigmoid", algorithm::eltwise_logistic},  {"tanh", algorithm::eltwise_tanh},
    {"swish", algorithm::eltwise_swish},       {"hardswish", algorithm::eltwise_hardswish},
    {"gelu_erf", algorithm::eltwise_gelu_erf}, {"gelu_tanh", algorithm::eltwise_gelu_tanh},
};

template <std::size_t Count>
algorithm find(const Named (&table)[Count], const std::string& kind) {
    for (const Named& entry : table) {
        if (kind == entry.kind) return entry.code;
    }
    return algorithm::undef;
}

// A vector along `channel` and along nothing else, without gaps.
bool is_vector(const Tensor& operand, std::size_t channel, dnnl_dim_t extent) {
    for (std::size_t d = 0; d < operand.dims.size(); ++d) {
        if (operand.dims[d] != (d == channel ? extent : 1)) return false;
    }
    return operand.strides[channel] == 1 || extent == 1;
}

// The type in which a primitive takes an operand: 16-bit ones where it multiplies such numbers itself.
dnnl::memory::data_type operand_type(const Operation& operation, const Tensor& operand) {
    return operand.type == operation.computed ? operand.type : dnnl::memory::data_type::f32;
}

}  // namespace

Tensor operand_of(const Operation& operation, int operand) {
    Tensor answer = operation.operands[static_cast<std::size_t>(operand)];
    const std::size_t missing = operation.result.dims.size() - answer.dims.size();
    answer.dims.insert(answer.dims.begin(), missing, 1);
    answer.strides.insert(answer.strides.begin(), missing, 0);
    for (std::size_t d = 0; d < answer.dims.size(); ++d) {
        if (answer.strides[d] == 0) answer.dims[d] = 1;
    }
    return canonical(answer, operation.kind != Kind::matmul);
}

Epilogue bare() {
    Epilogue epilogue;
    epilogue.attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    return epilogue;
}

Epilogue fused(const Operation& operation, bool with_bias, std::size_t channel) {
    Epilogue epilogue = bare();
    dnnl::post_ops posts;
    bool first = true;
    for (const Post& post : operation.posts) {
        if (post.operand < 0) {
            posts.append_eltwise(find(kElementwise, post.kind), post.alpha, post.beta);
        } else {
            const Tensor operand = operand_of(operation, post.operand);
            if (first && with_bias && post.kind == "add" && is_vector(operand, channel, operation.result.dims[channel])) {
                epilogue.bias = post.operand;
                epilogue.bias_type = operand_type(operation, operand);
            } else {
                posts.append_binary(find(kBinary, post.kind), operand.desc(operand_type(operation, operand)));
                epilogue.arguments.emplace_back(DNNL_ARG_ATTR_MULTIPLE_POST_OP(posts.len() - 1) | DNNL_ARG_SRC_1,
                                                post.operand);
            }
        }
        first = false;
    }
    epilogue.attributes.set_post_ops(posts);
    return epilogue;
}

int operand_item(Recipe& recipe, const Operation& operation, int operand) {
    const Tensor tensor = operand_of(operation, operand);
    return recipe.converted(recipe.buffer(operation.operand_buffer(operand), tensor.desc()),
                            tensor.desc(operand_type(operation, tensor)));
}

bool add_arguments(Recipe& recipe, const Operation& operation, const Epilogue& epilogue, const desc_t& bias,
                   std::vector<std::pair<int, int>>& arguments) {
    if (epilogue.bias >= 0) {
        const int item = operand_item(recipe, operation, epilogue.bias);
        if (item < 0) return false;
        arguments.emplace_back(DNNL_ARG_BIAS, recipe.seen_as(item, bias));
    }
    for (const auto& [argument, operand] : epilogue.arguments) {
        const int item = operand_item(recipe, operation, operand);
        if (item < 0) return false;
        arguments.emplace_back(argument, item);
    }
    return true;
}

namespace {

bool add_separately(Recipe& recipe, const Operation& operation, int place) {
    const desc_t result = recipe.items[static_cast<std::size_t>(place)].desc;
    const dnnl::primitive_attr attributes = bare().attributes;
    for (const Post& post : operation.posts) {
        if (post.operand < 0) {
            const dnnl::eltwise_forward::primitive_desc description(engine(), dnnl::prop_kind::forward_inference,
                                                                    find(kElementwise, post.kind), result, result,
                                                                    post.alpha, post.beta, attributes, true);
            if (!good(description)) return false;
            recipe.add(dnnl::eltwise_forward(description), description, {{DNNL_ARG_SRC, place}, {DNNL_ARG_DST, place}});
        } else {
            const int other = operand_item(recipe, operation, post.operand);
            if (other < 0) return false;
            const desc_t operand = recipe.items[static_cast<std::size_t>(other)].desc;
            const dnnl::binary::primitive_desc description(engine(), find(kBinary, post.kind), result, operand, result,
                                                           attributes, true);
            if (!good(description)) return false;
            recipe.add(dnnl::binary(description), description,
                       {{DNNL_ARG_SRC_0, place}, {DNNL_ARG_SRC_1, other}, {DNNL_ARG_DST, place}});
        }
    }
    return true;
}

}  // namespace

bool deliver(Recipe& recipe, const Operation& operation, const Tensor& given, int place, bool apart) {
    const desc_t made = recipe.items[static_cast<std::size_t>(place)].desc, wanted = given.desc();
    if (apart && !operation.posts.empty()) {
        // In the layout of the result, and in its type only if it is made in that.
        const desc_t between = given.desc(made.get_data_type());
        if (between == wanted) {
            const int target = recipe.buffer(2, wanted);
            if (made != wanted && !recipe.reorder(place, target)) return false;
            return add_separately(recipe, operation, target);
        }
        place = recipe.converted(place, between);
        if (place < 0 || !add_separately(recipe, operation, place)) return false;
    }
    if (recipe.items[static_cast<std::size_t>(place)].desc == wanted) return true;
    return recipe.reorder(place, recipe.buffer(2, wanted));
}

}  // namespace metafuse_onednn
