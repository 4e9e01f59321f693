// Evaluation of pending nodes whose program is known: the same as `_run` of `runtime/executor.py`, which says what it means.
#pragma once

#include "objects.hpp"

namespace metafuse {

// run(targets or None, alone) -> whether it was done; if not, nothing has changed and the ordinary way is to be taken.
PyObject* run(PyObject* self, PyObject* const* arguments, Py_ssize_t count);

// evaluate(node): what `evaluate` of the executor does for one node.
PyObject* evaluate(PyObject* self, PyObject* node);

// `Buffer.__del__` of `runtime/buffer.py`.
PyObject* free_buffer(PyObject* self, PyObject* none);

}  // namespace metafuse
