// Copies between layouts and element types of our own: what oneDNN's reorder can't do (float16 on processors without arithmetic for it, a
// factor per channel) or does slowly. A value is widened to float32, multiplied, and rounded once.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "../library.hpp"
#include "description.hpp"

namespace metafuse_onednn {

class Copy {
public:
    // From any plain layout to a plain one, or to one in blocks that divide its extents. `factors`: a float32 tensor of the same rank,
    // extent 1 where it is broadcast, or nullptr. Answers nullptr for what it can't copy.
    static std::shared_ptr<const Copy> make(const desc_t& from, const desc_t& to, const desc_t* factors = nullptr);

    // On the calling thread and the runtime's helpers. `factors` may be nullptr where none were described.
    void run(const metafuse_cpu::Runtime& runtime, const void* from, void* to, const void* factors) const;

    using Widen = void (*)(const char* from, dnnl_dim_t step, float* to, std::size_t count);
    using Narrow = void (*)(const float* from, char* to, dnnl_dim_t step, std::size_t count);

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

    bool arrange(const desc_t& from, const desc_t& to, const desc_t* factors);
    void choose_tiles();
    void part(const Place& start, dnnl_dim_t first, dnnl_dim_t last) const;
    void rows(Place place, dnnl_dim_t count) const;
    void tile(Place place, dnnl_dim_t slow, dnnl_dim_t fast) const;

    Widen widen_ = nullptr;
    Narrow narrow_ = nullptr;
    dnnl_dim_t from_size_ = 0, to_size_ = 0, elements_ = 0;
    bool scaled_ = false, same_ = false;
    std::vector<Axis> outer_;  // slowest first
    Axis along_{1, 0, 0, 0};   // fastest in the target
    Axis across_{1, 0, 0, 0};  // fastest in the source, where that is another one
    dnnl_dim_t along_tiles_ = 1, across_tiles_ = 1, tasks_ = 1;
    bool tiled_ = false;
};

}  // namespace metafuse_onednn
