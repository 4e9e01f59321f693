// Evaluation of pending nodes whose program is known: the same as `_run` of `runtime/executor.py`, which says what it means.
#pragma once

#include "objects.hpp"

namespace metafuse {

// What evaluation calls in Python, and what it reads; filled once.
struct Surroundings {
    PyObject *state, *statistics, *live, *flags;            // the objects
    PyObject *watchers, *observers, *last_program;           // lists
    PyObject *chosen;                                        // a list: the device, while no flag names one
    PyObject *finished, *names;                              // callbacks; the executor's global names, for its lock
    PyObject *device, *next_version, *new_buffer, *failed, *ordinary, *run_opaque;  // functions
};

extern Surroundings surroundings;

// run(targets or None, alone) -> whether it was done; if not, nothing has changed and the ordinary way is to be taken.
PyObject* run(PyObject* self, PyObject* const* arguments, Py_ssize_t count);

// evaluate(node): what `evaluate` of the executor does for one node.
PyObject* evaluate(PyObject* self, PyObject* node);

// `Buffer.__del__` of `runtime/buffer.py`.
PyObject* free_buffer(PyObject* self, PyObject* none);

}  // namespace metafuse
