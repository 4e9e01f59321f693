#include "copy.hpp"

#include <algorithm>
#include <cstring>
#include <map>

#include <immintrin.h>

namespace metafuse_onednn {
namespace {

using type = dnnl::memory::data_type;

// A tile: so many elements along the target's fastest dimension by so many along the source's.
constexpr dnnl_dim_t kAlong = 64, kAcross = 32;
constexpr dnnl_dim_t kRow = 1024;           // elements of a row at once
constexpr dnnl_dim_t kMemberShare = 1 << 14;  // elements that are worth another thread

#define METAFUSE_WIDE __attribute__((target("avx2,f16c")))

// -- Element types ------------------------------------------------------------------------------------------------------
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

Copy::Widen widener(type kind) {
    return kind == type::f32 ? widen<type::f32> : kind == type::bf16 ? widen<type::bf16> : kind == type::f16 ? widen<type::f16> : nullptr;
}

Copy::Narrow narrower(type kind) {
    return kind == type::f32 ? narrow<type::f32>
           : kind == type::bf16 ? narrow<type::bf16>
           : kind == type::f16 ? narrow<type::f16> : nullptr;
}

// Eight rows of eight become eight columns.
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

void multiply(float* values, const float* factor, dnnl_dim_t step, dnnl_dim_t count) {
    for (dnnl_dim_t k = 0; k < count; ++k) values[k] *= factor[k * step];
}

bool plain(const desc_t& desc) { return desc.get_format_kind() == dnnl::memory::format_kind::blocked; }

}  // namespace

std::shared_ptr<const Copy> Copy::make(const desc_t& from, const desc_t& to, const desc_t* factors) {
    static const bool able = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c");
    if (!able || from.get_dims() != to.get_dims()) return nullptr;
    auto made = std::make_shared<Copy>();
    made->widen_ = widener(from.get_data_type());
    made->narrow_ = narrower(to.get_data_type());
    if (made->widen_ == nullptr || made->narrow_ == nullptr || !made->arrange(from, to, factors)) return nullptr;
    made->choose_tiles();
    return made;
}

// The loops, those of blocks among them, neighbours joined where they can be.
bool Copy::arrange(const desc_t& from, const desc_t& to, const desc_t* factors) {
    if (!plain(from) || !plain(to) || from.get_inner_nblks() != 0 || from.get_submemory_offset() + to.get_submemory_offset() != 0) return false;
    if (factors != nullptr && (factors->get_data_type() != type::f32 || factors->get_inner_nblks() != 0)) return false;
    from_size_ = static_cast<dnnl_dim_t>(dnnl::memory::data_type_size(from.get_data_type()));
    to_size_ = static_cast<dnnl_dim_t>(dnnl::memory::data_type_size(to.get_data_type()));
    same_ = from.get_data_type() == to.get_data_type();
    scaled_ = factors != nullptr;
    const dims_t dims = to.get_dims(), from_steps = from.get_strides(), to_steps = to.get_strides();
    const dims_t blocks = to.get_inner_blks(), block_axes = to.get_inner_idxs();
    const std::size_t rank = dims.size();
    dims_t inside(rank, 1), factor_steps(rank, 0);  // elements of each dimension within the blocks seen so far
    if (scaled_) {
        for (std::size_t d = 0; d < rank; ++d) {
            if (factors->get_dims()[d] != 1 && factors->get_dims()[d] != dims[d]) return false;
            if (factors->get_dims()[d] != 1) factor_steps[d] = factors->get_strides()[d];
        }
    }
    std::vector<Axis> axes;
    dnnl_dim_t step = 1;
    for (std::size_t k = blocks.size(); k-- > 0;) {
        const auto d = static_cast<std::size_t>(block_axes[k]);
        axes.push_back(Axis{blocks[k], from_steps[d] * inside[d], step, factor_steps[d] * inside[d]});
        inside[d] *= blocks[k];
        step *= blocks[k];
    }
    elements_ = 1;
    for (std::size_t d = 0; d < rank; ++d) {
        if (dims[d] % inside[d] != 0) return false;
        axes.push_back(Axis{dims[d] / inside[d], from_steps[d] * inside[d], to_steps[d], factor_steps[d] * inside[d]});
        elements_ *= dims[d];
    }
    axes.erase(std::remove_if(axes.begin(), axes.end(), [](const Axis& a) { return a.extent == 1; }), axes.end());
    std::stable_sort(axes.begin(), axes.end(), [](const Axis& a, const Axis& b) { return a.to > b.to; });
    for (const Axis& axis : axes) {
        Axis* const last = outer_.empty() ? nullptr : &outer_.back();
        if (last != nullptr && last->from == axis.from * axis.extent && last->to == axis.to * axis.extent &&
            last->factor == axis.factor * axis.extent) {
            *last = Axis{last->extent * axis.extent, axis.from, axis.to, axis.factor};
        } else {
            outer_.push_back(axis);
        }
    }
    return true;
}

void Copy::choose_tiles() {
    if (!outer_.empty()) {
        along_ = outer_.back();
        outer_.pop_back();
    }
    const auto fastest = std::min_element(outer_.begin(), outer_.end(), [](const Axis& a, const Axis& b) { return a.from < b.from; });
    tiled_ = along_.from != 1 && along_.extent >= 8 && fastest != outer_.end() && fastest->from == 1 && fastest->extent >= 4;
    if (tiled_) {
        across_ = *fastest;
        outer_.erase(fastest);
    }
    const dnnl_dim_t row = tiled_ ? kAlong : kRow;
    along_tiles_ = (along_.extent + row - 1) / row;
    across_tiles_ = (across_.extent + kAcross - 1) / kAcross;
    tasks_ = along_tiles_ * across_tiles_;
    for (const Axis& axis : outer_) tasks_ *= axis.extent;
}

void Copy::run(const metafuse_cpu::Runtime& runtime, const void* from, void* to, const void* factors) const {
    struct Work {
        const Copy* copy;
        Place start;
        dnnl_dim_t share;
    };
    const dnnl_dim_t wanted = std::min(elements_ / kMemberShare + 1, tasks_);
    const int members = static_cast<int>(std::min<dnnl_dim_t>(wanted, runtime.members()));
    Work work{this, {static_cast<const char*>(from), static_cast<char*>(to), static_cast<const float*>(factors)}, 0};
    work.share = (tasks_ + members - 1) / members;
    const auto body = [](void* context, int number) {
        const Work& mine = *static_cast<const Work*>(context);
        const dnnl_dim_t first = mine.share * number;
        mine.copy->part(mine.start, first, std::min(first + mine.share, mine.copy->tasks_));
    };
    if (members > 1) runtime.begin_region(members, body, &work);
    body(&work, 0);
    if (members > 1) runtime.end_region();
}

// Tasks first .. last-1, counted over the outer loops, then the tiles.
void Copy::part(const Place& start, dnnl_dim_t first, dnnl_dim_t last) const {
    for (dnnl_dim_t task = first; task < last; ++task) {
        dnnl_dim_t rest = task, from = 0, to = 0, factor = 0;
        const dnnl_dim_t along = rest % along_tiles_ * (tiled_ ? kAlong : kRow);
        rest /= along_tiles_;
        const dnnl_dim_t across = rest % across_tiles_ * kAcross;
        rest /= across_tiles_;
        for (std::size_t k = outer_.size(); k-- > 0;) {
            const Axis& axis = outer_[k];
            const dnnl_dim_t index = rest % axis.extent;
            rest /= axis.extent;
            from += index * axis.from;
            to += index * axis.to;
            factor += index * axis.factor;
        }
        from += along * along_.from + across * across_.from;
        to += along * along_.to + across * across_.to;
        factor += along * along_.factor + across * across_.factor;
        const Place place{start.from + from * from_size_, start.to + to * to_size_, scaled_ ? start.factor + factor : nullptr};
        if (tiled_) {
            tile(place, std::min(kAcross, across_.extent - across), std::min(kAlong, along_.extent - along));
        } else {
            rows(place, std::min(kRow, along_.extent - along));
        }
    }
}

void Copy::rows(Place place, dnnl_dim_t count) const {
    const auto size = static_cast<std::size_t>(count);
    if (same_ && !scaled_ && along_.from == 1 && along_.to == 1) {
        std::memcpy(place.to, place.from, size * static_cast<std::size_t>(from_size_));
        return;
    }
    alignas(64) float row[kRow];
    widen_(place.from, along_.from, row, size);
    if (scaled_) multiply(row, place.factor, along_.factor, count);
    narrow_(row, place.to, along_.to, size);
}

void Copy::tile(Place place, dnnl_dim_t across, dnnl_dim_t along) const {
    alignas(64) float read[kAlong * kAcross], turned[kAcross * kAlong];
    for (dnnl_dim_t k = 0; k < along; ++k) {
        widen_(place.from + k * along_.from * from_size_, 1, read + k * kAcross, static_cast<std::size_t>(across));
    }
    // Beyond the edge there is whatever was there; it is not stored.
    for (dnnl_dim_t k = 0; k < along; k += 8) {
        for (dnnl_dim_t j = 0; j < across; j += 8) turn8(read + k * kAcross + j, kAcross, turned + j * kAlong + k, kAlong);
    }
    for (dnnl_dim_t j = 0; j < across; ++j) {
        float* const row = turned + j * kAlong;
        if (scaled_) multiply(row, place.factor + j * across_.factor, along_.factor, along);
        narrow_(row, place.to + j * across_.to * to_size_, along_.to, static_cast<std::size_t>(along));
    }
}

}  // namespace metafuse_onednn
