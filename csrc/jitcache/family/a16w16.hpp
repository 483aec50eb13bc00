// SPDX-License-Identifier: MIT
// Family a16w16: bf16 or fp16 activations and weights.
#pragma once

#include "jitcache/shortcuts/begin.hpp"

#include "jitcache/op/moe_gemm.hpp"

namespace jitcache::a16w16 {

template <typename I>
using Op = MoeGemm<I>;

} // namespace jitcache::a16w16

#include "jitcache/shortcuts/end.hpp"
