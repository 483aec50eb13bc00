// SPDX-License-Identifier: MIT
// Family a8w4: fp8 activations and int4 weights.
#pragma once

#include "jitcache/shortcuts/begin.hpp"

#include "jitcache/op/moe_gemm.hpp"

namespace jitcache::a8w4 {

template <typename I>
using Op = MoeGemm<I>;

} // namespace jitcache::a8w4

#include "jitcache/shortcuts/end.hpp"
