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
    {"linear", algorithm::eltwise_linear},       {"relu", algorithm::eltwise_relu},
    {"clip", algorithm::eltwise_clip},           {"sigmoid", algorithm::eltwise_logistic},
    {"tanh", algorithm::eltwise_tanh},           {"swish", algorithm::eltwise_swish},
    {"hardswish", algorithm::eltwise_hardswish}, {"gelu_erf", algorithm::eltwise_gelu_erf},
    {"gelu_tanh", algorithm::eltwise_gelu_tanh}, {"elu", algorithm::eltwise_elu},
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

dnnl::primitive_attr common(const Operation& operation) {
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    if (operation.bfloat16) attributes.set_fpmath_mode(dnnl::fpmath_mode::bf16);
    return attributes;
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

Epilogue bare(const Operation& operation) {
    Epilogue epilogue;
    epilogue.attributes = common(operation);
    return epilogue;
}

Epilogue fused(const Operation& operation, bool with_bias, std::size_t channel) {
    Epilogue epilogue = bare(operation);
    dnnl::post_ops posts;
    bool first = true;
    for (const Post& post : operation.posts) {
        if (post.operand < 0) {
            posts.append_eltwise(find(kElementwise, post.kind), post.alpha, post.beta);
        } else {
            const Tensor operand = operand_of(operation, post.operand);
            if (first && with_bias && post.kind == "add" && is_vector(operand, channel, operation.result.dims[channel])) {
                epilogue.bias = post.operand;
                epilogue.bias_type = operand.type;
            } else {
                posts.append_binary(find(kBinary, post.kind), operand.desc());
                epilogue.arguments.emplace_back(DNNL_ARG_ATTR_MULTIPLE_POST_OP(posts.len() - 1) | DNNL_ARG_SRC_1,
                                                post.operand);
            }
        }
        first = false;
    }
    epilogue.attributes.set_post_ops(posts);
    return epilogue;
}

bool add_separately(Recipe& recipe, const Operation& operation) {
    const desc_t result = canonical(operation.result, operation.kind != Kind::matmul).desc();
    const dnnl::primitive_attr attributes = bare(operation).attributes;
    const int place = recipe.buffer(2, result);
    for (const Post& post : operation.posts) {
        if (post.operand < 0) {
            const dnnl::eltwise_forward::primitive_desc description(engine(), dnnl::prop_kind::forward_inference,
                                                                    find(kElementwise, post.kind), result, result,
                                                                    post.alpha, post.beta, attributes, true);
            if (!good(description)) return false;
            recipe.add(dnnl::eltwise_forward(description), description, {{DNNL_ARG_SRC, place}, {DNNL_ARG_DST, place}});
        } else {
            const desc_t operand = operand_of(operation, post.operand).desc();
            const dnnl::binary::primitive_desc description(engine(), find(kBinary, post.kind), result, operand, result,
                                                           attributes, true);
            if (!good(description)) return false;
            const int other = recipe.buffer(operation.operand_buffer(post.operand), operand);
            recipe.add(dnnl::binary(description), description,
                       {{DNNL_ARG_SRC_0, place}, {DNNL_ARG_SRC_1, other}, {DNNL_ARG_DST, place}});
        }
    }
    return true;
}

}  // namespace metafuse_onednn
