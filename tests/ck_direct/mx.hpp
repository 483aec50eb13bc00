// SPDX-License-Identifier: MIT
// What both MXFP4 operations have in common; mx_shuffled.hpp and mx_plain.hpp say the rest.
#pragma once

#include "answer.hpp"

// clang-format off
template <int STAGE, typename A, typename B, typename ACC, typename E, auto PIPELINE,
          int BLOCK, int M, int N, int K, int MW, int NW,
          bool PER_TENSOR, bool ROUTED, int ACT>
void answer(const Call& call)
{
    constexpr bool one  = STAGE == 1;
    constexpr int mx    = M / (XDL * MW);
    constexpr int nx    = N / (XDL * NW);
    constexpr int k1    = 16 / sizeof(A);
    constexpr int lane  = K / k1;
    constexpr int evec  = one ? 16 / sizeof(E) : 2;
    constexpr int cn2   = BLOCK == 64 ? N / 2 : N / 2 / nx;
    using Store = ck::conditional_t<one, CK_MX_STORE1(BLOCK, N, nx), S<1, BLOCK / cn2, 1, cn2>>;
    using Op = CK_MX_OPERATION<
        Row, Col, ck::Tuple<Row, Col, Row>, Row,
        A, ck::e8m0_bexp_t, B, ck::e8m0_bexp_t, ck::Tuple<F32, F32, F32>, E, ACC, F32,
        Same, Same, End, SPEC, 32, BLOCK, M, N, 128, k1, k1, XDL, XDL, mx, nx,
        S<lane, BLOCK / lane, 1>, S<1, 0, 2>, S<1, 0, 2>, 2, k1, k1, CK_MX_PAD,
        S<lane, BLOCK / lane, 1>, S<1, 0, 2>, S<1, 0, 2>, 2, k1, k1, CK_MX_PAD,
        2, nx, Store, S<evec, 1, PER_TENSOR ? 1 : evec>,
        SCHEDULE, PIPELINE, one ? ACT : 0, false, one, ROUTED, ck::index_t, A>;
    constexpr int stride = PER_TENSOR ? 0 : 1;
    reply<Op, 128>(call, [](const Call& c) {
        const int scales = (c.k + 31) / 32;
        return Op::MakeArgument(c.token_ids, c.expert_ids, c.valid_ids,
            c.states, c.a_scale, c.weights, c.w_scale,
            std::array<const void*, 3>{nullptr, nullptr, ROUTED ? c.routed : nullptr},
            c.out, c.tokens, c.topk, c.sorted_size, c.n, c.k, c.k, scales, c.k, scales,
            std::array<ck::index_t, 3>{stride, stride, 0}, c.n, 1, Same{}, Same{}, End{});
    });
}
// clang-format on
