// Recording of operations: the same as `record` of `var.py` and `user_code` of `ops/recipe.py`, which say what it means.
#pragma once

#include "objects.hpp"

namespace metafuse {

// A node that waits to run, still without inputs and numbers; without an order it takes the next one.
PyObject* new_node(PyTypeObject* type, PyObject* sig, bool requires_grad, PyObject* order, PyObject* origin);

// A new Var that holds `node`, which is pending unless it is stored.
PyObject* new_var(PyObject* node);

// Whether this thread records gradient paths: True or False, owned, or null with an exception.
PyObject* grad_enabled();

// Whether gradients flow through such an operation on these nodes.
bool flows_through(PyObject* sig, PyObject* inputs);

// record(sig, inputs, scalars=()) -> Var
PyObject* record(PyObject* self, PyObject* const* arguments, Py_ssize_t count);

// The innermost place outside of metafuse as (code, offset), seen from the frame that called the running function.
PyObject* user_code();

}  // namespace metafuse
