#include "graph.hpp"

#include <algorithm>

namespace metafuse {
namespace {

long step_of(PyObject* part) { return PyLong_AsLong(PyTuple_GET_ITEM(known.node.inputs.of(part), 1)); }

bool is_node(PyObject* unit) { return Py_TYPE(unit) == known.node_type; }

bool is_block(PyObject* unit) { return Py_TYPE(unit) == known.block_type; }

double as_double(PyObject* number) {
    return PyFloat_CheckExact(number) ? PyFloat_AS_DOUBLE(number) : PyLong_AsDouble(number);
}

bool extend(PyObject* list, PyObject* values) {
    if (values == nullptr || !(PyTuple_CheckExact(values) || PyList_CheckExact(values))) {
        return PyList_SetSlice(list, PyList_GET_SIZE(list), PyList_GET_SIZE(list), values) == 0;
    }
    const Py_ssize_t count = PySequence_Fast_GET_SIZE(values);
    for (Py_ssize_t k = 0; k < count; ++k) {
        if (PyList_Append(list, PySequence_Fast_GET_ITEM(values, k)) != 0) return false;
    }
    return true;
}

PyObject* flows() {
    static PyObject* text = PyUnicode_InternFromString("flows");
    return text;
}

PyObject* released() {
    static PyObject* text = PyUnicode_InternFromString("released");
    return text;
}

}  // namespace

double order_of(PyObject* unit) {
    return as_double(is_block(unit) ? known.block.order.of(unit) : known.node.order.of(unit));
}

void Graph::unmark() {
    for (PyObject* root : roots) known.node.pos.set_number(root, 0);
    for (PyObject* part : parts) known.node.pos.set_number(part, 0);
    for (PyObject* unit : units) (is_block(unit) ? known.block.pos : known.node.pos).set_number(unit, 0);
}

void sort_by_age(Refs& units) {
    const auto older = [](PyObject* a, PyObject* b) { return order_of(a) < order_of(b); };
    if (!std::is_sorted(units.begin(), units.end(), older)) std::stable_sort(units.begin(), units.end(), older);
}

bool Graph::collect() {
    Few<PyObject*, 64> stack;
    for (PyObject* node : roots) {
        stack.push(node);
        known.node.pos.set_number(node, -1);
    }
    while (!stack.empty()) {
        PyObject* node = stack.pop();
        PyObject* inputs = nullptr;
        if (!is_node(node)) {
            PyObject* block = block_of(node);
            if (PyDict_GET_SIZE(known.block.values.of(block)) != 0) {
                Ref expanded(PyObject_GetAttrString(node, "inputs"));  // an ordinary node from now on
                if (!expanded) {
                    known.node.pos.set_number(node, 0);
                    for (PyObject* other : stack) known.node.pos.set_number(other, 0);
                    return false;
                }
            } else {
                parts.add(node);
                if (known.block.pos.number(block) == -1) continue;
                known.block.pos.set_number(block, -1);
                units.add(block);
                inputs = known.block.given.of(block);
            }
        }
        if (inputs == nullptr) {
            units.add(node);
            inputs = known.node.inputs.of(node);
        }
        const Py_ssize_t count = PyTuple_GET_SIZE(inputs);
        for (Py_ssize_t k = 0; k < count; ++k) {
            PyObject* x = PyTuple_GET_ITEM(inputs, k);
            if (known.node.buffer.is_none(x) && known.node.pos.number(x) != -1) {
                known.node.pos.set_number(x, -1);
                stack.push(x);
            }
        }
    }
    sort_by_age(units);
    return true;
}

bool Graph::note_input(PyObject* x, long unit, bool& in_order) {
    long long number;
    const bool requires_grad = known.node.requires_grad.is_true(x);
    if (!known.node.buffer.is_none(x)) {
        // Where a leaf stands is kept in `pos`, which says nothing for stored arrays otherwise.
        const long place = known.node.pos.number(x);
        const bool met = place >= 0 && static_cast<std::size_t>(place) < leaves.size() && leaves[static_cast<std::size_t>(place)] == x;
        number = -4LL * (met ? place : static_cast<long long>(leaves.size())) - 4;
        if (requires_grad && (!is_node(x) || PyTuple_GET_SIZE(known.node.inputs.of(x)) != 0 || is_held(x))) number += 1;
        if (!met) {
            PyObject* order = known.buffer.order.of(known.node.buffer.of(x));
            if (order != Py_None && PyTuple_GET_SIZE(order) != 0) in_order = false;
            known.node.pos.set_number(x, static_cast<long long>(leaves.size()));
            leaves.add(x);
        }
    } else if (is_node(x)) {
        number = static_cast<long long>(unit - known.node.pos.number(x)) << 2;
        if (requires_grad && is_held(x)) number += 1;
    } else {
        number = static_cast<long long>(unit - known.block.pos.number(block_of(x))) << 2;
        number |= static_cast<long long>(step_of(x)) << 40;
        if (requires_grad) number += is_held(x) ? 3 : 2;
    }
    return entries_.take(PyLong_FromLongLong(number));
}

bool Graph::note_root(PyObject* root) {
    if (is_node(root)) return entries_.take(Py_NewRef(known.node.pos.of(root)));
    long long number = known.block.pos.number(block_of(root));
    number |= static_cast<long long>(known.node.requires_grad.is_true(root)) << 39;
    number |= (static_cast<long long>(step_of(root)) + 1) << 40;
    return entries_.take(PyLong_FromLongLong(number));
}

bool Graph::describe() {
    bool in_order = true;  // no array that is not row-major has been met
    bool fine = true;
    scalars = Ref(PyList_New(0));
    if (!scalars) return false;
    for (std::size_t k = 0; fine && k < units.size(); ++k) {
        PyObject* unit = units[k];
        PyObject* inputs;
        const long number = static_cast<long>(k);
        if (is_block(unit)) {
            known.block.pos.set_number(unit, number);
            entries_.take(Py_NewRef(known.block.recipe.of(unit)));
            PyObject* through = known.block.released.of(unit);
            if (PyTuple_GET_SIZE(through) != 0) entries_.take(Py_NewRef(through));
            inputs = known.block.given.of(unit);
            fine = extend(scalars.get(), known.block.scalars.of(unit));
        } else {
            known.node.pos.set_number(unit, number);
            entries_.take(Py_NewRef(known.node.sig.of(unit)));
            if (known.node.requires_grad.is_true(unit)) {
                entries_.take(Py_NewRef(known.node.released.is_true(unit) ? released() : flows()));
            }
            inputs = known.node.inputs.of(unit);
            fine = extend(scalars.get(), known.node.scalars.of(unit));
        }
        const Py_ssize_t count = PyTuple_GET_SIZE(inputs);
        for (Py_ssize_t i = 0; fine && i < count; ++i) fine = note_input(PyTuple_GET_ITEM(inputs, i), number, in_order);
    }
    for (PyObject* part : parts) known.node.pos.set_number(part, 0);
    fine = fine && entries_.take(Py_NewRef(Py_None));
    for (std::size_t k = 0; fine && k < roots.size(); ++k) fine = note_root(roots[k]);
    if (fine && !in_order) {
        Refs orders;
        for (PyObject* leaf : leaves) orders.add(known.buffer.order.of(known.node.buffer.of(leaf)));
        fine = entries_.take(orders.as_tuple());
    }
    if (fine) key = Ref(entries_.as_tuple());
    return fine && key;
}

}  // namespace metafuse
