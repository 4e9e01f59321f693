// Rows of elements as float32 and back, for processors with AVX2 and F16C.

#include <cstdint>
#include <cstring>

#include <immintrin.h>

#include "widening.hpp"

namespace metafuse_onednn {
namespace {

using type = dnnl::memory::data_type;

#define METAFUSE_WIDE __attribute__((target("avx2,f16c")))

float widened(const char* from, type kind) {
    if (kind == type::f32) {
        float value;
        std::memcpy(&value, from, sizeof value);
        return value;
    }
    std::uint16_t half;
    std::memcpy(&half, from, sizeof half);
    const std::uint32_t bits = static_cast<std::uint32_t>(half) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

METAFUSE_WIDE float widened_float16(const char* from) {
    std::uint16_t half;
    std::memcpy(&half, from, sizeof half);
    return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(half)));
}

std::uint16_t narrowed(float value) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    if (value != value) return static_cast<std::uint16_t>(bits >> 16 | 0x40);
    return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

METAFUSE_WIDE std::uint16_t narrowed_float16(float value) {
    return static_cast<std::uint16_t>(_mm_cvtsi128_si32(_mm_cvtps_ph(_mm_set_ss(value), _MM_FROUND_TO_NEAREST_INT)));
}

METAFUSE_WIDE __m256 load8(const char* from, type kind) {
    if (kind == type::f32) return _mm256_loadu_ps(reinterpret_cast<const float*>(from));
    const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    if (kind == type::f16) return _mm256_cvtph_ps(half);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

METAFUSE_WIDE void store8(__m256 value, char* to, type kind) {
    if (kind == type::f32) return _mm256_storeu_ps(reinterpret_cast<float*>(to), value);
    __m128i half;
    if (kind == type::f16) {
        half = _mm256_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT);
    } else {
        const __m256i bits = _mm256_castps_si256(value), high = _mm256_srli_epi32(bits, 16);
        const __m256i even = _mm256_add_epi32(_mm256_and_si256(high, _mm256_set1_epi32(1)), _mm256_set1_epi32(0x7fff));
        const __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(bits, even), 16);
        const __m256i none = _mm256_castps_si256(_mm256_cmp_ps(value, value, _CMP_UNORD_Q));
        const __m256i quiet = _mm256_or_si256(high, _mm256_set1_epi32(0x40));
        const __m256i chosen = _mm256_blendv_epi8(rounded, quiet, none);
        half = _mm_packus_epi32(_mm256_castsi256_si128(chosen), _mm256_extracti128_si256(chosen, 1));
    }
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), half);
}

template <type kind>
METAFUSE_WIDE void widen(const char* from, dnnl_dim_t step, float* to, std::size_t count) {
    constexpr dnnl_dim_t size = kind == type::f32 ? 4 : 2;
    std::size_t k = 0;
    if (step == 1) {
        for (; k + 8 <= count; k += 8) _mm256_storeu_ps(to + k, load8(from + static_cast<dnnl_dim_t>(k) * size, kind));
    }
    for (; k < count; ++k) {
        const char* const at = from + static_cast<dnnl_dim_t>(k) * step * size;
        to[k] = kind == type::f16 ? widened_float16(at) : widened(at, kind);
    }
}

template <type kind>
METAFUSE_WIDE void narrow(const float* from, char* to, dnnl_dim_t step, std::size_t count) {
    constexpr dnnl_dim_t size = kind == type::f32 ? 4 : 2;
    std::size_t k = 0;
    if (step == 1) {
        for (; k + 8 <= count; k += 8) store8(_mm256_loadu_ps(from + k), to + static_cast<dnnl_dim_t>(k) * size, kind);
    }
    for (; k < count; ++k) {
        char* const at = to + static_cast<dnnl_dim_t>(k) * step * size;
        if (kind == type::f32) {
            std::memcpy(at, from + k, sizeof(float));
        } else {
            const std::uint16_t half = kind == type::f16 ? narrowed_float16(from[k]) : narrowed(from[k]);
            std::memcpy(at, &half, sizeof half);
        }
    }
}

}  // namespace

bool can_widen() {
    static const bool able = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c");
    return able;
}

Widen widener(type kind) {
    return kind == type::f32 ? widen<type::f32> : kind == type::bf16 ? widen<type::bf16> : kind == type::f16 ? widen<type::f16> : nullptr;
}

Narrow narrower(type kind) {
    return kind == type::f32 ? narrow<type::f32>
           : kind == type::bf16 ? narrow<type::bf16>
           : kind == type::f16 ? narrow<type::f16> : nullptr;
}

METAFUSE_WIDE void turn8(const float* from, dnnl_dim_t from_step, float* to, dnnl_dim_t to_step) {
    __m256 row[8], pair[8];
    for (int k = 0; k < 8; ++k) row[k] = _mm256_loadu_ps(from + k * from_step);
    for (int k = 0; k < 8; k += 2) {
        pair[k] = _mm256_unpacklo_ps(row[k], row[k + 1]);
        pair[k + 1] = _mm256_unpackhi_ps(row[k], row[k + 1]);
    }
    for (int k = 0; k < 8; k += 4) {
        row[k] = _mm256_shuffle_ps(pair[k], pair[k + 2], 0x44);
        row[k + 1] = _mm256_shuffle_ps(pair[k], pair[k + 2], 0xee);
        row[k + 2] = _mm256_shuffle_ps(pair[k + 1], pair[k + 3], 0x44);
        row[k + 3] = _mm256_shuffle_ps(pair[k + 1], pair[k + 3], 0xee);
    }
    for (int k = 0; k < 4; ++k) {
        _mm256_storeu_ps(to + k * to_step, _mm256_permute2f128_ps(row[k], row[k + 4], 0x20));
        _mm256_storeu_ps(to + (k + 4) * to_step, _mm256_permute2f128_ps(row[k], row[k + 4], 0x31));
    }
}

}  // namespace metafuse_onednn
