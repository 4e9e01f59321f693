// A recipe: the primitives that one contraction takes, in order (pack the weight, bring the image into another layout,
// convolve, bring the result back), and where each finds its memory. Recipes are immutable and shared by equal operations;
// what belongs to one of them (packed weights) is in its Step.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "copy.hpp"
#include "description.hpp"

namespace metafuse_onednn {

class Recipe {
public:
    enum class Where { buffer, scratch, kept };
    struct Item {
        desc_t desc;
        Where where;
        int buffer;          // of a buffer: its number
        std::size_t offset;  // bytes: into the buffer, the scratch memory or the kept memory
    };
    struct Action {
        dnnl::primitive primitive;                   // or, instead:
        std::shared_ptr<const Copy> copy;            // from DNNL_ARG_FROM to DNNL_ARG_TO, times DNNL_ARG_SRC_1
                                                     // or neither: bring DNNL_ARG_FROM into the caches
        std::vector<std::pair<int, int>> arguments;  // DNNL_ARG_..., item
        bool packing;                                // of a constant operand: only where that changed
        std::size_t workspace;                       // bytes of scratch memory at the start
    };

    std::vector<Item> items;
    std::vector<Action> actions;
    std::size_t scratch_bytes = 0;
    std::size_t kept_bytes = 0;
    std::size_t buffers = 0;
    int threads = 1;
    std::string about;

    // Memory of a buffer, from `offset` elements on.
    int buffer(int number, const desc_t& desc, dnnl_dim_t offset = 0);
    // The memory of an item under another description.
    int seen_as(int item, const desc_t& desc);
    // Memory for the time of a run.
    int scratch(const desc_t& desc);
    // Memory that stays.
    int kept(const desc_t& desc);
    void add(const dnnl::primitive& primitive, const dnnl::primitive_desc_base& description,
             std::vector<std::pair<int, int>> arguments, bool packing = false);
    // Copies between layouts and element types; `factors`: an item of float32 to multiply by, extent 1 where it is broadcast. False where nothing can.
    bool reorder(int from, int to, bool packing = false, int factors = -1);
    // An item in another layout or type: itself where it is that already, else a copy of it in scratch memory; -1 where nothing can.
    int converted(int item, const desc_t& wanted);
    // Has an item read from end to end before what follows reads it in an order that the hardware does not foresee.
    void foresee(int item);
    // Completes `about` by the primitives beside the contraction itself.
    void tell();
    // Places the memory of the run; called once, at the end.
    void finish();
};

// The engine and stream of this process.
const dnnl::engine& engine();
const dnnl::stream& stream();

// The recipe of `operation` for the current number of threads, from the cache or made now; nullptr where oneDNN has
// nothing good for it. Throws dnnl::error only where memory runs out.
std::shared_ptr<const Recipe> recipe_of(const Operation& operation, int threads);

// The makers, one per family. They answer nullptr to refuse.
std::unique_ptr<Recipe> make_matmul(const Operation& operation);
std::unique_ptr<Recipe> make_convolution(const Operation& operation);

// Whether an implementation is one that may be used: compiled for this machine and not the slow reference.
bool good(const dnnl::primitive_desc_base& description);

}  // namespace metafuse_onednn
