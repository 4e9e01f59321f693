#include "evaluation.hpp"

#include <limits>

#include "graph.hpp"
#include "prepared.hpp"

namespace metafuse {

namespace {

const char* const kCapsule = "metafuse.prepared";

bool is_finalizing() {
#if PY_VERSION_HEX >= 0x030d0000
    return Py_IsFinalizing() != 0;
#else
    return _Py_IsFinalizing() != 0;
#endif
}

// Sets an exception aside while something else is called.
class Kept {
public:
    Kept() { PyErr_Fetch(&kind_, &value_, &trace_); }
    ~Kept() { PyErr_Restore(kind_, value_, trace_); }
    Kept(const Kept&) = delete;
    Kept& operator=(const Kept&) = delete;

private:
    PyObject *kind_ = nullptr, *value_ = nullptr, *trace_ = nullptr;
};

void forget(PyObject* capsule) { delete static_cast<Prepared*>(PyCapsule_GetPointer(capsule, kCapsule)); }

// One evaluation, from the list of pending handles to stored values.
class Evaluation {
public:
    // Whether it was done; 0: take the ordinary way; -1: an exception.
    int run(PyObject* targets, bool alone);

private:
    void take_pending(PyObject* targets, bool alone);
    bool keep_rest();
    int find_route(PyObject* device);
    bool is_unshared() const;
    bool bind();
    void bind_leaves();
    void take_over();
    bool bind_new();
    bool bind_temporaries();
    bool bind_constants();
    bool bind_numbers();
    PyObject* versions(bool& unseen) const;
    PyObject* new_buffer(PyObject* bytes);
    bool launch();
    bool launch_native(PyObject* step, bool changed);
    bool launch_opaque(const Prepared::Step& step);
    bool store();
    bool store_passing(const Prepared::Passing& passing);

    Graph graph_;
    Refs rest_;               // handles that stay pending
    Ref waiting_;             // the list of pending handles, of which the first `seen_` were looked at
    Py_ssize_t seen_ = 0;
    const Prepared* prepared_ = nullptr;
    Ref route_;  // keeps what was prepared
    Refs slots_;
    Ref device_, handles_, numbers_, arena_;
    bool launching_ = false;
};

void Evaluation::take_pending(PyObject* targets, bool alone) {
    double limit = std::numeric_limits<double>::infinity();
    if (targets != Py_None) {
        limit = -limit;
        const Py_ssize_t count = PyList_GET_SIZE(targets);
        for (Py_ssize_t k = 0; k < count; ++k) {
            PyObject* node = PyList_GET_ITEM(targets, k);
            if (known.node.pos.number(node) == -2) continue;  // named twice
            const bool ordinary = Py_TYPE(node) == known.node_type;
            const double age = order_of(ordinary ? node : block_of(node));
            if (age > limit) limit = age;
            known.node.pos.set_number(node, -2);
            graph_.roots.add(node);
        }
    }
    waiting_ = Ref::to(known.state.pending.of(surroundings.state));
    seen_ = PyList_GET_SIZE(waiting_.get());
    for (Py_ssize_t k = 0; k < seen_; ++k) {
        PyObject* handle = PyList_GET_ITEM(waiting_.get(), k);
        PyObject* node = held_node(handle);
        if (node == nullptr || !known.node.buffer.is_none(node) || known.node.pos.number(node) == -2) continue;
        if (alone || order_of(node) > limit) {
            rest_.add(handle);
        } else {
            known.node.pos.set_number(node, -2);
            graph_.roots.add(node);
        }
    }
}

bool Evaluation::keep_rest() {
    Ref list(PyList_New(0));
    if (!list) return false;
    // What others have recorded since, while Python code ran for us, is pending as well.
    PyObject* now = known.state.pending.of(surroundings.state);
    for (Py_ssize_t k = now == waiting_.get() ? seen_ : 0; k < PyList_GET_SIZE(now); ++k) rest_.add(PyList_GET_ITEM(now, k));
    Places met;  // a handle that was bound anew several times is there several times
    for (PyObject* handle : rest_) {
        if (rest_.size() > 1 && std::exchange(met.at(handle), 0) == 0) continue;
        if (PyList_Append(list.get(), handle) != 0) return false;
    }
    known.state.pending.take(surroundings.state, list.release());
    return true;
}

int Evaluation::find_route(PyObject* device) {
    Ref routes(PyObject_GetAttrString(device, "routes"));
    if (!routes) return -1;
    PyObject* library = known.flags.library.of(surroundings.flags);
    PyObject* math = known.flags.math.of(surroundings.flags);
    if (library == nullptr || math == nullptr) return 0;
    Ref key(PyTuple_Pack(3, graph_.key.get(), library, math));
    if (!key) return -1;
    PyObject* route = PyDict_GetItemWithError(routes.get(), key.get());
    if (route == nullptr) return PyErr_Occurred() != nullptr ? -1 : 0;
    route_ = Ref::to(route);
    PyObject* prepared = known.route.prepared.of(route);
    if (prepared == Py_None) {
        Ref backend(PyObject_GetAttrString(device, "backend"));
        if (!backend) return -1;
        Prepared* made = Prepared::of(route, backend.get());
        if (PyErr_Occurred() != nullptr) return -1;
        PyObject* kept = made == nullptr ? Py_NewRef(Py_False) : PyCapsule_New(made, kCapsule, forget);
        if (kept == nullptr) return -1;
        known.route.prepared.take(route, kept);
        prepared = kept;
    }
    if (prepared == Py_False) return 0;
    prepared_ = static_cast<const Prepared*>(PyCapsule_GetPointer(prepared, kCapsule));
    if (prepared_ == nullptr) return -1;
    for (PyObject* leaf : graph_.leaves) {  // another backend's arrays are moved the ordinary way
        if (known.buffer.backend.of(known.node.buffer.of(leaf)) != prepared_->backend.get()) return 0;
    }
    return 1;
}

// Whether nothing outside refers to what is between leaves and roots; one reference to each is ours.
bool Evaluation::is_unshared() const {
    for (const Prepared::Uses& u : prepared_->units) {
        if (Py_REFCNT(graph_.units[static_cast<std::size_t>(u.number)]) > u.uses + 1) return false;
    }
    for (const Prepared::Uses& u : prepared_->parts) {
        if (Py_REFCNT(graph_.parts[static_cast<std::size_t>(u.number)]) > u.uses + 1) return false;
    }
    return true;
}

PyObject* Evaluation::new_buffer(PyObject* bytes) {
    PyObject* handle = PyObject_CallOneArg(prepared_->alloc.get(), bytes);
    if (handle == nullptr) {  // once more the ordinary way, which makes room or says who holds the memory
        if (PyErr_ExceptionMatches(PyExc_Exception) == 0) return nullptr;  // an interruption
        PyErr_Clear();
        PyObject* arguments[] = {prepared_->backend.get(), bytes};
        return PyObject_Vectorcall(surroundings.new_buffer, arguments, 2, nullptr);
    }
    Ref owned(handle);
    Ref version(PyObject_CallNoArgs(surroundings.next_version));
    if (!version) return nullptr;
    PyObject* buffer = known.buffer_type->tp_alloc(known.buffer_type, 0);
    if (buffer == nullptr) return nullptr;
    known.buffer.backend.set(buffer, prepared_->backend.get());
    known.buffer.nbytes.set(buffer, bytes);
    known.buffer.order.set(buffer, Py_None);
    known.buffer.version.take(buffer, version.release());
    known.buffer.handle.take(buffer, owned.release());
    known.buffer.free.set(buffer, prepared_->free.get());
    PyObject* live = surroundings.live;
    const long long now = PyLong_AsLongLong(known.live.now.of(live)) + PyLong_AsLongLong(bytes);
    known.live.now.set_number(live, now);
    known.live.count.set_number(live, known.live.count.number(live) + 1);
    if (now > PyLong_AsLongLong(known.live.peak.of(live))) known.live.peak.set_number(live, now);
    return buffer;
}

void Evaluation::bind_leaves() {
    const auto count = static_cast<std::size_t>(prepared_->leaf_count);
    for (std::size_t k = 0; k < count; ++k) {
        const std::size_t at = prepared_->leaves_in_order ? k : static_cast<std::size_t>(prepared_->leaves[k]);
        slots_.add(known.node.buffer.of(graph_.leaves[at]));
    }
    slots_.resize(static_cast<std::size_t>(prepared_->slot_count), nullptr);
}

// Results take over the memory of leaves that nobody else refers to.
void Evaluation::take_over() {
    for (const Prepared::Donation& d : prepared_->donations) {
        const auto place = static_cast<std::size_t>(d.leaf);
        PyObject* leaf = graph_.leaves[prepared_->leaves_in_order ? place : static_cast<std::size_t>(prepared_->leaves[place])];
        PyObject* buffer = known.node.buffer.of(leaf);
        // A leaf is referred to by our list and by the inputs of the graph's units, its buffer by the leaf and our slot.
        if (is_held(leaf) || Py_REFCNT(leaf) > d.uses + 1 || Py_REFCNT(buffer) > 2) continue;
        PyObject* version = PyObject_CallNoArgs(surroundings.next_version);
        if (version == nullptr) {
            PyErr_Clear();
            continue;
        }
        slots_[static_cast<std::size_t>(d.slot)] = Py_NewRef(buffer);
        known.buffer.order.set(buffer, Py_None);
        known.buffer.version.take(buffer, version);
    }
}

bool Evaluation::bind_new() {
    for (const Prepared::Piece& output : prepared_->outputs) {
        PyObject*& slot = slots_[static_cast<std::size_t>(output.slot)];
        if (slot != nullptr) continue;
        PyObject* made = new_buffer(output.bytes.get());
        if (made == nullptr) return false;
        slots_[static_cast<std::size_t>(output.slot)] = made;
    }
    for (const Prepared::Order& o : prepared_->orders) {
        known.buffer.order.set(slots_[static_cast<std::size_t>(o.slot)], o.order.get());
    }
    return true;
}

// Temporaries within one allocation have no buffer, only an address.
bool Evaluation::bind_temporaries() {
    const bool apart = prepared_->places.empty();
    if (!apart) {
        const long long bytes = PyLong_AsLongLong(prepared_->arena_bytes.get());
        Ref room(PyLong_FromLongLong(bytes > 0 ? bytes : 1));
        if (!room) return false;
        arena_ = Ref(new_buffer(room.get()));
        if (!arena_) return false;
    }
    for (std::size_t k = 0; k < prepared_->temporaries.size(); ++k) {
        const Prepared::Piece& piece = prepared_->temporaries[k];
        PyObject* handle;
        if (apart) {
            PyObject* made = new_buffer(piece.bytes.get());
            if (made == nullptr) return false;
            slots_[static_cast<std::size_t>(piece.slot)] = made;
            handle = Py_NewRef(known.buffer.handle.of(made));
        } else {
            PyObject* arguments[] = {known.buffer.handle.of(arena_.get()), prepared_->places[k].get()};
            handle = PyObject_Vectorcall(prepared_->part.get(), arguments, 2, nullptr);
            if (handle == nullptr) return false;
        }
        PyList_SET_ITEM(handles_.get(), piece.slot, handle);
    }
    return true;
}

bool Evaluation::bind() {
    const bool donates = !prepared_->donations.empty() && rest_.empty() && is_unshared();
    bind_leaves();
    if (donates) take_over();
    if (!bind_new()) return false;
    handles_ = Ref(PyList_New(prepared_->slot_count));
    if (!handles_ || !bind_temporaries()) return false;
    for (Py_ssize_t k = 0; k < prepared_->slot_count; ++k) {
        PyObject* buffer = slots_[static_cast<std::size_t>(k)];
        if (PyList_GET_ITEM(handles_.get(), k) == nullptr) {
            PyList_SET_ITEM(handles_.get(), k, Py_NewRef(known.buffer.handle.of(buffer)));
        }
    }
    return bind_constants() && bind_numbers();
}

// Memory of constants stays with the program.
bool Evaluation::bind_constants() {
    if (prepared_->constants.empty()) return true;
    PyObject* kept = known.program.kept.of(prepared_->program.get());
    if (PyList_GET_SIZE(kept) == 0) {
        Ref made(PyList_New(0));
        for (const Prepared::Piece& piece : prepared_->constants) {
            Ref buffer(made ? new_buffer(piece.bytes.get()) : nullptr);
            if (!buffer || PyList_Append(made.get(), buffer.get()) != 0) return false;
        }
        known.program.kept.take(prepared_->program.get(), made.release());
        kept = known.program.kept.of(prepared_->program.get());
    }
    for (Py_ssize_t k = 0; k < PyList_GET_SIZE(kept); ++k) {
        slots_.add(PyList_GET_ITEM(kept, k));
        if (PyList_Append(handles_.get(), known.buffer.handle.of(PyList_GET_ITEM(kept, k))) != 0) return false;
    }
    return true;
}

bool Evaluation::bind_numbers() {
    if (prepared_->scalars_in_order) {
        numbers_ = Ref::to(graph_.scalars.get());
        return true;
    }
    numbers_ = Ref(PyList_New(static_cast<Py_ssize_t>(prepared_->scalars.size())));
    if (!numbers_) return false;
    for (std::size_t k = 0; k < prepared_->scalars.size(); ++k) {
        PyObject* number = PyList_GET_ITEM(graph_.scalars.get(), prepared_->scalars[k]);
        PyList_SET_ITEM(numbers_.get(), static_cast<Py_ssize_t>(k), Py_NewRef(number));
    }
    return true;
}

// What constants come from, as numbers that differ if anything does. `unseen`: somebody may have written to an array.
PyObject* Evaluation::versions(bool& unseen) const {
    const std::size_t leaves = prepared_->constant_leaves.size(), scalars = prepared_->constant_scalars.size();
    PyObject* all = PyTuple_New(static_cast<Py_ssize_t>(leaves + scalars));
    if (all == nullptr) return nullptr;
    for (std::size_t k = 0; k < leaves; ++k) {
        PyObject* version = known.buffer.version.of(slots_[static_cast<std::size_t>(prepared_->constant_leaves[k])]);
        unseen = unseen || PyLong_AsLongLong(version) == 0;
        PyTuple_SET_ITEM(all, static_cast<Py_ssize_t>(k), Py_NewRef(version));
    }
    for (std::size_t k = 0; k < scalars; ++k) {
        PyObject* number = PyList_GET_ITEM(numbers_.get(), prepared_->constant_scalars[k]);
        PyTuple_SET_ITEM(all, static_cast<Py_ssize_t>(leaves + k), Py_NewRef(number));
    }
    return all;
}

bool Evaluation::launch_native(PyObject* step, bool changed) {
    PyObject* arguments[] = {step, handles_.get(), numbers_.get(), changed ? Py_True : Py_False};
    launching_ = true;
    Ref done(PyObject_Vectorcall(prepared_->run.get(), arguments, 4, nullptr));
    launching_ = !done;
    return static_cast<bool>(done);
}

// A user's code or a host function, which is given buffers.
bool Evaluation::launch_opaque(const Prepared::Step& step) {
    Ref slots(slots_.as_list());
    if (!slots) return false;
    PyObject* node = graph_.units[static_cast<std::size_t>(step.opaque)];
    PyObject* arguments[] = {step.step.get(), device_.get(), slots.get(), node};
    Ref done(PyObject_Vectorcall(surroundings.run_opaque, arguments, 4, nullptr));
    return static_cast<bool>(done);
}

bool Evaluation::launch() {
    PyObject* program = prepared_->program.get();
    bool changed = false;
    Ref now(versions(changed));
    const int differs = now ? PyObject_RichCompareBool(now.get(), known.program.state.of(program), Py_NE) : -1;
    if (differs < 0) return false;
    changed = changed || differs == 1;
    known.program.state.set(program, Py_None);  // until everything has run
    const long launches = known.statistics.launches.number(surroundings.statistics);
    known.statistics.launches.set_number(surroundings.statistics, launches + static_cast<long>(prepared_->native_steps));
    for (const Prepared::Step& step : prepared_->steps) {
        if (!(step.opaque < 0 ? launch_native(step.step.get(), changed) : launch_opaque(step))) return false;
    }
    known.program.state.take(program, now.release());
    return true;
}

bool Evaluation::store_passing(const Prepared::Passing& passing) {
    PyObject* unit = graph_.units[static_cast<std::size_t>(passing.unit)];
    PyObject* buffer = slots_[static_cast<std::size_t>(passing.slot)];
    if (passing.step < 0) {
        known.node.buffer.set(unit, buffer);
        return true;
    }
    Ref step(PyLong_FromSsize_t(passing.step));
    if (!step || PyDict_SetItem(known.block.values.of(unit), step.get(), buffer) != 0) return false;
    PyObject* nodes = known.block.nodes.of(unit);
    for (Py_ssize_t k = 0; k < PyList_GET_SIZE(nodes); ++k) {
        PyObject* entry = PyList_GET_ITEM(nodes, k);
        if (PyLong_AsSsize_t(PyTuple_GET_ITEM(entry, 0)) != passing.step) continue;
        Ref node(PyObject_CallNoArgs(PyTuple_GET_ITEM(entry, 1)));
        if (!node) return false;
        if (node.get() != Py_None && known.node.buffer.is_none(node.get())) known.node.buffer.set(node.get(), buffer);
    }
    return true;
}

bool Evaluation::store() {
    for (const Prepared::Result& result : prepared_->results) {
        PyObject* root = graph_.roots[static_cast<std::size_t>(result.root)];
        PyObject* buffer = slots_[static_cast<std::size_t>(result.slot)];
        known.node.buffer.set(root, buffer);
        if (Py_TYPE(root) == known.node_type) continue;
        PyObject* place = known.node.inputs.of(root);  // (block, step)
        if (PyDict_SetItem(known.block.values.of(PyTuple_GET_ITEM(place, 0)), PyTuple_GET_ITEM(place, 1), buffer) != 0) return false;
    }
    for (const Prepared::Passing& passing : prepared_->passing) {
        if (!store_passing(passing)) return false;
    }
    for (const Py_ssize_t number : prepared_->cut) {
        PyObject* root = graph_.roots[static_cast<std::size_t>(number)];
        Ref nothing(PyTuple_New(0));
        if (Py_TYPE(root) == known.node_type) {
            known.node.inputs.take(root, nothing.release());
        } else if (PyObject_SetAttrString(root, "inputs", nothing.get()) != 0) {
            return false;
        }
    }
    return PyList_SetSlice(surroundings.last_program, 0, PyList_GET_SIZE(surroundings.last_program), nullptr) == 0 &&
           PyList_Append(surroundings.last_program, prepared_->program.get()) == 0;
}

int Evaluation::run(PyObject* targets, bool alone) {
    take_pending(targets, alone);
    if (graph_.roots.empty()) return keep_rest() ? 1 : -1;
    if (!graph_.collect() || !graph_.describe()) {
        graph_.unmark();
        return -1;
    }
    PyObject* chosen = surroundings.chosen;
    device_ = Ref(PyList_GET_SIZE(chosen) != 0 ? Py_NewRef(PyList_GET_ITEM(chosen, 0)) : PyObject_CallNoArgs(surroundings.device));
    const int found = device_ ? find_route(device_.get()) : -1;
    if (found != 1) {
        graph_.unmark();
        return found;
    }
    const long programs = known.statistics.programs.number(surroundings.statistics);
    known.statistics.programs.set_number(surroundings.statistics, programs + 1);
    if (!keep_rest()) return -1;
    if (bind() && launch() && store()) return 1;
    // Nothing is lost: what was pending is pending again, and the error says where it happened.
    PyObject *kind, *value, *trace;
    PyErr_Fetch(&kind, &value, &trace);
    PyErr_NormalizeException(&kind, &value, &trace);
    if (trace != nullptr) PyException_SetTraceback(value, trace);
    Ref owned_kind(kind), owned_value(value), owned_trace(trace);
    Ref roots(graph_.roots.as_list());
    if (!roots) return -1;
    PyObject* arguments[] = {value, roots.get(), launching_ ? Py_True : Py_False};
    Ref never(PyObject_Vectorcall(surroundings.failed, arguments, 3, nullptr));  // raises
    return -1;
}

}  // namespace

PyObject* free_buffer(PyObject* self, PyObject*) {
    PyObject* free = known.buffer.free.of(self);
    if (free == nullptr || is_finalizing()) Py_RETURN_NONE;  // alloc failed, or the process gives everything back
    PyObject* live = surroundings.live;
    const long long now = PyLong_AsLongLong(known.live.now.of(live)) - PyLong_AsLongLong(known.buffer.nbytes.of(self));
    known.live.now.set_number(live, now);
    known.live.count.set_number(live, known.live.count.number(live) - 1);
    return PyObject_CallOneArg(free, known.buffer.handle.of(self));
}

namespace {

// 1: done, 0: take the ordinary way, -1: an exception.
int run_unobserved(PyObject* targets, bool alone) {
    const Surroundings& s = surroundings;
    PyObject* debug = known.flags.debug.of(s.flags);
    if (PyList_GET_SIZE(s.watchers) != 0 || PyList_GET_SIZE(s.observers) != 0 || debug == nullptr || PyLong_AsLong(debug) >= 2) {
        return 0;
    }
    Evaluation evaluation;
    return evaluation.run(targets, alone);
}

// After a program failed that computed more than was asked for.
int run_without_others(PyObject* targets) {
    PyObject *kind, *value, *trace;
    PyErr_Fetch(&kind, &value, &trace);
    PyErr_NormalizeException(&kind, &value, &trace);
    if (trace != nullptr) PyException_SetTraceback(value, trace);
    Ref owned_kind(kind), owned_value(value), owned_trace(trace);
    PyObject* arguments[] = {targets, value};
    Ref done(PyObject_Vectorcall(surroundings.without_others, arguments, 2, nullptr));
    return done ? 1 : -1;
}

}  // namespace

PyObject* run(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
    if (count != 2 || (arguments[0] != Py_None && !(PyList_CheckExact(arguments[0]) && all_nodes(arguments[0])))) {
        PyErr_SetString(PyExc_TypeError, "run(targets: list of Nodes | None, alone: bool)");
        return nullptr;
    }
    const int done = run_unobserved(arguments[0], arguments[1] == Py_True);
    return done < 0 ? nullptr : PyBool_FromLong(done);
}

PyObject* evaluate(PyObject*, PyObject* node) {
    if (!is_any_node(node)) {
        PyErr_SetString(PyExc_TypeError, "evaluate(node: Node)");
        return nullptr;
    }
    if (!known.node.buffer.is_none(node) && PyList_GET_SIZE(surroundings.finished) == 0) Py_RETURN_NONE;
    static PyObject* const name = PyUnicode_InternFromString("lock");
    Ref lock = Ref::to(PyDict_GetItemWithError(surroundings.names, name));  // a fork puts another in its place
    Ref targets(PyList_New(1));
    if (!lock || !targets) return nullptr;
    PyList_SET_ITEM(targets.get(), 0, Py_NewRef(node));
    int done = 0;
    if (PyList_GET_SIZE(surroundings.finished) == 0) {
        Ref taken(PyObject_CallMethod(lock.get(), "acquire", nullptr));
        if (!taken) return nullptr;
        done = known.node.buffer.is_none(node) ? run_unobserved(targets.get(), false) : 1;
        if (done < 0 && PyErr_ExceptionMatches(PyExc_Exception) != 0) done = run_without_others(targets.get());
        Kept error;
        Ref given_back(PyObject_CallMethod(lock.get(), "release", nullptr));
    }
    if (done < 0) return nullptr;
    if (done != 0) Py_RETURN_NONE;
    PyObject* arguments[] = {targets.get()};
    return PyObject_Vectorcall(surroundings.ordinary, arguments, 1, nullptr);
}

}  // namespace metafuse
