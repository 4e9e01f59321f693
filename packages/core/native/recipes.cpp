#include "recipes.hpp"

#include <algorithm>
#include <vector>

#include "recording.hpp"

namespace metafuse {
namespace {

bool is_plain(PyObject* value) {
    return value == Py_None || PyBool_Check(value) || PyLong_CheckExact(value) || PyFloat_CheckExact(value) ||
           PyUnicode_CheckExact(value);
}

bool all_of(PyObject* values, PyTypeObject* type) {
    const Py_ssize_t count = PySequence_Fast_GET_SIZE(values);
    for (Py_ssize_t k = 0; k < count; ++k) {
        if (Py_TYPE(PySequence_Fast_GET_ITEM(values, k)) != type) return false;
    }
    return true;
}

// What tells one call of a composition from another, and the nodes that it is given.
class Call {
public:
    // 1: done, 0: such a call is not remembered, -1: an exception.
    int note(PyObject* value);
    int note_named(PyObject* name, PyObject* value);
    bool add(PyObject* owned) { return entries_.take(owned); }
    PyObject* key() const { return entries_.as_tuple(); }
    PyObject* given() const { return given_.as_list(); }

private:
    bool note_node(PyObject* node);
    bool note_plain(PyObject* value);

    Refs entries_;
    Refs given_;
};

bool Call::note_node(PyObject* node) {
    for (std::size_t k = 0; k < given_.size(); ++k) {
        if (given_[k] == node) return add(PyLong_FromSize_t(k));
    }
    entries_.add(known.node.spec.of(node));
    entries_.add(known.node.requires_grad.of(node));
    given_.add(node);
    return true;
}

bool Call::note_plain(PyObject* value) {
    const int says = PyObject_IsTrue(value);
    if (says < 0) return false;
    if (!add(says != 0 ? Py_NewRef(value) : PyObject_Repr(value))) return false;  // zeros of either sign
    entries_.add(reinterpret_cast<PyObject*>(Py_TYPE(value)));
    return true;
}

int Call::note(PyObject* value) {
    if (Py_TYPE(value) == known.var_type) return note_node(known.var.node.of(value)) ? 1 : -1;
    if (is_plain(value)) return note_plain(value) ? 1 : -1;
    if (!PyTuple_CheckExact(value) && !PyList_CheckExact(value)) return 0;
    const Py_ssize_t count = PySequence_Fast_GET_SIZE(value);
    if (all_of(value, &PyLong_Type)) {
        entries_.add(reinterpret_cast<PyObject*>(Py_TYPE(value)));
        for (Py_ssize_t k = 0; k < count; ++k) entries_.add(PySequence_Fast_GET_ITEM(value, k));
        return 1;
    }
    if (!all_of(value, known.var_type)) return 0;
    entries_.add(reinterpret_cast<PyObject*>(Py_TYPE(value)));
    if (!add(PyLong_FromSsize_t(count))) return -1;
    for (Py_ssize_t k = 0; k < count; ++k) {
        if (!note_node(known.var.node.of(PySequence_Fast_GET_ITEM(value, k)))) return -1;
    }
    return 1;
}

int Call::note_named(PyObject* name, PyObject* value) {
    if (!is_plain(value)) return 0;
    entries_.add(name);
    return note_plain(value) ? 1 : -1;
}

// The inputs at `places` of what was given and made so far.
PyObject* picked(PyObject* places, PyObject* given, PyObject* inner) {
    const Py_ssize_t count = PyTuple_GET_SIZE(places);
    PyObject* inputs = PyTuple_New(count);
    for (Py_ssize_t k = 0; inputs != nullptr && k < count; ++k) {
        const Py_ssize_t place = PyLong_AsSsize_t(PyTuple_GET_ITEM(places, k));
        PyObject* node = place < PyList_GET_SIZE(given) ? PyList_GET_ITEM(given, place) : inner;
        PyTuple_SET_ITEM(inputs, k, Py_NewRef(node));
    }
    return inputs;
}

// One or two steps, the last of which is the only result.
PyObject* follow_few(PyObject* steps, PyObject* given, PyObject* origin) {
    Ref inner;
    const Py_ssize_t count = PyList_GET_SIZE(steps);
    for (Py_ssize_t k = 0; k < count; ++k) {
        PyObject* step = PyList_GET_ITEM(steps, k);  // (signature, places, numbers, gradient flag)
        PyObject* sig = PyTuple_GET_ITEM(step, 0);
        Ref inputs(picked(PyTuple_GET_ITEM(step, 1), given, inner.get()));
        if (!inputs) return nullptr;
        const bool last = k == count - 1;
        const bool flows = last ? flows_through(sig, inputs.get()) : PyTuple_GET_ITEM(step, 3) == Py_True;
        Ref node(new_node(known.node_type, sig, flows, nullptr, origin));
        if (!node) return nullptr;
        known.node.inputs.take(node.get(), inputs.release());
        known.node.scalars.set(node.get(), PyTuple_GET_ITEM(step, 2));
        if (last) return new_var(node.get());
        inner = std::move(node);
    }
    return nullptr;
}

PyObject* new_block(PyObject* recipe, PyObject* taken, PyObject* origin) {
    PyObject* block = known.block_type->tp_alloc(known.block_type, 0);
    if (block == nullptr) return nullptr;
    known.block.recipe.set(block, recipe);
    known.block.given.set(block, taken);
    known.block.origin.set(block, origin);
    known.block.scalars.set(block, known.recipe.scalars.of(recipe));
    known.block.order.take(block, PyObject_CallNoArgs(surroundings.next_order));
    known.block.pos.set_number(block, 0);
    known.block.released.take(block, PyTuple_New(0));
    known.block.nodes.take(block, PyList_New(0));
    known.block.values.take(block, PyDict_New());
    known.block.plain.set(block, Py_None);
    return block;
}

// The node of step `step` of a block, entered in it.
PyObject* new_part(PyObject* block, PyObject* recipe, Py_ssize_t step) {
    PyObject* row = PyList_GET_ITEM(known.recipe.steps.of(recipe), step);  // (signature, picks, numbers, gradient flag)
    Ref order(PyNumber_Subtract(known.block.order.of(block), PyList_GET_ITEM(known.recipe.ages.of(recipe), step)));
    if (!order) return nullptr;
    Ref node(new_node(known.block_node_type, PyTuple_GET_ITEM(row, 0), PyTuple_GET_ITEM(row, 3) == Py_True, order.get(),
                      known.block.origin.of(block)));
    Ref number(PyLong_FromSsize_t(step));
    Ref place(number ? PyTuple_Pack(2, block, number.get()) : nullptr);
    if (!node || !place) return nullptr;
    known.node.inputs.take(node.get(), place.release());
    Ref reference(PyWeakref_NewRef(node.get(), nullptr));
    Ref entry(reference ? PyTuple_Pack(2, number.get(), reference.get()) : nullptr);
    if (!entry || PyList_Append(known.block.nodes.of(block), entry.get()) != 0) return nullptr;
    return node.release();
}

// The nodes of the results of a recipe as one block, in a list.
PyObject* as_block(PyObject* recipe, PyObject* taken, PyObject* origin) {
    Ref block(new_block(recipe, taken, origin));
    PyObject* places = known.recipe.results.of(recipe);
    const Py_ssize_t count = PyList_GET_SIZE(places), before = PyTuple_GET_SIZE(taken);
    Ref answer(PyList_New(0));
    if (!block || !answer) return nullptr;
    std::vector<Py_ssize_t> met;
    met.reserve(static_cast<std::size_t>(count));
    for (Py_ssize_t k = 0; k < count; ++k) {
        const Py_ssize_t place = PyLong_AsSsize_t(PyList_GET_ITEM(places, k));
        const auto same = std::find(met.begin(), met.end(), place);  // two results may be one node
        Ref node = same != met.end()  ? Ref::to(PyList_GET_ITEM(answer.get(), same - met.begin()))
                   : place < before ? Ref::to(PyTuple_GET_ITEM(taken, place))
                                    : Ref(new_part(block.get(), recipe, place - before));
        met.push_back(place);
        if (!node || PyList_Append(answer.get(), node.get()) != 0) return nullptr;
    }
    if (!known.recipe.whole.is_true(recipe)) {
        Ref expanded(PyObject_CallMethod(block.get(), "expand", nullptr));
        if (!expanded) return nullptr;
    }
    return answer.release();
}

// The handle of a node: the existing one if it is alive, else a new one.
PyObject* handle_of(PyObject* node) {
    PyObject* handle = known.node.handle.of(node);
    if (handle != Py_None && held_node(handle) == node) {
        Ref var(PyObject_CallNoArgs(handle));
        return var.release();
    }
    return new_var(node);
}

}  // namespace

bool follows_recipes() {
    return PyList_GET_SIZE(surroundings.watchers) == 0 && PyLong_AsLong(known.state.limit.of(surroundings.state)) != 0;
}

PyObject* follow(PyObject* recipe, PyObject* given, PyObject* origin) {
    Ref taken(PyObject_CallOneArg(known.recipe.takes.of(recipe), given));
    if (!taken) return nullptr;
    const bool plainly = !known.recipe.whole.is_true(recipe) && !known.recipe.repeats.is_true(recipe);
    Ref nodes;
    if (plainly) {
        PyObject* arguments[] = {recipe, taken.get(), origin};
        nodes = Ref(PyObject_Vectorcall(surroundings.plainly, arguments, 3, nullptr));
    } else {
        nodes = Ref(as_block(recipe, taken.get(), origin));
    }
    if (!nodes) return nullptr;
    const Py_ssize_t count = PyList_GET_SIZE(nodes.get());
    Ref answers(PyList_New(count));
    for (Py_ssize_t k = 0; answers && k < count; ++k) {
        PyObject* var = handle_of(PyList_GET_ITEM(nodes.get(), k));
        if (var == nullptr) return nullptr;
        PyList_SET_ITEM(answers.get(), k, var);
    }
    return answers.release();
}

PyObject* replay(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
    if (count != 4 || !PyDict_Check(arguments[0]) || !PyList_Check(arguments[1]) || !PyTuple_Check(arguments[2]) ||
        !PyDict_Check(arguments[3])) {
        PyErr_SetString(PyExc_TypeError, "replay(table: dict, now: list, args: tuple, kwargs: dict)");
        return nullptr;
    }
    PyObject *table = arguments[0], *now = arguments[1], *args = arguments[2], *kwargs = arguments[3];
    if (PyList_GET_SIZE(now) == 0 || !follows_recipes()) Py_RETURN_NONE;
    Call call;
    if (!call.add(grad_enabled())) return nullptr;
    call.add(Py_NewRef(PyList_GET_ITEM(now, 0)));
    int noted = 1;
    for (Py_ssize_t k = 0; noted == 1 && k < PyTuple_GET_SIZE(args); ++k) noted = call.note(PyTuple_GET_ITEM(args, k));
    PyObject *name, *value;
    for (Py_ssize_t at = 0; noted == 1 && PyDict_Next(kwargs, &at, &name, &value);) noted = call.note_named(name, value);
    if (noted < 0) return nullptr;
    if (noted == 0) Py_RETURN_NONE;
    Ref key(call.key());
    if (!key) return nullptr;
    Ref found = Ref::to(PyDict_GetItemWithError(table, key.get()));
    if (!found) {
        if (PyErr_Occurred() != nullptr) return nullptr;
        Py_RETURN_NONE;
    }
    PyObject* recipe = PyTuple_GET_ITEM(found.get(), 0);
    const bool several = PyTuple_GET_ITEM(found.get(), 1) == Py_True;
    if (recipe == Py_None) Py_RETURN_NONE;
    Ref given(call.given());
    Ref origin(user_code());
    if (!given || !origin) return nullptr;
    PyObject* few = known.recipe.few.of(recipe);
    if (few != Py_None) {
        Ref only(follow_few(few, given.get(), origin.get()));
        if (!only) return nullptr;
        return several ? PyTuple_Pack(1, only.get()) : only.release();
    }
    Ref answers(follow(recipe, given.get(), origin.get()));
    if (!answers) return nullptr;
    return several ? PyList_AsTuple(answers.get()) : Py_NewRef(PyList_GET_ITEM(answers.get(), 0));
}

}  // namespace metafuse
