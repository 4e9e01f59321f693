// What a run of a program needs, as plain numbers: made once per `Route` of `runtime/pending.py` and kept in it.
#pragma once

#include <vector>

#include "objects.hpp"

namespace metafuse {

struct Prepared {
    // Null where the program needs the ordinary way (leaves that have to be stored anew, a backend that runs step by step); null
    // with an exception on errors.
    static Prepared* of(PyObject* route, PyObject* backend);

    struct Step {
        Ref step;
        Py_ssize_t opaque;  // the unit whose code is run, or -1: a native run
    };
    struct Result {
        Py_ssize_t root, slot;
    };
    struct Passing {
        Py_ssize_t unit, step, slot;
    };
    struct Donation {
        Py_ssize_t slot, leaf, uses;
    };
    struct Uses {
        Py_ssize_t number, uses;
    };
    struct Piece {
        Py_ssize_t slot;
        Ref bytes;
    };
    struct Order {
        Py_ssize_t slot;
        Ref order;
    };

    Ref backend, program, run, alloc, free, part, arena_bytes;
    std::vector<Step> steps;
    Py_ssize_t native_steps = 0;
    bool any_opaque = false;
    std::vector<Py_ssize_t> leaves, scalars, cut;
    bool leaves_in_order = true, scalars_in_order = true;
    std::vector<Result> results;
    std::vector<Passing> passing;
    std::vector<Donation> donations;
    std::vector<Uses> units, parts;
    std::vector<Piece> outputs, temporaries, constants;
    std::vector<Py_ssize_t> constant_leaves, constant_scalars;  // what constants come from
    std::vector<Ref> places;
    std::vector<Order> orders;
    Py_ssize_t leaf_count = 0, slot_count = 0;
};

}  // namespace metafuse
