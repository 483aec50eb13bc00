// SPDX-License-Identifier: MIT
// After CK's headers in a device translation unit that began with begin.hpp.

#ifdef JITCACHE_CK_SHORTCUTS
#pragma clang attribute pop
#endif
