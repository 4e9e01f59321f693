// Backward passes that were recorded before: the same as `_backward` of `ops/autograd.py`, which says what it means.
#pragma once

#include "objects.hpp"

namespace metafuse {

// backward(table, settings, loss, targets, retain_graph) -> Vars or None per target, or None if the rules have to be asked.
PyObject* backward(PyObject* self, PyObject* const* arguments, Py_ssize_t count);

}  // namespace metafuse
