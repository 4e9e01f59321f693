// Modes of recording that hold for a `with` block: the same as `_PlainScope` of `ops/autograd.py`, which says what it means.
#pragma once

#include "objects.hpp"

namespace metafuse {

// A new class `ModeScope`, from which the scopes derive; or null with an exception. No signal is handled between a block and
// what its scope takes back: an interruption can't leave the mode behind, as it can where `__exit__` is Python.
PyObject* make_mode_scope();

}  // namespace metafuse
