#include "backward.hpp"

#include "graph.hpp"
#include "recipes.hpp"
#include "recording.hpp"

namespace metafuse {
namespace {

constexpr Py_ssize_t kFound = -2;  // of nodes that gradients may flow through, until their place is known
constexpr Py_ssize_t kLinear = 16;

// What the rules of gradients would see behind a loss.
class Behind {
public:
    Behind(PyObject* loss, PyObject* targets) : loss_(loss), targets_(targets) {}

    // 1: done, 0: something is unusual, -1: an exception.
    int find_nodes();
    int describe(PyObject* settings);
    PyObject* key() const { return entries_.as_tuple(); }
    PyObject* given() const { return given_.as_list(); }
    bool release() const;

private:
    int note_numbers(PyObject* numbers);
    bool has_hooks(PyObject* node) const;
    bool is_target(PyObject* node) const;
    Py_ssize_t enter(PyObject* node, bool leads);
    PyObject *loss_, *targets_;
    Ref wanted_;  // a set, where there are many targets
    Refs nodes_;  // in order of creation
    Refs given_;
    Places places_;  // among the given ones; `pos` of nodes is for whoever holds the executor's lock
    Few<char, 64> leads_;            // per given node: whether a target is reached through it
    Few<Py_ssize_t, 16> inner_;      // those of them that are no mere target
    Refs entries_;
};

int Behind::find_nodes() {
    if (!known.node.requires_grad.is_true(loss_)) return 1;
    Few<PyObject*, 64> stack;
    const auto found = [&](PyObject* node) {
        places_.at(node) = kFound;
        nodes_.add(node);
        stack.push(node);
    };
    found(loss_);
    while (!stack.empty()) {
        PyObject* node = stack.pop();
        bool ordinary = Py_TYPE(node) == known.node_type;
        const bool stored = !known.node.buffer.is_none(node);
        if (ordinary && stored && known.node.released.is_true(node) && PyTuple_GET_SIZE(known.node.inputs.of(node)) == 0) return 0;
        if (!known.node.rule.is_none(node)) return 0;
        if (ordinary && !known.signature.differentiable.is_true(known.node.sig.of(node))) continue;  // nothing flows on
        PyObject* inputs = known.node.inputs.of(node);
        if (!ordinary) {
            PyObject* block = block_of(node);
            if (stored || PyDict_GET_SIZE(known.block.values.of(block)) != 0) {  // an ordinary node, which knows what is stored
                Ref expanded(PyObject_GetAttrString(node, "inputs"));
                if (!expanded) return -1;
                inputs = known.node.inputs.of(node);
            } else {
                inputs = known.block.given.of(block);
            }
        }
        const Py_ssize_t count = PyTuple_GET_SIZE(inputs);
        for (Py_ssize_t k = 0; k < count; ++k) {
            PyObject* x = PyTuple_GET_ITEM(inputs, k);
            if (known.node.requires_grad.is_true(x) && places_.at(x) != kFound) found(x);
        }
    }
    sort_by_age(nodes_);
    return 1;
}

bool Behind::has_hooks(PyObject* node) const {
    if (!is_held(node)) return false;
    Ref var(PyObject_CallNoArgs(known.node.handle.of(node)));
    Ref hooks(var ? PyObject_GetAttr(var.get(), surroundings.hooks) : nullptr);
    if (!hooks) {
        PyErr_Clear();
        return true;
    }
    return !PyTuple_CheckExact(hooks.get()) || PyTuple_GET_SIZE(hooks.get()) != 0;
}

bool Behind::is_target(PyObject* node) const {
    if (wanted_) return PySet_Contains(wanted_.get(), node) == 1;
    for (Py_ssize_t k = 0; k < PyList_GET_SIZE(targets_); ++k) {
        if (PyList_GET_ITEM(targets_, k) == node) return true;
    }
    return false;
}

Py_ssize_t Behind::enter(PyObject* node, bool leads) {
    const auto place = static_cast<Py_ssize_t>(given_.size());
    places_.at(node) = place;
    given_.add(node);
    leads_.push(leads ? 1 : 0);
    return place;
}

// Plain numbers; zeros of either sign differ, and NaN equals nothing.
int Behind::note_numbers(PyObject* numbers) {
    const Py_ssize_t count = PyTuple_GET_SIZE(numbers);
    Ref plain(PyTuple_New(2 * count));
    if (!plain) return -1;
    for (Py_ssize_t k = 0; k < count; ++k) {
        PyObject* x = PyTuple_GET_ITEM(numbers, k);
        const bool real = PyFloat_CheckExact(x);
        if (!real && !PyLong_CheckExact(x) && !PyBool_Check(x)) return 0;
        const double value = real ? PyFloat_AS_DOUBLE(x) : 1.0;
        if (value != value) return 0;
        PyObject* shown = value == 0.0 ? PyObject_Repr(x) : Py_NewRef(x);
        if (shown == nullptr) return -1;
        PyTuple_SET_ITEM(plain.get(), 2 * k, shown);
        PyTuple_SET_ITEM(plain.get(), 2 * k + 1, Py_NewRef(reinterpret_cast<PyObject*>(Py_TYPE(x))));
    }
    return entries_.take(plain.release()) ? 1 : -1;
}

int Behind::describe(PyObject* settings) {
    if (PyList_GET_SIZE(targets_) > kLinear) {
        wanted_ = Ref(PySet_New(targets_));
        if (!wanted_) return -1;
    }
    if (!entries_.take(grad_enabled())) return -1;
    entries_.add(settings);
    for (std::size_t at = 0; at < nodes_.size(); ++at) {
        PyObject* node = nodes_[at];
        if (has_hooks(node)) return 0;
        PyObject* inputs = known.node.inputs.of(node);
        PyObject* numbers = nullptr;
        if (Py_TYPE(node) == known.node_type) {
            entries_.add(known.node.sig.of(node));
            numbers = known.node.scalars.of(node);
            if (!PyTuple_CheckExact(numbers)) return 0;
        } else {
            PyObject* block = block_of(node);
            entries_.add(known.block.recipe.of(block));
            entries_.add(PyTuple_GET_ITEM(inputs, 1));
            inputs = known.block.given.of(block);
        }
        bool leads = false;
        const Py_ssize_t count = PyTuple_GET_SIZE(inputs);
        for (Py_ssize_t k = 0; k < count; ++k) {
            PyObject* x = PyTuple_GET_ITEM(inputs, k);
            Py_ssize_t place = places_.at(x);
            if (place < 0) place = enter(x, false);
            leads = leads || leads_[static_cast<std::size_t>(place)] != 0;
            if (!entries_.take(PyLong_FromSsize_t(place))) return -1;
        }
        if (leads) inner_.push(static_cast<Py_ssize_t>(at));
        leads = leads || is_target(node);
        if (numbers != nullptr && PyTuple_GET_SIZE(numbers) != 0 && leads) {
            const int noted = note_numbers(numbers);
            if (noted != 1) return noted;
        }
        enter(node, leads);
    }
    entries_.add(Py_None);
    for (Py_ssize_t k = 0; k < PyList_GET_SIZE(targets_); ++k) {
        const Py_ssize_t place = places_.at(PyList_GET_ITEM(targets_, k));
        if (!entries_.take(place < 0 ? Py_NewRef(Py_None) : PyLong_FromSsize_t(place))) return -1;
    }
    return 1;
}

// The graph is given up: what leads to no target, and a target itself, may be asked again.
bool Behind::release() const {
    Ref leads;
    for (const Py_ssize_t at : inner_) {
        PyObject* node = nodes_[static_cast<std::size_t>(at)];
        if (Py_TYPE(node) == known.node_type) {
            known.node.released.set(node, Py_True);
            continue;
        }
        if (!leads) {
            leads = Ref(PySet_New(nullptr));
            for (std::size_t k = 0; leads && k < given_.size(); ++k) {
                if (leads_[k] != 0 && PySet_Add(leads.get(), given_[k]) != 0) return false;
            }
            if (!leads) return false;
        }
        PyObject* block = block_of(node);
        Ref done(PyObject_CallMethod(block, "release", "OO", node, leads.get()));
        if (!done) return false;
    }
    return true;
}

}  // namespace

PyObject* backward(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
    if (count != 5 || !PyDict_Check(arguments[0]) || !is_any_node(arguments[2]) || !PyList_CheckExact(arguments[3]) ||
        !all_nodes(arguments[3])) {
        PyErr_SetString(PyExc_TypeError, "backward(table: dict, settings: int, loss: Node, targets: list of Nodes, retain_graph: bool)");
        return nullptr;
    }
    if (!follows_recipes()) Py_RETURN_NONE;
    Behind behind(arguments[2], arguments[3]);
    int fine = behind.find_nodes();
    if (fine == 1) fine = behind.describe(arguments[1]);
    if (fine < 0) return nullptr;
    if (fine == 0) Py_RETURN_NONE;
    Ref key(behind.key());
    if (!key) return nullptr;
    Ref found = Ref::to(PyDict_GetItemWithError(arguments[0], key.get()));
    if (!found) {
        if (PyErr_Occurred() != nullptr) return nullptr;
        Py_RETURN_NONE;
    }
    Ref given(behind.given());
    Ref origin(user_code());
    if (!given || !origin) return nullptr;
    Ref answers(follow(PyTuple_GET_ITEM(found.get(), 0), given.get(), origin.get()));
    if (!answers) return nullptr;
    PyObject* absent = PyTuple_GET_ITEM(found.get(), 1);  // targets that the loss does not depend on
    for (Py_ssize_t k = 0; k < PyList_GET_SIZE(absent); ++k) {
        if (PyList_Insert(answers.get(), PyLong_AsSsize_t(PyList_GET_ITEM(absent, k)), Py_None) != 0) return nullptr;
    }
    const int kept = PyObject_IsTrue(arguments[4]);
    if (kept < 0 || (kept == 0 && !behind.release())) return nullptr;
    return answers.release();
}

}  // namespace metafuse
