// Copies between layouts and element types of our own: what oneDNN's reorder can't do (float16 on processors without arithmetic for it, a
// factor per channel) or does slowly (rows that are a large power of two apart). A value is widened to float32, multiplied, and rounded once.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "../library.hpp"
#include "widening.hpp"

namespace metafuse_onednn {

class Copy {
public:
    // From any plain layout to a plain one, or to one in blocks, which are filled with zeros beyond the extents. `factors`: a float32 tensor of the
    // same rank, extent 1 where it is broadcast, or nullptr. Answers nullptr for what it can't copy.
    static std::shared_ptr<const Copy> make(const desc_t& from, const desc_t& to, const desc_t* factors = nullptr);

    // On the calling thread and the runtime's helpers. `factors` may be nullptr where none were described.
    void run(const metafuse_cpu::Runtime& runtime, const void* from, void* to, const void* factors) const;
    // Whether it turns rows into columns that meet in few lines of the cache, which it does better than others.
    bool turns_colliding_rows() const;

private:
    // One loop: steps are counted in elements.
    struct Axis {
        dnnl_dim_t extent, from, to, factor;
    };
    struct Place {
        const char* from;
        char* to;
        const float* factor;
    };
    // A part of the tensor without gaps: all of it, or what is left of a last block.
    struct Part {
        Axis start{1, 0, 0, 0};   // its first element
        std::vector<Axis> outer;  // slowest first
        Axis along{1, 0, 0, 0};   // fastest in the target; of pairs, if `paired`
        Axis across{1, 0, 0, 0};  // fastest in the source, where that is another one
        dnnl_dim_t along_tiles = 1, across_tiles = 1, tasks = 1;
        bool tiled = false;
        bool paired = false;  // two elements of 16 bits, neighbours on both sides, are one of 32
    };

    bool arrange(const desc_t& from, const desc_t& to, const desc_t* factors);
    bool split(const std::vector<Axis>& whole, const desc_t& to);
    void add_part(std::vector<Axis> axes, const Axis& start);
    void choose_tiles(Part& part) const;
    void some(const Part& part, const Place& start, dnnl_dim_t first, dnnl_dim_t last) const;
    void rows(const Part& part, Place place, dnnl_dim_t count) const;
    void tile(const Part& part, Place place, dnnl_dim_t across, dnnl_dim_t along) const;
    void read_pairs(const Part& part, Place place, float* rows, dnnl_dim_t across, dnnl_dim_t along) const;

    Widen widen_ = nullptr;
    Narrow narrow_ = nullptr;
    dnnl_dim_t from_size_ = 0, to_size_ = 0;
    bool scaled_ = false, same_ = false;
    std::vector<Part> parts_;
    std::size_t cleared_from_ = 0, cleared_ = 0;  // bytes of the target that are made zero before
};

}  // namespace metafuse_onednn
