#include "recipe.hpp"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <unordered_map>

namespace metafuse_onednn {
namespace {

constexpr std::size_t kAlignment = 64;
// Entries of recipes that nobody holds any more are looked for whenever the cache has grown by so many.
constexpr std::size_t kSweep = 256;

std::size_t aligned(std::size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

std::mutex cache_mutex;
std::unordered_map<std::string, std::weak_ptr<const Recipe>>& cache() {
    static auto* recipes = new std::unordered_map<std::string, std::weak_ptr<const Recipe>>();
    return *recipes;
}

std::unique_ptr<Recipe> make(const Operation& operation) {
    return operation.kind == Kind::matmul ? make_matmul(operation) : make_convolution(operation);
}

void sweep_locked() {
    static std::size_t next = kSweep;
    if (cache().size() < next) return;
    for (auto entry = cache().begin(); entry != cache().end();) {
        entry = entry->second.expired() ? cache().erase(entry) : std::next(entry);
    }
    next = cache().size() + kSweep;
}

}  // namespace

const dnnl::engine& engine() {
    static const auto* made = new dnnl::engine(dnnl::engine::kind::cpu, 0);
    return *made;
}

const dnnl::stream& stream() {
    static const auto* made = new dnnl::stream(engine());
    return *made;
}

int Recipe::buffer(int number, const desc_t& desc, dnnl_dim_t offset) {
    const auto bytes = static_cast<std::size_t>(offset) * dnnl::memory::data_type_size(desc.get_data_type());
    items.push_back(Item{desc, Where::buffer, number, bytes});
    return static_cast<int>(items.size()) - 1;
}

int Recipe::seen_as(int item, const desc_t& desc) {
    Item other = items[static_cast<std::size_t>(item)];
    other.desc = desc;
    items.push_back(other);
    return static_cast<int>(items.size()) - 1;
}

int Recipe::scratch(const desc_t& desc) {
    items.push_back(Item{desc, Where::scratch, -1, scratch_bytes});
    scratch_bytes += aligned(desc.get_size());
    return static_cast<int>(items.size()) - 1;
}

int Recipe::kept(const desc_t& desc) {
    items.push_back(Item{desc, Where::kept, -1, kept_bytes});
    kept_bytes += aligned(desc.get_size());
    return static_cast<int>(items.size()) - 1;
}

void Recipe::add(const dnnl::primitive& primitive, const dnnl::primitive_desc_base& description,
                 std::vector<std::pair<int, int>> arguments, bool packing) {
    const std::size_t workspace = aligned(description.scratchpad_desc().get_size());
    if (workspace > 0) {
        // Its place is at the front, see finish.
        items.push_back(Item{description.scratchpad_desc(), Where::scratch, -2, 0});
        arguments.emplace_back(DNNL_ARG_SCRATCHPAD, static_cast<int>(items.size()) - 1);
    }
    actions.push_back(Action{primitive, nullptr, std::move(arguments), packing, workspace});
}

// oneDNN's copies are fast unless they count as simple, or turn rows that collide; ours are exact for every type and know factors.
bool Recipe::reorder(int from, int to, bool packing, int factors) {
    const desc_t source = items[static_cast<std::size_t>(from)].desc, target = items[static_cast<std::size_t>(to)].desc;
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    dnnl::reorder::primitive_desc description;
    if (factors < 0) description = dnnl::reorder::primitive_desc(engine(), source, engine(), target, attributes, true);
    const bool compiled = description && std::strncmp(description.impl_info_str(), "jit", 3) == 0;
    const desc_t factors_desc = factors < 0 ? desc_t() : items[static_cast<std::size_t>(factors)].desc;
    auto copy = Copy::make(source, target, factors < 0 ? nullptr : &factors_desc);
    if (copy != nullptr && (!compiled || copy->turns_colliding_rows())) {
        std::vector<std::pair<int, int>> arguments = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}};
        if (factors >= 0) arguments.emplace_back(DNNL_ARG_SRC_1, factors);
        actions.push_back(Action{dnnl::primitive(), std::move(copy), std::move(arguments), packing, 0});
        return true;
    }
    if (!description) return false;
    add(dnnl::reorder(description), description, {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}}, packing);
    return true;
}

int Recipe::converted(int item, const desc_t& wanted) {
    if (items[static_cast<std::size_t>(item)].desc == wanted) return item;
    const int target = scratch(wanted);
    return reorder(item, target) ? target : -1;
}

void Recipe::foresee(int item) { actions.push_back(Action{dnnl::primitive(), nullptr, {{DNNL_ARG_FROM, item}}, false, 0}); }

void Recipe::tell() {
    int copies = 0, others = 0, packs = 0;
    for (const Action& action : actions) {
        if (action.copy == nullptr && !action.primitive) continue;
        const auto kind = action.copy != nullptr ? dnnl::primitive::kind::reorder : action.primitive.get_kind();
        const bool copy = kind == dnnl::primitive::kind::reorder;
        const bool other = kind == dnnl::primitive::kind::eltwise || kind == dnnl::primitive::kind::binary;
        if (action.packing) packs += 1;
        else if (copy) copies += 1;
        else if (other) others += 1;
    }
    for (const auto& [count, words] : {std::pair{packs, " once packed"}, {copies, " copied"}, {others, " apart"}}) {
        if (count > 0) about += ", " + std::to_string(count) + words;
    }
}

void Recipe::finish() {
    std::size_t workspace = 0;
    for (const Action& action : actions) workspace = std::max(workspace, action.workspace);
    for (Item& item : items) {
        if (item.where == Where::scratch && item.buffer != -2) item.offset += workspace;
    }
    scratch_bytes += workspace;
}

bool good(const dnnl::primitive_desc_base& description) {
    if (!description) return false;
    const char* name = description.impl_info_str();
    return std::strncmp(name, "ref", 3) != 0 && std::strstr(name, "gemm:ref") == nullptr;
}

std::shared_ptr<const Recipe> recipe_of(const Operation& operation, int threads) {
    std::string key = operation.key();
    key.append(reinterpret_cast<const char*>(&threads), sizeof threads);
    {
        std::lock_guard<std::mutex> lock(cache_mutex);
        const auto found = cache().find(key);
        if (found != cache().end()) {
            if (auto recipe = found->second.lock()) return recipe;
        }
    }
    std::unique_ptr<Recipe> made = make(operation);
    if (made == nullptr && operation.computed != dnnl::memory::data_type::f32) {
        // Some primitives exist for float32 only.
        Operation wide = operation;
        wide.computed = dnnl::memory::data_type::f32;
        made = make(wide);
    }
    if (made == nullptr) return nullptr;
    made->finish();
    made->buffers = operation.buffers();
    made->threads = threads;
    std::shared_ptr<const Recipe> shared(std::move(made));
    std::lock_guard<std::mutex> lock(cache_mutex);
    sweep_locked();
    cache()[key] = shared;
    return shared;
}

}  // namespace metafuse_onednn
