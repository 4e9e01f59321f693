#include "copy.hpp"

#include <algorithm>
#include <cstring>

namespace metafuse_onednn {
namespace {

using type = dnnl::memory::data_type;

// A tile: so many elements along the target's fastest dimension by so many along the source's.
constexpr dnnl_dim_t kAlong = 64, kAcross = 32;
constexpr dnnl_dim_t kRow = 1024;             // elements of a row at once
constexpr dnnl_dim_t kLine = 64, kAhead = 4 * kLine, kPage = 4096;  // bytes
constexpr dnnl_dim_t kMemberShare = 1 << 14;  // elements that are worth another thread

void multiply(float* values, const float* factor, dnnl_dim_t step, dnnl_dim_t count) {
    for (dnnl_dim_t k = 0; k < count; ++k) values[k] *= factor[k * step];
}

// Of rows far apart a processor does not foresee that their next bytes will be needed.
void foresee(const char* row, dnnl_dim_t bytes) {
    for (dnnl_dim_t k = 0; k < bytes; k += kLine) __builtin_prefetch(row + kAhead + k);
}

bool plain(const desc_t& desc) { return desc.get_format_kind() == dnnl::memory::format_kind::blocked; }

}  // namespace

std::shared_ptr<const Copy> Copy::make(const desc_t& from, const desc_t& to, const desc_t* factors) {
    if (!can_widen() || from.get_dims() != to.get_dims()) return nullptr;
    auto made = std::make_shared<Copy>();
    made->widen_ = widener(from.get_data_type());
    made->narrow_ = narrower(to.get_data_type());
    if (made->widen_ == nullptr || made->narrow_ == nullptr || !made->arrange(from, to, factors)) return nullptr;
    return made;
}

bool Copy::turns_colliding_rows() const {
    const Part& part = parts_.front();
    const dnnl_dim_t step = part.along.from * from_size_;
    return part.tiled && part.along.extent >= 16 && part.across.extent >= 16 && step % (part.paired ? kPage / 2 : kPage) == 0;
}

bool Copy::arrange(const desc_t& from, const desc_t& to, const desc_t* factors) {
    if (!plain(from) || !plain(to) || from.get_inner_nblks() != 0) return false;
    if (from.get_submemory_offset() + to.get_submemory_offset() != 0) return false;
    if (factors != nullptr && (factors->get_data_type() != type::f32 || factors->get_inner_nblks() != 0)) return false;
    from_size_ = static_cast<dnnl_dim_t>(dnnl::memory::data_type_size(from.get_data_type()));
    to_size_ = static_cast<dnnl_dim_t>(dnnl::memory::data_type_size(to.get_data_type()));
    same_ = from.get_data_type() == to.get_data_type();
    scaled_ = factors != nullptr;
    const dims_t dims = to.get_dims(), from_steps = from.get_strides(), to_steps = to.get_strides();
    std::vector<Axis> axes;
    for (std::size_t d = 0; d < dims.size(); ++d) {
        const dnnl_dim_t extent = scaled_ ? factors->get_dims()[d] : 1;
        if (extent != 1 && extent != dims[d]) return false;
        axes.push_back(Axis{dims[d], from_steps[d], to_steps[d], extent == 1 ? 0 : factors->get_strides()[d]});
    }
    return split(axes, to);
}

// The loops, those of blocks among them. A last block that is not full is a part of its own.
bool Copy::split(const std::vector<Axis>& whole, const desc_t& to) {
    const dims_t blocks = to.get_inner_blks(), block_axes = to.get_inner_idxs();
    dims_t inside(whole.size(), 1);                // elements of each dimension within the blocks seen so far
    std::vector<std::size_t> place(whole.size());  // of the block in `inner`
    std::vector<int> levels(whole.size());
    std::vector<Axis> inner;
    dnnl_dim_t step = 1, slowest = 0;
    for (std::size_t k = blocks.size(); k-- > 0;) {
        const auto d = static_cast<std::size_t>(block_axes[k]);
        place[d] = inner.size();
        levels[d] += 1;
        inner.push_back(Axis{blocks[k], whole[d].from * inside[d], step, whole[d].factor * inside[d]});
        inside[d] *= blocks[k];
        step *= blocks[k];
    }
    for (const Axis& axis : whole) slowest = std::max(slowest, axis.to);
    std::vector<std::pair<std::vector<Axis>, Axis>> regions = {{inner, Axis{1, 0, 0, 0}}};
    for (std::size_t d = 0; d < whole.size(); ++d) {
        const dnnl_dim_t full = whole[d].extent / inside[d], rest = whole[d].extent % inside[d];
        if (rest != 0 && levels[d] != 1) return false;
        const Axis outer{full, whole[d].from * inside[d], whole[d].to, whole[d].factor * inside[d]};
        std::vector<std::pair<std::vector<Axis>, Axis>> next;
        for (const auto& [axes, start] : regions) {
            if (full > 0) {
                next.emplace_back(axes, start);
                next.back().first.push_back(outer);
            }
            if (rest == 0) continue;
            next.emplace_back(axes, Axis{1, start.from + full * outer.from, start.to + full * outer.to, start.factor + full * outer.factor});
            next.back().first[place[d]].extent = rest;
        }
        regions = std::move(next);
        if (rest == 0) continue;
        // Only the last blocks need zeros, which is easy where they are together.
        cleared_from_ = cleared_ == 0 && whole[d].to == slowest ? static_cast<std::size_t>(full * slowest * to_size_) : 0;
        cleared_ = to.get_size() - cleared_from_;
    }
    for (auto& [axes, start] : regions) add_part(std::move(axes), start);
    return true;
}

void Copy::add_part(std::vector<Axis> axes, const Axis& start) {
    Part part;
    part.start = start;
    axes.erase(std::remove_if(axes.begin(), axes.end(), [](const Axis& a) { return a.extent == 1; }), axes.end());
    std::stable_sort(axes.begin(), axes.end(), [](const Axis& a, const Axis& b) { return a.to > b.to; });
    for (const Axis& axis : axes) {
        Axis* const last = part.outer.empty() ? nullptr : &part.outer.back();
        if (last != nullptr && last->from == axis.from * axis.extent && last->to == axis.to * axis.extent &&
            last->factor == axis.factor * axis.extent) {
            *last = Axis{last->extent * axis.extent, axis.from, axis.to, axis.factor};
        } else {
            part.outer.push_back(axis);
        }
    }
    choose_tiles(part);
    parts_.push_back(std::move(part));
}

void Copy::choose_tiles(Part& part) const {
    if (!part.outer.empty()) {
        part.along = part.outer.back();
        part.outer.pop_back();
    }
    const bool pair = part.along.extent == 2 && part.along.from == 1 && part.along.to == 1 && part.along.factor == 0;
    if (pair && to_size_ == 2 && !part.outer.empty() && part.outer.back().to == 2) {
        part.paired = true;
        part.along = part.outer.back();
        part.outer.pop_back();
    }
    const dnnl_dim_t unit = part.paired ? 2 : 1;
    const auto fastest = std::min_element(part.outer.begin(), part.outer.end(), [](const Axis& a, const Axis& b) { return a.from < b.from; });
    part.tiled = part.along.from != unit && part.along.extent >= 8 && fastest != part.outer.end() && fastest->from == unit &&
                 fastest->extent >= 4 && (!part.paired || fastest->factor == 0);
    if (part.tiled) {
        part.across = *fastest;
        part.outer.erase(fastest);
    } else if (part.paired) {
        part.paired = false;
        part.outer.push_back(part.along);
        part.along = Axis{2, 1, 1, 0};
    }
    const dnnl_dim_t row = part.tiled ? kAlong : kRow;
    part.along_tiles = (part.along.extent + row - 1) / row;
    part.across_tiles = (part.across.extent + kAcross - 1) / kAcross;
    part.tasks = part.along_tiles * part.across_tiles;
    for (const Axis& axis : part.outer) part.tasks *= axis.extent;
}

void Copy::run(const metafuse_cpu::Runtime& runtime, const void* from, void* to, const void* factors) const {
    struct Work {
        const Copy* copy;
        const Part* part;
        Place start;
        dnnl_dim_t share;
    };
    std::memset(static_cast<char*>(to) + cleared_from_, 0, cleared_);
    const Place whole{static_cast<const char*>(from), static_cast<char*>(to), static_cast<const float*>(factors)};
    for (const Part& part : parts_) {
        const dnnl_dim_t each = part.tiled ? kAlong * kAcross : std::min(kRow, part.along.extent);
        const dnnl_dim_t wanted = std::min(part.tasks * each / kMemberShare + 1, part.tasks);
        const int members = static_cast<int>(std::min<dnnl_dim_t>(wanted, runtime.members()));
        Work work{this, &part, whole, (part.tasks + members - 1) / members};
        work.start.from += part.start.from * from_size_;
        work.start.to += part.start.to * to_size_;
        if (scaled_) work.start.factor += part.start.factor;
        const auto body = [](void* context, int number) {
            const Work& mine = *static_cast<const Work*>(context);
            const dnnl_dim_t first = mine.share * number;
            mine.copy->some(*mine.part, mine.start, first, std::min(first + mine.share, mine.part->tasks));
        };
        if (members > 1) runtime.begin_region(members, body, &work);
        body(&work, 0);
        if (members > 1) runtime.end_region();
    }
}

// Tasks first .. last-1, counted over the outer loops, then the tiles.
void Copy::some(const Part& part, const Place& start, dnnl_dim_t first, dnnl_dim_t last) const {
    for (dnnl_dim_t task = first; task < last; ++task) {
        dnnl_dim_t rest = task;
        const dnnl_dim_t along = rest % part.along_tiles * (part.tiled ? kAlong : kRow);
        rest /= part.along_tiles;
        const dnnl_dim_t across = rest % part.across_tiles * kAcross;
        rest /= part.across_tiles;
        dnnl_dim_t from = along * part.along.from + across * part.across.from;
        dnnl_dim_t to = along * part.along.to + across * part.across.to;
        dnnl_dim_t factor = along * part.along.factor + across * part.across.factor;
        for (std::size_t k = part.outer.size(); k-- > 0;) {
            const Axis& axis = part.outer[k];
            const dnnl_dim_t index = rest % axis.extent;
            rest /= axis.extent;
            from += index * axis.from;
            to += index * axis.to;
            factor += index * axis.factor;
        }
        const Place place{start.from + from * from_size_, start.to + to * to_size_, scaled_ ? start.factor + factor : nullptr};
        if (part.tiled) {
            tile(part, place, std::min(kAcross, part.across.extent - across), std::min(kAlong, part.along.extent - along));
        } else {
            rows(part, place, std::min(kRow, part.along.extent - along));
        }
    }
}

void Copy::rows(const Part& part, Place place, dnnl_dim_t count) const {
    const auto size = static_cast<std::size_t>(count);
    if (same_ && !scaled_ && part.along.from == 1 && part.along.to == 1) {
        std::memcpy(place.to, place.from, size * static_cast<std::size_t>(from_size_));
        return;
    }
    alignas(64) float row[kRow];
    widen_(place.from, part.along.from, row, size);
    if (scaled_) multiply(row, place.factor, part.along.factor, count);
    narrow_(row, place.to, part.along.to, size);
}

// Rows of pairs, narrowed already: each is a word, whatever its bits would be as a float32.
void Copy::read_pairs(const Part& part, Place place, float* rows, dnnl_dim_t across, dnnl_dim_t along) const {
    alignas(64) float row[2 * kAcross];
    for (dnnl_dim_t k = 0; k < along; ++k) {
        const auto count = static_cast<std::size_t>(2 * across);
        const char* const from = place.from + k * part.along.from * from_size_;
        foresee(from, 2 * kAcross * from_size_);
        widen_(from, 1, row, count);
        if (scaled_) multiply(row, place.factor + k * part.along.factor, 0, 2 * across);
        narrow_(row, reinterpret_cast<char*>(rows + k * kAcross), 1, count);
    }
}

void Copy::tile(const Part& part, Place place, dnnl_dim_t across, dnnl_dim_t along) const {
    alignas(64) float read[kAlong * kAcross], turned[kAcross * kAlong];
    if (part.paired) read_pairs(part, place, read, across, along);
    for (dnnl_dim_t k = 0; !part.paired && k < along; ++k) {
        const char* const row = place.from + k * part.along.from * from_size_;
        foresee(row, kAcross * from_size_);
        widen_(row, 1, read + k * kAcross, static_cast<std::size_t>(across));
    }
    // Beyond the edge there is whatever was there; it is not stored.
    for (dnnl_dim_t k = 0; k < along; k += 8) {
        for (dnnl_dim_t j = 0; j < across; j += 8) turn8(read + k * kAcross + j, kAcross, turned + j * kAlong + k, kAlong);
    }
    for (dnnl_dim_t j = 0; j < across; ++j) {
        float* const row = turned + j * kAlong;
        char* const to = place.to + j * part.across.to * to_size_;
        if (part.paired) {
            std::memcpy(to, row, static_cast<std::size_t>(along) * sizeof(float));
            continue;
        }
        if (scaled_) multiply(row, place.factor + j * part.across.factor, part.along.factor, along);
        narrow_(row, to, part.along.to, static_cast<std::size_t>(along));
    }
}

}  // namespace metafuse_onednn
