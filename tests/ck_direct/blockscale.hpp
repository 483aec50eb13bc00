// SPDX-License-Identifier: MIT
// DeviceMoeGemmBlockScale as AITER calls it (gemm_moe_ck2stages_common_blockscale.cuh). CK_SPLITS_K
// chooses the form of AITER 9bab8388's CK; without it, that of the amd-aiter 0.1.7 wheel.
#pragma once

#include "answer.hpp"
#include "ck/tensor_operation/gpu/device/impl/device_moe_gemm_blockscale.hpp"

#if CK_SPLITS_K
#define CK_NO_SPLIT false,
#define CK_MORE_TYPES , A, A, A, false
#else
#define CK_NO_SPLIT
#define CK_MORE_TYPES
#endif

// clang-format off
template <int STAGE, typename A, typename B, typename ACC, typename E, auto PIPELINE,
          int BLOCK, int M, int N, int K, int MW, int NW,
          bool PER_TENSOR, bool ROUTED, int ACT>
void answer(const Call& call)
{
    constexpr bool one = STAGE == 1;
    constexpr int mx   = M / (XDL * MW);
    constexpr int nx   = N / (XDL * NW);
    constexpr int k1   = 16 / sizeof(A);
    constexpr int lane = K / k1;
    constexpr int cn   = one ? 16 : 64;
    using Op = ck::tensor_operation::device::DeviceMoeGemmBlockScale<
        Row, Col, ck::Tuple<Row>, Row, A, F32, B, F32, ck::Tuple<F32>, E, ACC, F32,
        Same, Same, End, SPEC, BLOCK, 1, 128, 128, M, N, K, k1, k1, XDL, XDL, mx, nx,
        S<lane, BLOCK / lane, 1>, S<1, 0, 2>, S<1, 0, 2>, 2, k1, k1, 0,
        S<lane, BLOCK / lane, 1>, S<1, 0, 2>, S<1, 0, 2>, 2, k1, k1, 0,
        mx, nx, S<1, BLOCK / cn, 1, cn>, S<2, 1, 1, 1>,
        SCHEDULE, PIPELINE, one ? ACT : 0, false, one, CK_NO_SPLIT ROUTED, int32_t, A CK_MORE_TYPES>;
    reply<Op, K>(call, [](const Call& c) {
        return Op::MakeArgument(c.token_ids, c.expert_ids, c.valid_ids, c.states, c.weights,
            std::array<const void*, 1>{ROUTED ? c.routed : nullptr},
            c.out, c.tokens, c.topk, c.sorted_size, c.n, c.k, c.k, c.k,
            std::array<ck::index_t, 1>{0}, c.n, c.a_scale, c.w_scale, 1, Same{}, Same{}, End{});
    });
}
// clang-format on
