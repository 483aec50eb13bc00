// SPDX-License-Identifier: MIT
// Family a8w8: 8-bit activations and weights with scales per tensor or per token.
#pragma once

#include "jitcache/shortcuts/begin.hpp"

#include "jitcache/op/moe_gemm.hpp"

namespace jitcache::a8w8 {

template <typename I>
using Op = MoeGemm<I>;

} // namespace jitcache::a8w8

#include "jitcache/shortcuts/end.hpp"
