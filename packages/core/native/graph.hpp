// The pending graph behind some roots: the same as `Graph` of `runtime/pending.py`, which says what it means.
#pragma once

#include "objects.hpp"

namespace metafuse {

struct Graph {
    Refs roots;   // pending nodes, each once
    Refs units;   // nodes and blocks, in order of creation
    Refs parts;   // results of blocks that somebody reads
    Refs leaves;  // stored arrays, in the order of first use
    Ref scalars;  // a list
    Ref key;      // a tuple

    // Each answers false with an exception.
    bool collect();
    bool describe();
    // Takes back what both have marked, where nothing comes of it.
    void unmark();

private:
    bool note_input(PyObject* x, long number, bool& in_order);
    bool note_root(PyObject* root);

    Refs entries_;  // of the key
};

// Age of a unit: nodes and blocks have it in different places.
double order_of(PyObject* unit);
// The oldest first.
void sort_by_age(Refs& units);

}  // namespace metafuse
