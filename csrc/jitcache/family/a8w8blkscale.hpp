// SPDX-License-Identifier: MIT
// Family a8w8blkscale: 8-bit activations and weights with block scales.
#pragma once

#include "jitcache/shortcuts/begin.hpp"

#include "jitcache/op/blockscale.hpp"

namespace jitcache::a8w8blkscale {

template <typename I>
using Op = BlockScale<I>;

} // namespace jitcache::a8w8blkscale

#include "jitcache/shortcuts/end.hpp"
