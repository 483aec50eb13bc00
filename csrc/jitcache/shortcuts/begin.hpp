// SPDX-License-Identifier: MIT
// Before CK's headers in a device translation unit; end.hpp comes after them.
//
// Nothing here changes what a kernel does. What does the work is proved by comparing machine
// code (tools/identity), for the CK and the compiler that jitcache/toolchain/shortcuts.py
// names; with any other, JITCACHE_CK_SHORTCUTS is not defined and CK is compiled as it is.

#ifdef JITCACHE_CK_SHORTCUTS

// Whatever CK includes from outside, so that the attribute below stays with CK.
#include <array>
#include <cassert>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <limits>
#include <map>
#include <numeric>
#include <optional>
#include <ostream>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <hip/hip_fp16.h>
#include <hip/hip_runtime.h>

// For every member function (CK's are mostly call operators of nested lambdas) clang works out
// the visibility of all types that its template arguments and its enclosing functions name. It
// asks no more once the linkage is internal, and there is one translation unit per code object.
#pragma clang attribute push(__attribute__((internal_linkage)), apply_to = function(is_member))

#include "jitcache/shortcuts/curve.hpp"
#include "jitcache/shortcuts/descriptor.hpp"
#include "jitcache/shortcuts/sequence.hpp"

#endif // JITCACHE_CK_SHORTCUTS
