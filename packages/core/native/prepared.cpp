#include "prepared.hpp"

#include <memory>

namespace metafuse {
namespace {

// The items of a sequence attribute of `owner`; `next` answers borrowed items.
class Items {
public:
    Items(PyObject* owner, const char* name) : whole_(PyObject_GetAttrString(owner, name)) {
        if (whole_ && whole_.get() != Py_None) fast_ = Ref(PySequence_Fast(whole_.get(), name));
    }
    bool none() const { return whole_ && whole_.get() == Py_None; }
    Py_ssize_t size() const { return fast_ ? PySequence_Fast_GET_SIZE(fast_.get()) : 0; }
    PyObject* operator[](Py_ssize_t k) const { return PySequence_Fast_GET_ITEM(fast_.get(), k); }
    Py_ssize_t number(Py_ssize_t k) const { return PyLong_AsSsize_t((*this)[k]); }
    Py_ssize_t number(Py_ssize_t k, Py_ssize_t at) const { return PyLong_AsSsize_t(PyTuple_GetItem((*this)[k], at)); }

private:
    Ref whole_, fast_;
};

bool is_empty(PyObject* owner, const char* name) {
    Ref value(PyObject_GetAttrString(owner, name));
    return value && PyObject_Size(value.get()) == 0;
}

void fill_numbers(std::vector<Py_ssize_t>& numbers, const Items& items) {
    for (Py_ssize_t k = 0; k < items.size(); ++k) numbers.push_back(items.number(k));
}

void fill_pieces(std::vector<Prepared::Piece>& pieces, const Items& items) {
    for (Py_ssize_t k = 0; k < items.size(); ++k) {
        pieces.push_back({items.number(k, 0), Ref::to(PyTuple_GetItem(items[k], 1))});
    }
}

void fill_uses(std::vector<Prepared::Uses>& uses, const Items& items) {
    for (Py_ssize_t k = 0; k < items.size(); ++k) uses.push_back({items.number(k, 0), items.number(k, 1)});
}

// The native runs and opaque steps in order; false where one is of a backend that runs step by step.
bool fill_steps(Prepared& p, PyObject* route, PyObject* program) {
    const Items steps(program, "parts"), opaque(route, "opaque");
    for (Py_ssize_t k = 0; k < steps.size(); ++k) {
        if (PyTuple_Check(steps[k])) return false;
        if (Py_TYPE(steps[k]) != known.opaque_step_type) {
            p.steps.push_back({Ref::to(steps[k]), -1});
            p.native_steps += 1;
            continue;
        }
        Ref position(PyObject_GetAttrString(steps[k], "position"));
        Py_ssize_t unit = -1;
        for (Py_ssize_t j = 0; position && j < opaque.size(); ++j) {
            if (opaque.number(j, 0) == PyLong_AsSsize_t(position.get())) unit = opaque.number(j, 1);
        }
        if (unit < 0) return false;
        p.steps.push_back({Ref::to(steps[k]), unit});
        p.any_opaque = true;
    }
    return true;
}

}  // namespace

Prepared* Prepared::of(PyObject* route, PyObject* backend) {
    auto made = std::make_unique<Prepared>();
    Prepared& p = *made;
    PyObject* program = known.route.program.of(route);
    PyObject* plan = known.program.plan.of(program);
    if (!is_empty(plan, "row_major")) return nullptr;
    if (!fill_steps(p, route, program)) return nullptr;
    p.backend = Ref::to(backend);
    p.program = Ref::to(program);
    if (p.native_steps != 0) {
        p.run = Ref(PyObject_GetAttrString(backend, "run"));
        if (!p.run) return nullptr;
    }
    p.alloc = Ref(PyObject_GetAttrString(backend, "alloc"));
    p.free = Ref(PyObject_GetAttrString(backend, "free"));
    if (!p.alloc || !p.free) return nullptr;
    const Items leaves(route, "leaves"), scalars(route, "scalars");
    p.leaves_in_order = leaves.none();
    p.scalars_in_order = scalars.none();
    fill_numbers(p.leaves, leaves);
    fill_numbers(p.scalars, scalars);
    fill_numbers(p.cut, Items(route, "cut"));
    const Items results(route, "results"), passing(route, "passing"), donations(route, "donations");
    for (Py_ssize_t k = 0; k < results.size(); ++k) p.results.push_back({results.number(k, 0), results.number(k, 1)});
    for (Py_ssize_t k = 0; k < passing.size(); ++k) {
        p.passing.push_back({passing.number(k, 0), passing.number(k, 1), passing.number(k, 2)});
    }
    for (Py_ssize_t k = 0; k < donations.size(); ++k) {
        p.donations.push_back({donations.number(k, 0), donations.number(k, 1), donations.number(k, 2)});
    }
    fill_uses(p.units, Items(route, "units"));
    fill_uses(p.parts, Items(route, "parts"));
    fill_pieces(p.outputs, Items(plan, "outputs"));
    fill_pieces(p.temporaries, Items(plan, "temporaries"));
    Ref constant(PyObject_GetAttrString(plan, "constant"));
    if (!constant) return nullptr;
    fill_pieces(p.constants, Items(constant.get(), "slots"));
    fill_numbers(p.constant_leaves, Items(constant.get(), "leaves"));
    fill_numbers(p.constant_scalars, Items(constant.get(), "scalars"));
    const Items places(plan, "places"), orders(plan, "orders");
    for (Py_ssize_t k = 0; k < places.size(); ++k) p.places.push_back(Ref::to(places[k]));
    for (Py_ssize_t k = 0; k < orders.size(); ++k) {
        p.orders.push_back({orders.number(k, 0), Ref::to(PyTuple_GetItem(orders[k], 1))});
    }
    if (places.size() != 0 && p.any_opaque) return nullptr;  // code is given buffers, not parts of one
    if (places.size() != 0) {
        p.part = Ref(PyObject_GetAttrString(backend, "part"));
        p.arena_bytes = Ref(PyObject_GetAttrString(plan, "arena_bytes"));
    }
    Ref count(PyObject_GetAttrString(plan, "leaves"));
    if (PyErr_Occurred() != nullptr || !count) return nullptr;
    p.leaf_count = PyLong_AsSsize_t(count.get());
    p.slot_count = p.leaf_count + static_cast<Py_ssize_t>(p.outputs.size() + p.temporaries.size());
    return made.release();
}

}  // namespace metafuse
