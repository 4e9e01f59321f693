// Access to the Python objects of metafuse without Python: owned references, short lists, and the slots of classes.
//
// Classes of the graph keep their attributes in `__slots__`; `Slot` is the place of one of them, looked up once by its name.
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#if PY_VERSION_HEX < 0x030a0000
#error "Python 3.10 or newer is needed"
#endif

#include <structmember.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <cstdint>
#include <utility>
#include <vector>

namespace metafuse {

// An owned reference, or none.
class Ref {
public:
    Ref() = default;
    explicit Ref(PyObject* owned) : object_(owned) {}
    Ref(Ref&& other) noexcept : object_(other.release()) {}
    Ref& operator=(Ref&& other) noexcept {
        std::swap(object_, other.object_);
        return *this;
    }
    Ref(const Ref&) = delete;
    Ref& operator=(const Ref&) = delete;
    ~Ref() { Py_XDECREF(object_); }

    static Ref to(PyObject* borrowed) { return Ref(Py_XNewRef(borrowed)); }
    PyObject* get() const { return object_; }
    PyObject* release() { return std::exchange(object_, nullptr); }
    explicit operator bool() const { return object_ != nullptr; }

private:
    PyObject* object_ = nullptr;
};

// A list of plain values whose first `N` need no memory of their own.
template <class T, std::size_t N>
class Few {
public:
    Few() = default;
    Few(const Few&) = delete;
    Few& operator=(const Few&) = delete;
    ~Few() {
        if (data_ != inside_) std::free(data_);
    }

    void push(T value) {
        if (size_ == room_) grow();
        data_[size_++] = value;
    }
    T pop() { return data_[--size_]; }
    void resize(std::size_t size, T value) {
        while (size_ < size) push(value);
        size_ = size;
    }
    std::size_t size() const { return size_; }
    bool empty() const { return size_ == 0; }
    T& operator[](std::size_t k) { return data_[k]; }
    const T& operator[](std::size_t k) const { return data_[k]; }
    T* begin() { return data_; }
    T* end() { return data_ + size_; }
    const T* begin() const { return data_; }
    const T* end() const { return data_ + size_; }

private:
    void grow() {
        T* more = static_cast<T*>(std::malloc(2 * room_ * sizeof(T)));
        if (more == nullptr) Py_FatalError("metafuse: no memory for a list of nodes");
        std::memcpy(more, data_, size_ * sizeof(T));
        if (data_ != inside_) std::free(data_);
        data_ = more;
        room_ *= 2;
    }

    T inside_[N];
    T* data_ = inside_;
    std::size_t size_ = 0;
    std::size_t room_ = N;
};

// A list of owned references.
class Refs : public Few<PyObject*, 16> {
public:
    ~Refs() {
        for (PyObject* object : *this) Py_XDECREF(object);
    }
    void add(PyObject* borrowed) { push(Py_XNewRef(borrowed)); }
    // Takes a reference over; false, with its exception, if there is none.
    bool take(PyObject* owned) {
        if (owned != nullptr) push(owned);
        return owned != nullptr;
    }
    // The same objects as Python has them: owned, or null with an exception.
    PyObject* as_tuple() const {
        PyObject* tuple = PyTuple_New(static_cast<Py_ssize_t>(size()));
        for (std::size_t k = 0; tuple != nullptr && k < size(); ++k) {
            PyTuple_SET_ITEM(tuple, static_cast<Py_ssize_t>(k), Py_NewRef((*this)[k]));
        }
        return tuple;
    }
    PyObject* as_list() const {
        PyObject* list = PyList_New(static_cast<Py_ssize_t>(size()));
        for (std::size_t k = 0; list != nullptr && k < size(); ++k) {
            PyList_SET_ITEM(list, static_cast<Py_ssize_t>(k), Py_NewRef((*this)[k]));
        }
        return list;
    }
};

// A number per object, by identity; the objects are not referred to.
class Places {
public:
    static constexpr Py_ssize_t kNone = -1;

    // The number of an object, to be read or set; `kNone` until then.
    Py_ssize_t& at(PyObject* object) {
        if (2 * (used_ + 1) > rows_.size()) grow();
        Row& row = find(object);
        if (row.object == nullptr) {
            row.object = object;
            ++used_;
        }
        return row.place;
    }

private:
    struct Row {
        PyObject* object = nullptr;
        Py_ssize_t place = kNone;
    };

    Row& find(PyObject* object) {  // the row of the object, or the free one where it belongs
        std::size_t k = static_cast<std::size_t>((reinterpret_cast<std::uintptr_t>(object) >> 4) * 0x9E3779B97F4A7C15ULL >> 32);
        for (;; ++k) {
            Row& row = rows_[k & (rows_.size() - 1)];
            if (row.object == object || row.object == nullptr) return row;
        }
    }

    void grow() {
        std::vector<Row> former(rows_.empty() ? 64 : 2 * rows_.size());  // a power of two
        former.swap(rows_);
        for (const Row& row : former) {
            if (row.object != nullptr) find(row.object) = row;
        }
    }

    std::vector<Row> rows_;
    std::size_t used_ = 0;
};

// The place of an attribute in the objects of a class with `__slots__`.
class Slot {
public:
    // Looks the attribute up; false with an exception if it is no slot.
    bool find(PyObject* type, const char* name) {
        Ref member(PyObject_GetAttrString(type, name));
        if (!member) return false;
        if (Py_TYPE(member.get()) != &PyMemberDescr_Type) {
            PyErr_Format(PyExc_TypeError, "%R has no slot %s", type, name);
            return false;
        }
        offset_ = reinterpret_cast<PyMemberDescrObject*>(member.get())->d_member->offset;
        return true;
    }

    // Borrowed; null if nothing was assigned yet.
    PyObject* of(PyObject* object) const { return at(object); }
    bool is_true(PyObject* object) const { return at(object) == Py_True; }
    bool is_none(PyObject* object) const { return at(object) == Py_None; }
    long number(PyObject* object) const { return PyLong_AsLong(at(object)); }

    void set(PyObject* object, PyObject* borrowed) const { take(object, Py_NewRef(borrowed)); }
    void take(PyObject* object, PyObject* owned) const {
        PyObject* former = std::exchange(at(object), owned);
        Py_XDECREF(former);  // may run anything
    }
    void set_number(PyObject* object, long long number) const { take(object, PyLong_FromLongLong(number)); }

private:
    PyObject*& at(PyObject* object) const {
        return *reinterpret_cast<PyObject**>(reinterpret_cast<char*>(object) + offset_);
    }

    Py_ssize_t offset_ = 0;
};

// The classes and their slots, and what else of Python is called; filled once by `known`.
struct Known {
    PyTypeObject *signature_type = nullptr, *node_type = nullptr, *block_node_type = nullptr, *block_type = nullptr,
                 *var_type = nullptr, *buffer_type = nullptr, *opaque_step_type = nullptr;
    struct {
        Slot sig, spec, inputs, scalars, requires_grad, buffer, order, handle, origin, pos, released, rule;
    } node;
    struct {
        Slot given, nodes, order, origin, plain, pos, recipe, released, scalars, values;
    } block;
    struct {
        Slot ages, few, repeats, results, scalars, steps, takes, whole;
    } recipe;
    struct {
        Slot node;
    } var;
    struct {
        Slot backend, handle, nbytes, order, version, free;
    } buffer;
    struct {
        Slot mode, pending, limit;
    } state;
    struct {
        Slot spec, differentiable;
    } signature;
    struct {
        Slot launches, programs;
    } statistics;
    struct {
        Slot now, peak, count;
    } live;
    struct {
        Slot program, prepared;
    } route;
    struct {
        Slot plan, kept, state;
    } program;
    struct {
        Slot debug, library, math;
    } flags;
};

extern Known known;

// What is read and called beside, under the names that `runtime/handover.py` gives.
struct Surroundings {
    PyObject *state, *statistics, *live, *flags;             // objects
    PyObject *watchers, *observers, *last_program, *finished;  // lists
    PyObject* chosen;                                        // a list: the device, while no flag names one
    PyObject* names;                                         // the executor's global names, for its lock
    PyObject* hooks;                                         // the name of an attribute
    PyObject *device, *failed, *new_buffer, *next_order, *next_version, *ordinary, *plainly, *run_opaque;  // functions
    PyObject *sync_all, *without_others;
};

extern Surroundings surroundings;

inline bool is_any_node(PyObject* object) {
    return Py_TYPE(object) == known.node_type || Py_TYPE(object) == known.block_node_type;
}

// The block that made a `BlockNode`.
inline PyObject* block_of(PyObject* part) { return PyTuple_GET_ITEM(known.node.inputs.of(part), 0); }

// Whether a list or tuple has nothing but nodes.
inline bool all_nodes(PyObject* items) {
    const Py_ssize_t count = PySequence_Fast_GET_SIZE(items);
    for (Py_ssize_t k = 0; k < count; ++k) {
        if (!is_any_node(PySequence_Fast_GET_ITEM(items, k))) return false;
    }
    return true;
}

// What a Var holds, if the handle's Var is alive: borrowed from the Var, or null. Nothing may run in between.
PyObject* held_node(PyObject* handle);
// Whether a user still holds the value.
bool is_held(PyObject* node);

}  // namespace metafuse
