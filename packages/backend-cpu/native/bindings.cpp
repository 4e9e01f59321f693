// The Python face of the native runtime: `metafuse_backend_cpu._native`. Everything that may take long runs without the
// interpreter lock; every Failure becomes the exception of metafuse.errors that it names.

#include <algorithm>
#include <chrono>
#include <cstring>
#include <exception>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "failure.hpp"
#include "library.hpp"
#include "memory.hpp"
#include "module.hpp"
#include "parallel.hpp"
#include "program.hpp"
#include "snippet.hpp"

namespace py = pybind11;
using namespace metafuse_cpu;

namespace {

// Copies larger than this run without the interpreter lock, and on all threads beyond the second bound.
constexpr std::size_t kCopyUnlocked = 64 << 10;
constexpr std::size_t kCopyParallel = 4 << 20;

// Lets other threads have the interpreter as long as it lives. A thread that asks for it back while the process ends is unwound
// where it stands, through code that can't be; it waits for the end instead.
class Unlocked {
public:
    Unlocked() : state_(PyEval_SaveThread()) {}
    Unlocked(const Unlocked&) = delete;
    Unlocked& operator=(const Unlocked&) = delete;
    ~Unlocked() {
        try {
            PyEval_RestoreThread(state_);
        } catch (...) {  // the unwinding, which no test beforehand can foresee: the end may begin while the lock is waited for
            for (;;) std::this_thread::sleep_for(std::chrono::seconds(1));
        }
    }

private:
    PyThreadState* state_;
};

void* as_pointer(PyObject* handle) {
    void* block = PyLong_AsVoidPtr(handle);
    if (block == nullptr && PyErr_Occurred() != nullptr) {
        PyErr_Clear();
        throw Failure("BackendError", "[memory] not a handle: " + std::string(py::repr(handle)));
    }
    return block;
}

struct CopyJob {
    char* target;
    const char* source;
    std::size_t bytes;
    int parts;
};

void copy_part(void* context, int part) {
    const CopyJob& job = *static_cast<const CopyJob*>(context);
    const std::size_t page = 4096;
    const std::size_t share = (job.bytes / static_cast<std::size_t>(job.parts) + page - 1) / page * page;
    const std::size_t begin = share * static_cast<std::size_t>(part);
    if (begin >= job.bytes) return;
    std::memcpy(job.target + begin, job.source + begin, std::min(share, job.bytes - begin));
}

void copy(void* target, const void* source, std::size_t bytes) {
    if (bytes < kCopyUnlocked) {
        std::memcpy(target, source, bytes);
        return;
    }
    const Unlocked unlocked;
    const int parts = bytes < kCopyParallel ? 1 : threads() * 4;
    CopyJob job{static_cast<char*>(target), static_cast<const char*>(source), bytes, parts};
    parallel(parts, true, true, copy_part, &job);
}

void check_room(void* block, std::size_t bytes, const char* verb) {
    const std::size_t there = Pool::instance().capacity(block);
    if (bytes > there) {
        throw Failure("BackendError", std::string("[") + verb + "] " + std::to_string(bytes) +
                                          " bytes do not fit the buffer: it has " + std::to_string(there));
    }
}

// Views any object with the buffer protocol as contiguous bytes for the time of a call.
class Bytes {
public:
    Bytes(const py::handle& object, bool writable) {
        const int wanted = writable ? PyBUF_SIMPLE | PyBUF_WRITABLE : PyBUF_SIMPLE;
        if (PyObject_GetBuffer(object.ptr(), &view_, wanted) != 0) throw py::error_already_set();
    }
    Bytes(const Bytes&) = delete;
    Bytes& operator=(const Bytes&) = delete;
    ~Bytes() { PyBuffer_Release(&view_); }
    char* data() const { return static_cast<char*>(view_.buf); }
    std::size_t size() const { return static_cast<std::size_t>(view_.len); }

private:
    Py_buffer view_{};
};

Scalar as_scalar(PyObject* value, char kind) {
    Scalar scalar;
    if (kind == 'f') {
        scalar.f = PyFloat_AsDouble(value);
        if (scalar.f == -1.0 && PyErr_Occurred() != nullptr) throw py::error_already_set();
    } else {
        // Taken modulo 2^64, so that large uint64 values keep their bits.
        const py::object whole = py::reinterpret_steal<py::object>(PyNumber_Index(value));
        if (!whole) throw py::error_already_set();
        scalar.i = static_cast<long long>(PyLong_AsUnsignedLongLongMask(whole.ptr()));
    }
    return scalar;
}

void add_library(Program& program, const py::handle& step, const std::vector<long long>& slots, long long scratch,
                 bool constant) {
    void* pointer = PyCapsule_GetPointer(step.ptr(), kStepCapsule);
    if (pointer == nullptr) throw py::error_already_set();
    program.add_library(*static_cast<std::shared_ptr<LibraryStep>*>(pointer), slots, scratch, constant);
}

const Runtime kRuntime = {
    &threads,
    &threads_generation,
    &members,
    &begin_region,
    &end_region,
    [](std::size_t bytes) -> void* {
        try {
            return Pool::instance().allocate(bytes);
        } catch (const Failure&) {
            return nullptr;
        }
    },
    [](void* block) { Pool::instance().release(block); },
};

py::array_t<std::uint8_t> host_view(const py::handle& handle, std::size_t bytes) {
    void* block = as_pointer(handle.ptr());
    check_room(block, bytes, "host view");
    // A base object, even None, keeps NumPy from copying.
    return py::array_t<std::uint8_t>(static_cast<py::ssize_t>(bytes), static_cast<std::uint8_t*>(block), py::none());
}

py::object find_kernel(const Module& module, const std::string& symbol, std::size_t buffers, std::size_t sizes,
                       const std::string& scalar_kinds) {
    void* run = module.find(symbol);
    void* units = module.find(symbol + "_units");
    if (run == nullptr || units == nullptr) {
        throw Failure("BackendError", "[load] the module has no kernel " + symbol);
    }
    Kernel kernel;
    kernel.symbol = symbol;
    kernel.run = reinterpret_cast<Kernel::Run>(run);
    kernel.units = reinterpret_cast<Kernel::Units>(units);
    const void* grain = module.find(symbol + "_grain");
    if (grain != nullptr) kernel.grain = std::max(*static_cast<const long long*>(grain), 1LL);
    kernel.buffers = buffers;
    kernel.sizes = sizes;
    kernel.scalar_kinds = scalar_kinds;
    return py::cast(kernel);
}

py::object find_snippet(const Module& module, const std::string& symbol) {
    void* run = module.find(symbol + "_snippet");
    const void* signature = module.find(symbol + "_signature");
    if (run == nullptr || signature == nullptr) return py::none();
    if (void* services = module.find(symbol + "_services")) {
        *static_cast<SnippetServices*>(services) = {members, begin_region, end_region};
    }
    return py::cast(Snippet(symbol, run, static_cast<const long long*>(signature)));
}

py::list run_snippet(const Snippet& snippet, const std::vector<std::pair<std::uintptr_t, std::vector<long long>>>& inputs,
                     const std::vector<std::pair<std::uintptr_t, std::vector<long long>>>& outputs,
                     const std::map<std::string, double>& data, const std::vector<std::size_t>& offsets) {
    const auto arrays = [](const std::vector<std::pair<std::uintptr_t, std::vector<long long>>>& given) {
        std::vector<Snippet::Array> converted;
        for (const auto& [handle, shape] : given) converted.emplace_back(reinterpret_cast<void*>(handle), shape);
        return converted;
    };
    std::vector<std::vector<long long>> shapes;
    {
        const Unlocked unlocked;
        shapes = snippet.run(arrays(inputs), arrays(outputs), data, offsets);
    }
    py::list answer;
    for (const auto& shape : shapes) answer.append(py::tuple(py::cast(shape)));
    return answer;
}

py::dict stats() {
    const MemoryStats now = Pool::instance().stats();
    py::dict answer;
    answer["bytes_in_use"] = now.in_use;
    answer["bytes_cached"] = now.cached;
    answer["bytes_peak"] = now.peak;
    answer["bytes_limit"] = now.limit;
    answer["blocks"] = now.blocks;
    answer["system_allocations"] = now.system_calls;
    return answer;
}

void translate(std::exception_ptr pointer) {
    try {
        if (pointer) std::rethrow_exception(pointer);
    } catch (const Failure& failure) {
        const auto module = py::reinterpret_steal<py::object>(PyImport_ImportModule("metafuse.errors"));
        if (!module) return;  // the import's own exception is set
        const auto type = py::reinterpret_steal<py::object>(PyObject_GetAttrString(module.ptr(), failure.kind()));
        if (type) PyErr_SetString(type.ptr(), failure.what());
    }
}

// -- on the path of every evaluation: plain functions of the interpreter, which cost less than bound ones -----------------
// Calls what may throw; its answer, or null with the exception.
template <class Work>
PyObject* guarded(Work work) {
    try {
        return work();
    } catch (py::error_already_set& error) {
        error.restore();
    } catch (const Failure&) {
        translate(std::current_exception());
    } catch (const std::bad_alloc&) {
        PyErr_NoMemory();
    } catch (const std::exception& error) {
        PyErr_SetString(PyExc_RuntimeError, error.what());
    }
    return nullptr;
}

PyObject* alloc(PyObject*, PyObject* bytes) {
    const Py_ssize_t count = PyLong_AsSsize_t(bytes);
    if (count == -1 && PyErr_Occurred() != nullptr) return nullptr;
    return guarded([count]() -> PyObject* {
        if (count < 0) throw Failure("ArgumentError", "[alloc] a size can't be negative: " + std::to_string(count));
        return PyLong_FromVoidPtr(Pool::instance().allocate(static_cast<std::size_t>(count)));
    });
}

PyObject* release(PyObject*, PyObject* handle) {
    return guarded([handle] {
        Pool::instance().release(as_pointer(handle));
        return Py_NewRef(Py_None);
    });
}

PyTypeObject* program_type = nullptr;

// One run, with its tables.
struct Run {
    const Program& program;
    bool changed;
    std::vector<void*> table;
    std::vector<Scalar> values;
    std::exception_ptr problem;

    // Reads the tables from Python sequences.
    Run(const Program& wanted, PyObject* handles, PyObject* scalars, bool anew) : program(wanted), changed(anew) {
        const std::string& kinds = program.scalar_kinds();
        const auto count = static_cast<std::size_t>(PySequence_Fast_GET_SIZE(handles));
        if (static_cast<std::size_t>(PySequence_Fast_GET_SIZE(scalars)) != kinds.size()) {
            throw Failure("ArgumentError", "[run] the program takes " + std::to_string(kinds.size()) + " scalars: " +
                                               std::to_string(PySequence_Fast_GET_SIZE(scalars)) + " given");
        }
        table.resize(count);
        values.resize(kinds.size());
        PyObject** items = PySequence_Fast_ITEMS(handles);
        for (std::size_t i = 0; i < count; ++i) table[i] = items[i] == Py_None ? nullptr : as_pointer(items[i]);
        for (std::size_t i = 0; i < kinds.size(); ++i) {
            values[i] = as_scalar(PySequence_Fast_GET_ITEM(scalars, static_cast<Py_ssize_t>(i)), kinds[i]);
        }
    }

    void go() noexcept {
        try {
            program.run(table.data(), table.size(), values.data(), changed);
        } catch (...) {
            problem = std::current_exception();
        }
    }
};

Run* read_run(PyObject* const* arguments, Py_ssize_t count) {
    const auto handles = py::reinterpret_steal<py::object>(PySequence_Fast(arguments[1], "handles: a sequence"));
    if (!handles) throw py::error_already_set();
    const auto scalars = py::reinterpret_steal<py::object>(PySequence_Fast(arguments[2], "scalars: a sequence"));
    if (!scalars) throw py::error_already_set();
    auto* holder = reinterpret_cast<py::detail::instance*>(arguments[0]);
    const auto* program = holder->get_value_and_holder().value_ptr<Program>();
    if (program == nullptr) throw Failure("ArgumentError", "[run] the program was never initialised");
    const int changed = count < 4 ? 1 : PyObject_IsTrue(arguments[3]);
    if (changed < 0) throw py::error_already_set();
    return new Run(*program, handles.ptr(), scalars.ptr(), changed == 1);
}

PyObject* finish_run(Run* run) {
    const std::unique_ptr<Run> owned(run);
    return guarded([run] {
        if (run->problem) std::rethrow_exception(run->problem);
        return Py_NewRef(Py_None);
    });
}

// run(program, handles, scalars, changed=True)
PyObject* run(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
    if (count < 3 || count > 4 || !PyObject_TypeCheck(arguments[0], program_type)) {
        PyErr_SetString(PyExc_TypeError, "run(program: Program, handles: Sequence, scalars: Sequence, changed: bool = True, /)");
        return nullptr;
    }
    Run* call = nullptr;
    if (guarded([&] { return call = read_run(arguments, count), Py_None; }) == nullptr) return nullptr;
    // Nothing here needs a destructor: a thread that asks for the interpreter while the process ends is unwound where it stands.
    PyThreadState* state = PyEval_SaveThread();
    call->go();
    PyEval_RestoreThread(state);
    return finish_run(call);
}

PyMethodDef hot_functions[] = {
    {"alloc", alloc, METH_O, nullptr},
    {"free", release, METH_O, nullptr},
    {"run", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(run)), METH_FASTCALL, nullptr},
};

}  // namespace

PYBIND11_MODULE(_native, m) {
    m.doc() = "Memory, loading and execution for the metafuse CPU backend.";
    py::register_exception_translator(translate);

    for (PyMethodDef& function : hot_functions) {
        m.add_object(function.ml_name, py::reinterpret_steal<py::object>(PyCFunction_NewEx(&function, nullptr, nullptr)));
    }
    m.def("copy_in", [](const py::handle& handle, const py::handle& source) {
        const Bytes bytes(source, false);
        void* block = as_pointer(handle.ptr());
        check_room(block, bytes.size(), "copy_in");
        copy(block, bytes.data(), bytes.size());
    });
    m.def("copy_out", [](const py::handle& target, const py::handle& handle) {
        const Bytes bytes(target, true);
        void* block = as_pointer(handle.ptr());
        check_room(block, bytes.size(), "copy_out");
        copy(bytes.data(), block, bytes.size());
    });
    m.def("host_view", &host_view);
    m.def("memory_stats", &stats);
    m.def("reset_peak", [] { Pool::instance().reset_peak(); });
    m.def("trim", [](std::size_t keep) { return Pool::instance().trim(keep); }, py::arg("keep") = 0);
    m.def("set_memory_limit", [](std::size_t bytes) { Pool::instance().set_limit(bytes); });

    m.def("threads", &threads);
    m.def("set_threads", &set_threads);

    py::class_<Kernel>(m, "Kernel")
        .def_readonly("symbol", &Kernel::symbol)
        .def_readonly("grain", &Kernel::grain)
        .def("units", [](const Kernel& kernel, const std::vector<long long>& sizes) {
            if (sizes.size() != kernel.sizes) throw Failure("ArgumentError", "[units] wrong number of sizes");
            return kernel.units(sizes.data());
        });
    py::class_<Snippet>(m, "Snippet")
        .def("run", &run_snippet, py::arg("inputs"), py::arg("outputs"), py::arg("data"),
             py::arg("offsets") = std::vector<std::size_t>());
    py::class_<Module>(m, "Module")
        .def(py::init([](const py::bytes& binary, bool in_memory) {
            char* data = nullptr;
            Py_ssize_t size = 0;
            if (PyBytes_AsStringAndSize(binary.ptr(), &data, &size) != 0) throw py::error_already_set();
            const Unlocked unlocked;
            return Module(data, static_cast<std::size_t>(size), in_memory);
        }), py::arg("binary"), py::arg("in_memory") = true)
        .def("kernel", &find_kernel)
        .def("snippet", &find_snippet);
    const auto program = py::class_<Program>(m, "Program")
        .def(py::init<std::string>())
        .def("begin_step", &Program::begin_step, py::arg("kernel"), py::arg("constant") = false)
        .def("add_library", &add_library)
        .def("add_call", &Program::add_call)
        .def_property_readonly("handles", &Program::handles)
        .def_property_readonly("steps", &Program::steps)
        .def_property_readonly("parallel_steps", &Program::parallel_steps);
    program_type = reinterpret_cast<PyTypeObject*>(program.ptr());
    m.attr("runtime") = py::capsule(&kRuntime, kRuntimeCapsule);
}
