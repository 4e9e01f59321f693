// The Python face of the oneDNN part: `metafuse_backend_cpu._onednn`. It makes plans; they are run by the runtime (program.cpp),
// to which a plan's step travels in a capsule. Imported by metafuse_backend_cpu.library.loading, which has loaded libdnnl.

#include <map>
#include <string>
#include <tuple>
#include <vector>

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "../library.hpp"
#include "step.hpp"
#include "threads.hpp"

namespace py = pybind11;
using namespace metafuse_onednn;

namespace {

const metafuse_cpu::Runtime* runtime = nullptr;

using View = std::tuple<std::string, dims_t, dims_t>;             // dtype, shape, strides
using PostView = std::tuple<std::string, int, double, double>;  // kind, operand, alpha, beta

Kind kind_of(const std::string& name) {
    static const std::map<std::string, Kind> kinds = {{"matmul", Kind::matmul},
                                                      {"convolution", Kind::convolution},
                                                      {"convolution_data", Kind::convolution_data},
                                                      {"convolution_weight", Kind::convolution_weight}};
    return kinds.at(name);
}

dnnl::memory::data_type type_of(const std::string& name) {
    static const std::map<std::string, dnnl::memory::data_type> types = {{"float32", dnnl::memory::data_type::f32},
                                                                         {"bfloat16", dnnl::memory::data_type::bf16},
                                                                         {"float16", dnnl::memory::data_type::f16}};
    return types.at(name);
}

Tensor tensor_of(const View& view) {
    return Tensor{type_of(std::get<0>(view)), std::get<1>(view), std::get<2>(view)};
}

// A plan as Python sees it.
struct Plan {
    std::shared_ptr<metafuse_cpu::LibraryStep> step;
    std::size_t scratch_bytes;
    std::size_t kept_bytes;
    std::string about;

    py::capsule capsule() const {
        return py::capsule(new std::shared_ptr<metafuse_cpu::LibraryStep>(step), metafuse_cpu::kStepCapsule,
                           [](PyObject* object) {
                               delete static_cast<std::shared_ptr<metafuse_cpu::LibraryStep>*>(
                                   PyCapsule_GetPointer(object, metafuse_cpu::kStepCapsule));
                           });
    }
};

py::object plan(const std::string& kind, const View& first, const View& second, const View& result, dnnl_dim_t groups,
                const dims_t& stride, const dims_t& dilation, const dims_t& before, const dims_t& after, bool scale,
                const std::vector<View>& operands, const std::vector<PostView>& posts, bool constant,
                const std::string& computed) {
    Operation operation;
    operation.kind = kind_of(kind);
    operation.first = tensor_of(first);
    operation.second = tensor_of(second);
    operation.result = tensor_of(result);
    operation.groups = groups;
    operation.stride = stride;
    operation.dilation = dilation;
    operation.before = before;
    operation.after = after;
    operation.scale = scale;
    for (const View& operand : operands) operation.operands.push_back(tensor_of(operand));
    for (const auto& [name, operand, alpha, beta] : posts) {
        operation.posts.push_back(Post{name, operand, static_cast<float>(alpha), static_cast<float>(beta)});
    }
    operation.constant = constant;
    operation.computed = type_of(computed);
    std::shared_ptr<Step> step;
    {
        py::gil_scoped_release unlocked;
        try {
            const auto recipe = recipe_of(operation, use_threads(*runtime));
            if (recipe != nullptr) step = std::make_shared<Step>(*runtime, operation, recipe);
        } catch (const dnnl::error&) {
            // It can't describe or make something of this: as good as a refusal.
        }
    }
    if (step == nullptr) return py::none();
    const Recipe& recipe = step->recipe();
    return py::cast(Plan{step, recipe.scratch_bytes, recipe.kept_bytes, recipe.about});
}

}  // namespace

PYBIND11_MODULE(_onednn, m) {
    m.doc() = "Contractions through oneDNN for the metafuse CPU backend.";
    py::class_<Plan>(m, "Plan")
        .def_property_readonly("step", &Plan::capsule)
        .def_readonly("scratch_bytes", &Plan::scratch_bytes)
        .def_readonly("kept_bytes", &Plan::kept_bytes)
        .def_readonly("about", &Plan::about);
    m.def("start", [](const py::capsule& services, bool own_threads) {
        runtime = static_cast<const metafuse_cpu::Runtime*>(PyCapsule_GetPointer(services.ptr(), metafuse_cpu::kRuntimeCapsule));
        if (runtime == nullptr) throw py::error_already_set();
        return own_threads && redirect_threads(*runtime);
    });
    m.def("version", [] {
        const dnnl_version_t* version = dnnl_version();
        return std::to_string(version->major) + "." + std::to_string(version->minor) + "." + std::to_string(version->patch);
    });
    m.def("plan", &plan);
}
