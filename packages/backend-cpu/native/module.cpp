#include "module.hpp"

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include <dlfcn.h>
#include <sys/types.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/syscall.h>
#endif

#include "failure.hpp"

namespace metafuse_cpu {
namespace {

bool write_all(int file, const char* bytes, std::size_t size) {
    while (size > 0) {
        const ssize_t written = ::write(file, bytes, size);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) return false;
        bytes += written;
        size -= static_cast<std::size_t>(written);
    }
    return true;
}

// The loader takes two equal paths for one library, and descriptor numbers come back after close(). So every call
// spells the path differently: the binary digits of a counter as "./" and "/".
std::string unique_path(int file) {
    static std::atomic<unsigned long> counter{1};
    std::string path = "/proc/self/fd/";
    for (unsigned long rest = counter.fetch_add(1); rest != 0; rest >>= 1) path += (rest & 1) ? "./" : "/";
    return path + std::to_string(file);
}

void* open_from_memory(const char* bytes, std::size_t size) {
#if defined(__linux__) && defined(SYS_memfd_create)
    const int file = static_cast<int>(syscall(SYS_memfd_create, "metafuse-module", 1u /* close on exec */));
    if (file < 0) return nullptr;
    void* library = nullptr;
    if (write_all(file, bytes, size)) library = dlopen(unique_path(file).c_str(), RTLD_NOW | RTLD_LOCAL);
    ::close(file);
    return library;
#else
    (void)bytes;
    (void)size;
    return nullptr;
#endif
}

// For systems without memfd or /proc. The file goes as soon as it is mapped.
void* open_from_file(const char* bytes, std::size_t size, std::string& problem) {
    const char* named = std::getenv("TMPDIR");
    const char* folders[] = {named != nullptr && *named ? named : "/tmp", "/tmp", "/var/tmp", "/dev/shm"};
    for (const char* folder : folders) {
        std::string path = std::string(folder) + "/metafuse-XXXXXX";
        const int file = mkstemp(&path[0]);
        if (file < 0) {
            problem = std::string(folder) + ": " + std::strerror(errno);
            continue;
        }
        const bool written = write_all(file, bytes, size);
        if (!written) problem = path + ": " + std::strerror(errno);
        ::close(file);
        void* library = written ? dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL) : nullptr;
        if (written && library == nullptr) {
            const char* words = dlerror();
            problem = words != nullptr ? words : "dlopen failed";
        }
        ::unlink(path.c_str());
        if (library != nullptr) return library;
    }
    return nullptr;
}

}  // namespace

Module::Module(const char* bytes, std::size_t size, bool in_memory) {
    // A cut-off object can kill the process inside the loader (its segments lie beyond the end of the file), so refuse
    // what is visibly no shared object; whole-file integrity is the compile cache's checksum.
    const bool elf = size >= 64 && std::memcmp(bytes, "\x7f" "ELF", 4) == 0;
    const bool mach = size >= 32 && (std::memcmp(bytes, "\xcf\xfa\xed\xfe", 4) == 0 ||
                                    std::memcmp(bytes, "\xca\xfe\xba\xbe", 4) == 0);
    if (!elf && !mach) {
        throw Failure("BackendError", "[load] not a compiled module: " + std::to_string(size) + " bytes");
    }
    if (elf && bytes[4] == 2) {
        // The section header table is the last thing in a linked object: offset, entry size and count of the header.
        std::uint64_t offset = 0;
        std::uint16_t entry = 0, count = 0;
        std::memcpy(&offset, bytes + 0x28, 8);
        std::memcpy(&entry, bytes + 0x3a, 2);
        std::memcpy(&count, bytes + 0x3c, 2);
        if (offset > size || std::uint64_t(entry) * count > size - offset) {
            throw Failure("BackendError", "[load] truncated module: " + std::to_string(size) + " bytes");
        }
    }
    std::string problem = "the system has no files in memory";
    if (in_memory) {
        library_ = open_from_memory(bytes, size);
        if (library_ != nullptr) return;
        const char* words = dlerror();
        if (words != nullptr) problem = words;
    }
    library_ = open_from_file(bytes, size, problem);
    if (library_ == nullptr) throw Failure("BackendError", "[load] can't load a compiled module: " + problem);
}

void* Module::find(const std::string& symbol) const { return dlsym(library_, symbol.c_str()); }

}  // namespace metafuse_cpu
