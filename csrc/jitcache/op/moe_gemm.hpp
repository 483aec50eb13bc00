// SPDX-License-Identifier: MIT
// CK's DeviceMoeGemm: 16-bit, 8-bit and int4 weights with scales per tensor or per row.
//
// Families a16w16, a8w8 and a8w4 are this operation with other types. Parameters follow AITER
// 9bab8388, csrc/ck_gemm_moe_2stages_codegen/gemm_moe_ck2stages_common.cuh.
#pragma once

#include "jitcache/op/launch.hpp"

#include "ck/tensor_operation/gpu/device/impl/device_moe_gemm.hpp"

#include <algorithm>

namespace jitcache {

// What follows from an instance's tile and types.
template <typename I>
struct MoeGemmParameters
{
    using A = typename I::A;
    using B = typename I::B;

    static constexpr bool int4  = ck::is_same_v<B, I4>;
    static constexpr bool bytes = sizeof(A) == 1 && sizeof(B) == 1;

    // Bytes per load. Some 8-bit tiles take half: CK does not compile them with 16.
    static constexpr bool half_loads =
        bytes && (gate_up<I> ? I::pipeline == pipeline_v3 && I::n == 64
                             : I::block_size == 256 && I::k == 64);
    static constexpr ck::index_t load     = half_loads ? 8 : 16;
    static constexpr ck::index_t vector_a = load / sizeof(A);
    static constexpr ck::index_t vector_b = int4 ? 32 : load / sizeof(B);

    static constexpr ck::index_t k_lanes_a = I::k / vector_a;
    static constexpr ck::index_t k_lanes_b = I::k / vector_b;

    // How the workgroup's threads spread over the output block when it is written back, and
    // how much of it goes through LDS at a time.
    static constexpr ck::index_t shuffle_m = std::min<ck::index_t>(2, m_xdl_wave<I>);
    static constexpr ck::index_t shuffle_n = !int4 ? n_xdl_wave<I> : gate_up<I> ? 1 : 2;
    static constexpr ck::index_t part_n    = I::n / 2 / n_xdl_wave<I>;
    static constexpr ck::index_t store_m =
        gate_up<I> ? (I::m == 16 ? 16 : part_n) : I::block_size / (int4 ? 32 : part_n);
    static constexpr ck::index_t store_n = I::block_size / store_m;

    // Elements per store of the output, and per load of the three D tensors.
    static constexpr ck::index_t store_vector =
        !gate_up<I> ? 2 : I::m == 16 ? 4 : 16 / sizeof(typename I::Out);
    static constexpr ck::index_t scale_vector = I::per_tensor ? 1 : store_vector;
    using Vectors = ck::conditional_t<gate_up<I>,
                                      S<store_vector, 1, scale_vector>,
                                      S<store_vector, 1, scale_vector, 1>>;

    using Ds = ck::Tuple<F32, F32, F32>; // activation scale, weight scale, routed weight

    // clang-format off
    using Device = ck::tensor_operation::device::DeviceMoeGemm<
        Row, Col, ck::Tuple<Row, Col, Row>, Row,
        A, B, Ds, typename I::Out, Accumulator<I>, F32,
        PassThrough, PassThrough, typename I::Cde, gemm_default,
        I::block_size, I::m, I::n, I::k,
        vector_a, vector_b, xdl, xdl, m_xdl_wave<I>, n_xdl_wave<I>,
        S<k_lanes_a, I::block_size / k_lanes_a, 1>, S<1, 0, 2>, S<1, 0, 2>, 2, vector_a, vector_a, 0,
        S<k_lanes_b, I::block_size / k_lanes_b, 1>, S<1, 0, 2>, S<1, 0, 2>, 2, vector_b, vector_b, 0,
        shuffle_m, shuffle_n, S<1, store_m, 1, store_n>, Vectors,
        intrawave, I::pipeline, gate_up<I> ? I::act : 0, false, gate_up<I>, I::mul_routed_weight,
        !I::per_tensor, ck::index_t, A>;
    // clang-format on
};

template <typename I>
struct MoeGemm : Launch<I, typename MoeGemmParameters<I>::Device>
{
    using Base = Launch<I, typename MoeGemmParameters<I>::Device>;

    static constexpr ck::index_t occupancy = occupancy_by_registers<I, typename Base::Gridwise>();

    static typename Base::Argument argument(const jitcache_problem& p)
    {
        const ck::index_t scale_stride = I::per_tensor ? 0 : 1;
        return Base::Device::MakeArgument(p.sorted_token_ids,
                                          p.sorted_expert_ids,
                                          p.num_valid_ids,
                                          p.a,
                                          p.b,
                                          {p.a_scale, p.b_scale, Base::routed_weights(p)},
                                          p.out,
                                          p.tokens,
                                          p.topk,
                                          p.sorted_size,
                                          p.n,
                                          p.k,
                                          p.k,
                                          p.k,
                                          {scale_stride, scale_stride, 0},
                                          p.n,
                                          1,
                                          PassThrough{},
                                          PassThrough{},
                                          typename I::Cde{});
    }
};

} // namespace jitcache

#define JITCACHE_KERNEL_V1(INSTANCE, HOT, TAIL) \
    JITCACHE_KERNEL(kernel_moe_gemm, HOT, TAIL, jitcache::MoeGemm<INSTANCE>)
#define JITCACHE_KERNEL_V3(INSTANCE, HOT, TAIL) \
    JITCACHE_KERNEL(kernel_moe_gemm_2lds, HOT, TAIL, jitcache::MoeGemm<INSTANCE>)
