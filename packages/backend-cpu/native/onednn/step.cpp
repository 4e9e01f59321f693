#include "step.hpp"

#include <stdexcept>

#include "threads.hpp"

namespace metafuse_onednn {

namespace {

constexpr std::size_t kLine = 64;

struct Stretch {
    const char* start;
    std::size_t bytes;
    int members;
};

// One element of each cache line of a member's part.
void look(void* context, int number) {
    const auto& all = *static_cast<const Stretch*>(context);
    const auto member = static_cast<std::size_t>(number), members = static_cast<std::size_t>(all.members);
    const std::size_t lines = (all.bytes + kLine - 1) / kLine;
    const std::size_t end = lines * (member + 1) / members;
    for (std::size_t line = lines * member / members; line < end; ++line) {
        static_cast<void>(*static_cast<const volatile char*>(all.start + line * kLine));
    }
}

}  // namespace

Step::Step(const metafuse_cpu::Runtime& runtime, Operation operation, std::shared_ptr<const Recipe> recipe)
    : runtime_(runtime),
      operation_(std::move(operation)),
      recipe_(std::move(recipe)),
      promised_scratch_(recipe_->scratch_bytes) {
    bind();
}

Step::~Step() {
    for (void* block : {kept_, more_scratch_}) {
        if (block != nullptr) runtime_.release(block);
    }
}

// Memory objects and argument lists, made once: a run only moves the pointers.
void Step::bind() {
    memories_.clear();
    arguments_.clear();
    for (const Recipe::Item& item : recipe_->items) memories_.push_back(dnnl::memory(item.desc, engine(), nullptr));
    placed_.assign(memories_.size(), nullptr);
    for (const Recipe::Action& action : recipe_->actions) {
        std::vector<dnnl_exec_arg_t> list;
        for (const auto& [argument, item] : action.arguments) {
            list.push_back({argument, memories_[static_cast<std::size_t>(item)].get()});
        }
        arguments_.push_back(std::move(list));
    }
}

// Primitives are made for one number of threads.
void Step::follow_threads() {
    const int now = use_threads(runtime_);
    if (now == recipe_->threads) return;
    auto fresh = recipe_of(operation_, now);
    if (fresh == nullptr) throw std::runtime_error("oneDNN has no primitive for " + std::to_string(now) + " threads");
    recipe_ = std::move(fresh);
    packed_ = false;
    bind();
}

char* Step::own_memory(void*& block, std::size_t& there, std::size_t bytes) {
    if (there < bytes) {
        if (block != nullptr) runtime_.release(block);
        there = 0;
        block = runtime_.allocate(bytes);
        if (block == nullptr) throw std::runtime_error("no memory for " + std::to_string(bytes) + " bytes");
        there = bytes;
    }
    return static_cast<char*>(block);
}

void Step::place(void* const* buffers, char* scratch) {
    for (std::size_t k = 0; k < memories_.size(); ++k) {
        const Recipe::Item& item = recipe_->items[k];
        char* start = item.where == Recipe::Where::buffer    ? static_cast<char*>(buffers[item.buffer])
                      : item.where == Recipe::Where::scratch ? scratch
                                                             : static_cast<char*>(kept_);
        void* const target = start + item.offset;
        if (placed_[k] == target) continue;
        dnnl::error::wrap_c_api(dnnl_memory_set_data_handle(memories_[k].get(), target), "memory");
        placed_[k] = target;
    }
}

void Step::copy(const Recipe::Action& action) const {
    const void* from = nullptr;
    const void* factors = nullptr;
    void* to = nullptr;
    for (const auto& [argument, item] : action.arguments) {
        void* const place = placed_[static_cast<std::size_t>(item)];
        if (argument == DNNL_ARG_FROM) from = place;
        if (argument == DNNL_ARG_TO) to = place;
        if (argument == DNNL_ARG_SRC_1) factors = place;
    }
    action.copy->run(runtime_, from, to, factors);
}

void Step::foresee(const Recipe::Action& action) const {
    const auto item = static_cast<std::size_t>(action.arguments[0].second);
    Stretch stretch{static_cast<const char*>(placed_[item]), recipe_->items[item].desc.get_size(), runtime_.members()};
    if (stretch.members > 1) runtime_.begin_region(stretch.members, look, &stretch);
    look(&stretch, 0);
    if (stretch.members > 1) runtime_.end_region();
}

bool Step::run(void* const* buffers, void* scratch, bool changed, std::string& message) noexcept {
    try {
        std::lock_guard<std::mutex> lock(mutex_);
        follow_threads();
        if (recipe_->kept_bytes > 0) own_memory(kept_, kept_there_, recipe_->kept_bytes);
        char* room = static_cast<char*>(scratch);
        if (recipe_->scratch_bytes > (room == nullptr ? 0 : promised_scratch_)) {
            room = own_memory(more_scratch_, more_scratch_there_, recipe_->scratch_bytes);
        }
        place(buffers, room);
        const bool pack = changed || !packed_;
        packed_ = false;  // until it is done
        for (std::size_t k = 0; k < arguments_.size(); ++k) {
            const Recipe::Action& action = recipe_->actions[k];
            if (action.packing && !pack) continue;
            if (action.copy != nullptr || !action.primitive) {
                action.copy != nullptr ? copy(action) : foresee(action);
                continue;
            }
            dnnl::error::wrap_c_api(dnnl_primitive_execute(action.primitive.get(), stream().get(),
                                                           static_cast<int>(arguments_[k].size()), arguments_[k].data()),
                                    "oneDNN refused to run a primitive");
        }
        packed_ = true;
        return true;
    } catch (const std::exception& error) {
        message = error.what();
    } catch (...) {
        message = "unknown error";
    }
    return false;
}

}  // namespace metafuse_onednn
