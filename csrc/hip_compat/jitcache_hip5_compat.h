// What the HIP 5 headers lack when a clang of 22 or newer reads them, and what CK's FP8
// header expects of newer HIP headers. Included before everything else, in device and host
// passes alike; the `llvm` toolchain provider adds it for HIP headers older than 6.
#pragma once

#if defined(__HIP__)

#include <type_traits>

// Removed from clang, where it used to be predefined. All targets of ours are wave64.
#ifndef __AMDGCN_WAVEFRONT_SIZE
#define __AMDGCN_WAVEFRONT_SIZE 64
#endif

// CK checks the FP8 format in host code with HIP 6's assertion.
#ifndef __hip_assert
#define __hip_assert(condition)      \
    do                               \
    {                                \
        if(!(condition))             \
            __builtin_trap();        \
    } while(false)
#endif

// HIP 6 keeps its own copies of the standard type traits under this name; CK uses them.
namespace __hip_internal {
using std::conditional;
using std::enable_if;
using std::is_floating_point;
using std::is_integral;
using std::is_same;
using std::is_signed;
} // namespace __hip_internal

namespace jitcache_compat {
typedef _Float16 half2_t __attribute__((ext_vector_type(2)));
} // namespace jitcache_compat

// The device libraries' names for the reciprocal of half precision, which clang used to
// declare by itself.
static inline __attribute__((device)) _Float16 __llvm_amdgcn_rcp_f16(_Float16 x)
{
    return static_cast<_Float16>(__builtin_amdgcn_rcph(x));
}

static inline __attribute__((device)) jitcache_compat::half2_t
__llvm_amdgcn_rcp_2f16(jitcache_compat::half2_t x)
{
    return jitcache_compat::half2_t{__llvm_amdgcn_rcp_f16(x.x), __llvm_amdgcn_rcp_f16(x.y)};
}

#endif // __HIP__
