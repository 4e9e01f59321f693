"""What every C++ snippet begins with: headers, element types, the array and number types that it sees.

What it is: one text.
What it is not: anything about one snippet's arrays; ``codeop`` writes that below it.
Who calls it: ``codeop``.
"""

__all__ = ["PRELUDE"]

PRELUDE = r"""
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <limits>
#include <map>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>
#ifdef _OPENMP
#include <omp.h>
#endif
namespace metafuse_code {
typedef int8_t int8;
typedef int16_t int16;
typedef int32_t int32;
typedef int64_t int64;
typedef uint8_t uint8;
typedef uint16_t uint16;
typedef uint32_t uint32;
typedef uint64_t uint64;
typedef float float32;
typedef double float64;
// A 16-bit float in memory; arithmetic is that of float.
template <class Self>
struct SmallFloat {
    Self& self() { return *static_cast<Self*>(this); }
    Self& operator+=(float value) { return self() = Self(float(self()) + value); }
    Self& operator-=(float value) { return self() = Self(float(self()) - value); }
    Self& operator*=(float value) { return self() = Self(float(self()) * value); }
    Self& operator/=(float value) { return self() = Self(float(self()) / value); }
};
inline uint32_t bits_of(float value) {
    uint32_t whole;
    std::memcpy(&whole, &value, 4);
    return whole;
}
inline float float_of(uint32_t whole) {
    float value;
    std::memcpy(&value, &whole, 4);
    return value;
}
struct bfloat16 : SmallFloat<bfloat16> {
    uint16_t bits;
    bfloat16() = default;
    bfloat16(float value) {
        uint32_t whole = bits_of(value);
        if (value == value) whole += 0x7fffU + (whole >> 16 & 1U);
        else if (!(whole & 0x7f0000U)) whole |= 0x400000U;
        bits = uint16_t(whole >> 16);
    }
    operator float() const { return float_of(uint32_t(bits) << 16); }
};
struct float16 : SmallFloat<float16> {
    uint16_t bits;
    float16() = default;
    float16(float value) {
        uint32_t whole = bits_of(value);
        const uint32_t sign = whole >> 16 & 0x8000U;
        whole &= 0x7fffffffU;
        if (whole > 0x7f800000U) whole = 0x7e00U | (whole >> 13 & 0x3ffU);  // NaN
        else if (whole >= 0x47800000U) whole = 0x7c00U;  // 2^16 and more
        else if (whole < 0x38800000U) whole = bits_of(float_of(whole) + 0.5f) - 0x3f000000U;  // in steps of 2^-24
        else whole = (whole + 0xfffU + (whole >> 13 & 1U) - 0x38000000U) >> 13;
        bits = uint16_t(sign | whole);
    }
    operator float() const {
        const uint32_t sign = uint32_t(bits & 0x8000U) << 16, rest = bits & 0x7fffU;
        if (rest >= 0x7c00U) return float_of(sign | 0x7f800000U | rest << 13);
        return float_of(sign | bits_of(float_of(rest << 13) * 0x1p112f));
    }
};
struct Extents {
    long long* values;
    int count;
    long long operator[](int k) const { return values[k]; }
    int size() const { return count; }
    long long* begin() const { return values; }
    long long* end() const { return values + count; }
};
struct Array {
    void* pointer;
    Extents shape;
    long long num;
    long long size;
    bool output;
    long long most;
    int itemsize;
    Array(void* p, long long* extents, int rank, int item, bool out)
        : pointer(p), shape{extents, rank}, num(1), size(0), output(out), most(rank ? extents[0] : 0), itemsize(item) {
        count();
    }
    void count() {
        num = 1;
        for (long long extent : shape) num *= extent;
        size = num * itemsize;
    }
    template <class T>
    T* ptr() const { return static_cast<T*>(pointer); }
    void set_shape(std::initializer_list<long long> extents) { set_shape(std::vector<long long>(extents)); }
    void set_shape(const std::vector<long long>& extents) {
        if (!output) throw std::invalid_argument("set_shape: only outputs can change their shape");
        if (extents.size() != std::size_t(shape.count))
            throw std::invalid_argument("set_shape: " + std::to_string(extents.size()) + " dimensions given for an output of " +
                                        std::to_string(shape.count));
        for (std::size_t k = 0; k < extents.size(); ++k) {
            const bool fits = k == 0 ? extents[0] >= 0 && extents[0] <= most : extents[k] == shape.values[k];
            if (!fits)
                throw std::invalid_argument("set_shape: dimension " + std::to_string(k) + " can't become " +
                                            std::to_string(extents[k]) + ": it is " +
                                            std::to_string(k == 0 ? most : shape.values[k]) +
                                            (k == 0 ? " at most" : " and only dimension 0 may change"));
        }
        if (shape.count) shape.values[0] = extents[0];
        count();
    }
};
struct Data {
    const char* const* names;
    const double* values;
    long long count;
    double operator[](const char* name) const {
        for (long long k = 0; k < count; ++k)
            if (std::strcmp(names[k], name) == 0) return values[k];
        throw std::out_of_range(std::string("data has no entry \"") + name + "\"");
    }
    double operator[](const std::string& name) const { return (*this)[name.c_str()]; }
    double at(const std::string& name) const { return (*this)[name.c_str()]; }
};
}  // namespace metafuse_code
namespace std {
template <class T>
struct small_float_limits : numeric_limits<float> {
    static T of(unsigned short bits) {
        T value;
        value.bits = bits;
        return value;
    }
    static T infinity() { return T(numeric_limits<float>::infinity()); }
    static T quiet_NaN() { return T(numeric_limits<float>::quiet_NaN()); }
};
template <>
struct numeric_limits<metafuse_code::float16> : small_float_limits<metafuse_code::float16> {
    static metafuse_code::float16 min() { return of(0x0400); }
    static metafuse_code::float16 max() { return of(0x7bff); }
    static metafuse_code::float16 lowest() { return of(0xfbff); }
    static metafuse_code::float16 epsilon() { return of(0x1400); }
};
template <>
struct numeric_limits<metafuse_code::bfloat16> : small_float_limits<metafuse_code::bfloat16> {
    static metafuse_code::bfloat16 min() { return of(0x0080); }
    static metafuse_code::bfloat16 max() { return of(0x7f7f); }
    static metafuse_code::bfloat16 lowest() { return of(0xff7f); }
    static metafuse_code::bfloat16 epsilon() { return of(0x3c00); }
};
}  // namespace std
using namespace metafuse_code;
using namespace std;
#define JIT 1
#define JIT_cpu 1
"""
