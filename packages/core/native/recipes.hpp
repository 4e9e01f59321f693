// Recording by recipes: the same as `follow` and `recorded` of `ops/recipe.py`, `Recipe.follow` of `graph/recipe.py` and the
// backward passes of `ops/autograd.py` that are known, which say what it means.
#pragma once

#include "objects.hpp"

namespace metafuse {

// Whether anything is recorded by recipes now: not while somebody watches, and not where each operation runs at once.
bool follows_recipes();

// Handles of the results of a recipe: a list of Vars, or null with an exception. `given`: a list of nodes.
PyObject* follow(PyObject* recipe, PyObject* given, PyObject* origin);

// replay(table, now, args, kwargs) -> what the composition answers, or None if it has to be called.
PyObject* replay(PyObject* self, PyObject* const* arguments, Py_ssize_t count);

}  // namespace metafuse
