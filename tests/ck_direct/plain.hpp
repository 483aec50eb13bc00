// SPDX-License-Identifier: MIT
// DeviceMoeGemm as AITER 9bab8388 calls it (gemm_moe_ck2stages_common.cuh).
#pragma once

#include "answer.hpp"
#include "ck/tensor_operation/gpu/device/impl/device_moe_gemm.hpp"

#include <algorithm>

// clang-format off
template <int STAGE, typename A, typename B, typename ACC, typename E, auto PIPELINE,
          int BLOCK, int M, int N, int K, int MW, int NW,
          bool PER_TENSOR, bool ROUTED, int ACT>
void answer(const Call& call)
{
    constexpr bool one  = STAGE == 1;
    constexpr bool i4   = ck::is_same_v<B, I4>;
    constexpr bool b8   = sizeof(A) == 1 && sizeof(B) == 1;
    constexpr int mx    = M / (XDL * MW);
    constexpr int nx    = N / (XDL * NW);
    constexpr int k1    = b8 && (one ? PIPELINE == V3 && N == 64 : BLOCK == 256 && K == 64) ? 8 : 16;
    constexpr int ak1   = k1 / sizeof(A);
    constexpr int bk1   = i4 ? 32 : k1 / sizeof(B);
    constexpr int evec  = !one ? 2 : M == 16 ? 4 : 16 / sizeof(E);
    constexpr int dvec  = PER_TENSOR ? 1 : evec;
    constexpr int ka    = K / ak1;
    constexpr int kb    = K / bk1;
    constexpr int cm1   = M == 16 ? 16 : N / 2 / nx;
    constexpr int cn2   = i4 ? 32 : N / 2 / nx;
    using Store   = ck::conditional_t<one, S<1, cm1, 1, BLOCK / cm1>, S<1, BLOCK / cn2, 1, cn2>>;
    using Vectors = ck::conditional_t<one, S<evec, 1, dvec>, S<evec, 1, dvec, 1>>;
    using Op = ck::tensor_operation::device::DeviceMoeGemm<
        Row, Col, ck::Tuple<Row, Col, Row>, Row, A, B, ck::Tuple<F32, F32, F32>, E, ACC, F32,
        Same, Same, End, SPEC, BLOCK, M, N, K, ak1, bk1, XDL, XDL, mx, nx,
        S<ka, BLOCK / ka, 1>, S<1, 0, 2>, S<1, 0, 2>, 2, ak1, ak1, 0,
        S<kb, BLOCK / kb, 1>, S<1, 0, 2>, S<1, 0, 2>, 2, bk1, bk1, 0,
        std::min(2, mx), i4 ? (one ? 1 : 2) : nx, Store, Vectors,
        SCHEDULE, PIPELINE, one ? ACT : 0, false, one, ROUTED, !PER_TENSOR, ck::index_t, A>;
    constexpr int stride = PER_TENSOR ? 0 : 1;
    reply<Op, K>(call, [](const Call& c) {
        return Op::MakeArgument(c.token_ids, c.expert_ids, c.valid_ids, c.states, c.weights,
            std::array<const void*, 3>{c.a_scale, c.w_scale, ROUTED ? c.routed : nullptr},
            c.out, c.tokens, c.topk, c.sorted_size, c.n, c.k, c.k, c.k,
            std::array<ck::index_t, 3>{stride, stride, 0}, c.n, 1, Same{}, Same{}, End{});
    });
}
// clang-format on
