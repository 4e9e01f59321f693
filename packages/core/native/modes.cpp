#include "modes.hpp"

namespace metafuse {
namespace {

struct Scope {
    PyObject_HEAD
    PyObject* before;  // what was set outside of each block that is entered: a list, or null
};

// The thread's mode is the attribute `enabled` of `mode`; both are attributes of the class, `enabled` as it shall be inside.
const char kMode[] = "mode";
const char kEnabled[] = "enabled";

PyObject* enter(PyObject* self, PyObject*) {
    auto* scope = reinterpret_cast<Scope*>(self);
    Ref mode(PyObject_GetAttrString(self, kMode));
    Ref wanted(mode ? PyObject_GetAttrString(self, kEnabled) : nullptr);
    Ref now(wanted ? PyObject_GetAttrString(mode.get(), kEnabled) : nullptr);
    if (!now) return nullptr;
    if (scope->before == nullptr) scope->before = PyList_New(0);
    if (scope->before == nullptr || PyList_Append(scope->before, now.get()) != 0) return nullptr;
    if (PyObject_SetAttrString(mode.get(), kEnabled, wanted.get()) != 0) {
        const Py_ssize_t last = PyList_GET_SIZE(scope->before) - 1;
        PyList_SetSlice(scope->before, last, last + 1, nullptr);
        return nullptr;
    }
    return Py_NewRef(self);
}

PyObject* leave(PyObject* self, PyObject*) {
    auto* scope = reinterpret_cast<Scope*>(self);
    const Py_ssize_t count = scope->before != nullptr ? PyList_GET_SIZE(scope->before) : 0;
    if (count == 0) {
        PyErr_SetString(PyExc_RuntimeError, "[no_grad] this block was left before it was entered; use it in a with statement");
        return nullptr;
    }
    Ref former = Ref::to(PyList_GET_ITEM(scope->before, count - 1));
    Ref mode(PyObject_GetAttrString(self, kMode));
    if (!mode || PyObject_SetAttrString(mode.get(), kEnabled, former.get()) != 0) return nullptr;
    if (PyList_SetSlice(scope->before, count - 1, count, nullptr) != 0) return nullptr;
    Py_RETURN_NONE;
}

void dealloc(PyObject* self) {
    PyTypeObject* type = Py_TYPE(self);
    Py_CLEAR(reinterpret_cast<Scope*>(self)->before);
    type->tp_free(self);
    Py_DECREF(type);
}

PyMethodDef methods[] = {
    {"__enter__", enter, METH_NOARGS, nullptr},
    {"__exit__", leave, METH_VARARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

PyType_Slot slots[] = {
    {Py_tp_methods, methods},
    {Py_tp_dealloc, reinterpret_cast<void*>(dealloc)},
    {0, nullptr},
};

PyType_Spec spec = {"metafuse._compiled.ModeScope", sizeof(Scope), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, slots};

}  // namespace

PyObject* make_mode_scope() { return PyType_FromSpec(&spec); }

}  // namespace metafuse
