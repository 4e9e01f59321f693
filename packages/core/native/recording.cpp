#include "recording.hpp"

#include <frameobject.h>

namespace metafuse {

namespace {

PyFrameObject* caller_of(PyFrameObject* frame) {  // owned
    return PyFrame_GetBack(frame);
}

bool is_ours(PyFrameObject* frame) {
#if PY_VERSION_HEX >= 0x030b0000
    Ref names(PyFrame_GetGlobals(frame));
#else
    Ref names = Ref::to(frame->f_globals);
#endif
    static PyObject* key = PyUnicode_InternFromString("__name__");
    PyObject* name = PyDict_GetItemWithError(names.get(), key);
    if (name == nullptr || !PyUnicode_Check(name) || PyUnicode_GET_LENGTH(name) < 8) return false;
    return PyUnicode_IS_ASCII(name) && std::memcmp(PyUnicode_1BYTE_DATA(name), "metafuse", 8) == 0;
}

int offset_in(PyFrameObject* frame) {
#if PY_VERSION_HEX >= 0x030b0000
    return PyFrame_GetLasti(frame);
#else
    return 2 * frame->f_lasti;  // counted in instructions there
#endif
}

// The frame that `frame` was called from, further out while that is one of ours.
PyObject* place_outside(PyFrameObject* frame) {
    PyFrameObject* at = caller_of(frame);
    if (at == nullptr) at = reinterpret_cast<PyFrameObject*>(Py_NewRef(reinterpret_cast<PyObject*>(frame)));
    while (is_ours(at)) {
        PyFrameObject* further = caller_of(at);
        if (further == nullptr) break;
        Py_DECREF(at);
        at = further;
    }
    Ref owned(reinterpret_cast<PyObject*>(at));
    Ref code(reinterpret_cast<PyObject*>(PyFrame_GetCode(at)));
    Ref offset(PyLong_FromLong(offset_in(at)));
    return offset ? PyTuple_Pack(2, code.get(), offset.get()) : nullptr;
}

PyObject* nothing() {
    static PyObject* empty = PyTuple_New(0);
    return empty;
}

}  // namespace

PyObject* grad_enabled() {
    static PyObject* const name = PyUnicode_InternFromString("enabled");
    return PyObject_GetAttr(known.state.mode.of(surroundings.state), name);
}

bool flows_through(PyObject* sig, PyObject* inputs) {
    if (!known.signature.differentiable.is_true(sig)) return false;
    const Py_ssize_t count = PyTuple_GET_SIZE(inputs);
    for (Py_ssize_t k = 0; k < count; ++k) {
        if (!known.node.requires_grad.is_true(PyTuple_GET_ITEM(inputs, k))) continue;
        Ref enabled(grad_enabled());
        if (!enabled) PyErr_Clear();
        return enabled.get() == Py_True;
    }
    return false;
}

PyObject* new_node(PyTypeObject* type, PyObject* sig, bool requires_grad, PyObject* order, PyObject* origin) {
    Ref own(order != nullptr ? Py_NewRef(order) : PyObject_CallNoArgs(surroundings.next_order));
    if (!own) return nullptr;
    PyObject* node = type->tp_alloc(type, 0);
    if (node == nullptr) return nullptr;
    static PyObject* zero = PyLong_FromLong(0);
    known.node.sig.set(node, sig);
    known.node.spec.set(node, known.signature.spec.of(sig));
    known.node.requires_grad.set(node, requires_grad ? Py_True : Py_False);
    known.node.buffer.set(node, Py_None);
    known.node.order.take(node, own.release());
    known.node.handle.set(node, Py_None);
    known.node.origin.set(node, origin);
    known.node.pos.set(node, zero);
    known.node.released.set(node, Py_False);
    known.node.rule.set(node, Py_None);
    return node;
}

PyObject* new_var(PyObject* node) {
    Ref var(known.var_type->tp_alloc(known.var_type, 0));
    if (!var) return nullptr;
    known.var.node.set(var.get(), node);
    Ref handle(PyWeakref_NewRef(var.get(), nullptr));
    if (!handle) return nullptr;
    known.node.handle.set(node, handle.get());
    if (!known.node.buffer.is_none(node)) return var.release();
    PyObject* pending = known.state.pending.of(surroundings.state);
    if (PyList_Append(pending, handle.get()) != 0) return nullptr;
    if (PyList_GET_SIZE(pending) > PyLong_AsSsize_t(known.state.limit.of(surroundings.state))) {
        Ref done(PyObject_CallNoArgs(surroundings.sync_all));
        if (!done) return nullptr;
    }
    return var.release();
}

PyObject* record(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
    if (count < 2 || count > 3 || Py_TYPE(arguments[0]) != known.signature_type || !PyTuple_CheckExact(arguments[1]) ||
        !all_nodes(arguments[1])) {
        PyErr_SetString(PyExc_TypeError, "record(sig: Signature, inputs: tuple of Nodes, scalars = ())");
        return nullptr;
    }
    PyObject *sig = arguments[0], *inputs = arguments[1];
    PyFrameObject* frame = PyEval_GetFrame();  // the operator's: C has none of its own
    Ref origin(frame != nullptr ? place_outside(frame) : Py_NewRef(Py_None));
    if (!origin) return nullptr;
    Ref node(new_node(known.node_type, sig, flows_through(sig, inputs), nullptr, origin.get()));
    if (!node) return nullptr;
    known.node.inputs.set(node.get(), inputs);
    known.node.scalars.set(node.get(), count == 3 ? arguments[2] : nothing());
    return new_var(node.get());
}

PyObject* user_code() {
    PyFrameObject* frame = PyEval_GetFrame();
    return frame != nullptr ? place_outside(frame) : Py_NewRef(Py_None);
}

}  // namespace metafuse
