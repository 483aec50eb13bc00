// SPDX-License-Identifier: MIT
// What a generated file says of an instance, and the problem a launch is made for.
#pragma once

#include "jitcache/ck_types.hpp"
#include "jitcache/shim.h"

namespace jitcache {

// The parameters of one instance, in the words of its name.
template <int Stage,
          typename AType,
          typename BType,
          typename OutType,
          typename CdeOp,
          ck::BlockGemmPipelineVersion Pipeline,
          ck::index_t BlockSize,
          ck::index_t M,
          ck::index_t N,
          ck::index_t K,
          ck::index_t MWaves,
          ck::index_t NWaves,
          bool PerTensor,
          bool MulRoutedWeight,
          int Act>
struct Instance
{
    static constexpr int stage              = Stage;
    using A                                 = AType;
    using B                                 = BType;
    using Out                               = OutType;
    using Cde                               = CdeOp;
    static constexpr auto pipeline          = Pipeline;
    static constexpr ck::index_t block_size = BlockSize;
    static constexpr ck::index_t m          = M;
    static constexpr ck::index_t n          = N;
    static constexpr ck::index_t k          = K;
    static constexpr ck::index_t m_waves    = MWaves;
    static constexpr ck::index_t n_waves    = NWaves;
    static constexpr bool per_tensor        = PerTensor;
    static constexpr bool mul_routed_weight = MulRoutedWeight;
    static constexpr int act                = Act;
};

} // namespace jitcache
