// One contraction, ready to run: a shared recipe, and what is this operation's own (packed weights, memory objects).
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "../library.hpp"
#include "recipe.hpp"

namespace metafuse_onednn {

class Step : public metafuse_cpu::LibraryStep {
public:
    Step(const metafuse_cpu::Runtime& runtime, Operation operation, std::shared_ptr<const Recipe> recipe);
    Step(const Step&) = delete;
    Step& operator=(const Step&) = delete;
    ~Step() override;

    std::size_t buffers() const override { return recipe_->buffers; }
    bool run(void* const* buffers, void* scratch, bool changed, std::string& message) noexcept override;
    const Recipe& recipe() const { return *recipe_; }

private:
    void bind();
    void follow_threads();
    void copy(const Recipe::Action& action) const;
    void foresee(const Recipe::Action& action) const;
    void place(void* const* buffers, char* scratch);
    char* own_memory(void*& block, std::size_t& there, std::size_t bytes);

    const metafuse_cpu::Runtime& runtime_;
    const Operation operation_;
    std::shared_ptr<const Recipe> recipe_;
    const std::size_t promised_scratch_;
    std::mutex mutex_;  // a run uses the memory objects
    std::vector<dnnl::memory> memories_;
    std::vector<void*> placed_;
    std::vector<std::vector<dnnl_exec_arg_t>> arguments_;
    bool packed_ = false;
    void* kept_ = nullptr;
    std::size_t kept_there_ = 0;
    void* more_scratch_ = nullptr;  // where another number of threads needs more than was promised
    std::size_t more_scratch_there_ = 0;
};

}  // namespace metafuse_onednn
