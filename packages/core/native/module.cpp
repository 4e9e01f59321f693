// `metafuse._compiled`: the hottest paths of recording and evaluation without Python.
//
// What it is: the same steps as the Python code that each function names, for the usual case; everything unusual is left to
// that code. It is optional: where it was not built, Python does all of it, with the same results.
// Who calls it: `metafuse.hot`, which hands over what it reads and calls.

#include "backward.hpp"
#include "evaluation.hpp"
#include "objects.hpp"
#include "recipes.hpp"
#include "recording.hpp"

namespace metafuse {

Known known{};
Surroundings surroundings{};

PyObject* held_node(PyObject* handle) {
#if PY_VERSION_HEX >= 0x030d0000
    PyObject* var = nullptr;
    if (PyWeakref_GetRef(handle, &var) <= 0) return nullptr;
    PyObject* node = known.var.node.of(var);
    Py_DECREF(var);  // somebody else holds it, or nobody can have seen it die: nothing runs before the caller is done
    return node;
#else
    PyObject* var = PyWeakref_GET_OBJECT(handle);
    return var == Py_None ? nullptr : known.var.node.of(var);
#endif
}

bool is_held(PyObject* node) {
    PyObject* handle = known.node.handle.of(node);
    return handle != Py_None && held_node(handle) == node;
}

namespace {

struct Place {
    Slot* slot;
    const char* name;
};

template <std::size_t N>
bool find_slots(PyObject* classes, const char* type, const Place (&places)[N]) {
    PyObject* found = PyDict_GetItemString(classes, type);
    if (found == nullptr) {
        PyErr_Format(PyExc_TypeError, "setup: no class %s", type);
        return false;
    }
    for (const Place& place : places) {
        if (!place.slot->find(found, place.name)) return false;
    }
    return true;
}

bool find_graph_slots(PyObject* classes, Known& known) {
    auto& n = known.node;
    auto& b = known.block;
    const Place node[] = {{&n.sig, "sig"}, {&n.spec, "spec"}, {&n.inputs, "inputs"}, {&n.scalars, "scalars"},
                          {&n.requires_grad, "requires_grad"}, {&n.buffer, "buffer"}, {&n.order, "order"}, {&n.handle, "handle"},
                          {&n.origin, "origin"}, {&n.pos, "pos"}, {&n.released, "released"}, {&n.rule, "rule"}};
    const Place block[] = {{&b.given, "given"}, {&b.nodes, "nodes"}, {&b.order, "order"}, {&b.pos, "pos"},
                           {&b.origin, "origin"}, {&b.plain, "plain"}, {&b.recipe, "recipe"}, {&b.released, "released"},
                           {&b.scalars, "scalars"}, {&b.values, "values"}};
    auto& c = known.recipe;
    const Place recipe[] = {{&c.ages, "ages"}, {&c.few, "few"}, {&c.repeats, "repeats"}, {&c.results, "results"},
                            {&c.scalars, "scalars"}, {&c.steps, "steps"}, {&c.takes, "takes"}, {&c.whole, "whole"}};
    const Place var[] = {{&known.var.node, "_node"}};
    const Place signature[] = {{&known.signature.spec, "spec"}, {&known.signature.differentiable, "differentiable"}};
    auto& s = known.state;
    const Place state[] = {{&s.mode, "mode"}, {&s.pending, "pending"}, {&s.limit, "limit"}};
    return find_slots(classes, "Node", node) && find_slots(classes, "Block", block) &&
           find_slots(classes, "Recipe", recipe) && find_slots(classes, "Var", var) &&
           find_slots(classes, "Signature", signature) && find_slots(classes, "State", state);
}

bool find_runtime_slots(PyObject* classes, Known& known) {
    auto& b = known.buffer;
    auto& r = known.route;
    auto& f = known.flags;
    const Place buffer[] = {{&b.backend, "backend"}, {&b.handle, "handle"}, {&b.nbytes, "nbytes"},
                            {&b.order, "order"}, {&b.version, "version"}, {&b.free, "_free"}};
    const Place statistics[] = {{&known.statistics.launches, "launches"}, {&known.statistics.programs, "programs"}};
    const Place live[] = {{&known.live.now, "now"}, {&known.live.peak, "peak"}, {&known.live.count, "count"}};
    const Place route[] = {{&r.program, "program"}, {&r.prepared, "prepared"}};
    const Place program[] = {{&known.program.plan, "plan"}, {&known.program.kept, "kept"}, {&known.program.state, "state"}};
    const Place flags[] = {{&f.debug, "debug"}, {&f.library, "library"}, {&f.math, "math"}};
    return find_slots(classes, "Buffer", buffer) && find_slots(classes, "Statistics", statistics) &&
           find_slots(classes, "Live", live) && find_slots(classes, "Route", route) &&
           find_slots(classes, "Program", program) && find_slots(classes, "Flags", flags);
}

// Finds what `places` name in a dictionary; what is found is kept for good.
template <class Object, std::size_t N>
bool fetch(PyObject* dictionary, const std::pair<const char*, Object**> (&places)[N]) {
    for (const auto& [name, place] : places) {
        PyObject* found = PyDict_GetItemString(dictionary, name);
        if (found == nullptr) {
            PyErr_Format(PyExc_TypeError, "setup: no %s", name);
            return false;
        }
        *place = reinterpret_cast<Object*>(Py_NewRef(found));
    }
    return true;
}

bool find_classes(PyObject* classes, Known& k) {
    return fetch<PyTypeObject>(classes, {{"Signature", &k.signature_type}, {"Node", &k.node_type}, {"BlockNode", &k.block_node_type},
                                         {"Block", &k.block_type}, {"Var", &k.var_type}, {"Buffer", &k.buffer_type},
                                         {"OpaqueStep", &k.opaque_step_type}});
}

bool find_surroundings(PyObject* objects, Surroundings& s) {
    return fetch<PyObject>(objects, {{"state", &s.state}, {"statistics", &s.statistics}, {"live", &s.live}, {"flags", &s.flags},
                                     {"watchers", &s.watchers}, {"observers", &s.observers}, {"last_program", &s.last_program},
                                     {"finished", &s.finished}, {"chosen", &s.chosen}, {"names", &s.names}, {"hooks", &s.hooks},
                                     {"device", &s.device}, {"failed", &s.failed}, {"new_buffer", &s.new_buffer},
                                     {"next_order", &s.next_order}, {"next_version", &s.next_version},
                                     {"ordinary", &s.ordinary}, {"plainly", &s.plainly}, {"run_opaque", &s.run_opaque},
                                     {"sync_all", &s.sync_all}, {"without_others", &s.without_others}});
}

// setup(classes, objects): both dictionaries by name.
PyObject* setup(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
    if (count != 2 || !PyDict_Check(arguments[0]) || !PyDict_Check(arguments[1])) {
        PyErr_SetString(PyExc_TypeError, "setup(classes: dict, objects: dict)");
        return nullptr;
    }
    PyObject *classes = arguments[0], *objects = arguments[1];
    Known found{};  // nothing changes unless all is there
    Surroundings beside{};
    const bool fine = find_classes(classes, found) && find_graph_slots(classes, found) && find_runtime_slots(classes, found) &&
                      find_surroundings(objects, beside);
    if (!fine) return nullptr;
    known = found;
    surroundings = beside;
    static PyMethodDef ending = {"__del__", free_buffer, METH_NOARGS, nullptr};
    Ref method(PyDescr_NewMethod(known.buffer_type, &ending));
    if (!method || PyObject_SetAttrString(reinterpret_cast<PyObject*>(known.buffer_type), "__del__", method.get()) != 0) return nullptr;
    Py_RETURN_NONE;
}

template <class Function>
PyCFunction as_method(Function function) {
    return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function));
}

PyMethodDef methods[] = {
    {"setup", as_method(setup), METH_FASTCALL, nullptr},
    {"run", as_method(run), METH_FASTCALL, nullptr},
    {"evaluate", evaluate, METH_O, nullptr},
    {"record", as_method(record), METH_FASTCALL, nullptr},
    {"replay", as_method(replay), METH_FASTCALL, nullptr},
    {"backward", as_method(backward), METH_FASTCALL, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef definition = {PyModuleDef_HEAD_INIT, "metafuse._compiled", nullptr, -1, methods, nullptr, nullptr, nullptr, nullptr};

}  // namespace
}  // namespace metafuse

PyMODINIT_FUNC PyInit__compiled() { return PyModule_Create(&metafuse::definition); }
