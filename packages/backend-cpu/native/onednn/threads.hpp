// oneDNN's parallel regions on the runtime's threads. The library was built for GNU OpenMP, whose threads would spin beside
// ours; so the few entries of *its* table of imported functions that lead to libgomp are redirected here. Nobody else's
// libgomp is touched, and where an entry is missing nothing is: then OpenMP's own threads do the work.
#pragma once

#include "../library.hpp"

namespace metafuse_onednn {

// Redirects the loaded oneDNN; answers whether its regions run on the runtime's threads from now on. Called once.
bool redirect_threads(const metafuse_cpu::Runtime& runtime);
// Makes the number of threads hold for what the calling thread makes and runs next, and answers it.
int use_threads(const metafuse_cpu::Runtime& runtime);

}  // namespace metafuse_onednn
