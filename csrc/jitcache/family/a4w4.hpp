// SPDX-License-Identifier: MIT
// Family a4w4: MXFP4 activations and pre-shuffled MXFP4 weights, E8M0 scales per 32 elements.
//
// `Op` names CK's device operation for one tile and says which kernel of it runs; it holds no
// code of its own. Parameters follow AITER 9bab8388,
// csrc/ck_gemm_moe_2stages_codegen/gemm_moe_ck2stages_common_mxfp4.cuh.
#pragma once

#include "jitcache/cde_ops.hpp"
#include "jitcache/instance.hpp"

#include "ck/tensor_operation/gpu/device/impl/device_moe_mx_gemm_bpreshuffle.hpp"

namespace jitcache::a4w4 {

inline constexpr ck::index_t scale_block = 32; // elements that share one E8M0 scale (OCP MX)
inline constexpr ck::index_t xdl         = 16; // rows and columns of one matrix instruction

template <typename I>
struct Op
{
    static constexpr bool gate_up = I::stage == 1;

    static constexpr ck::index_t vector_a   = 16 / sizeof(FP4X2); // elements per 16-byte load
    static constexpr ck::index_t k_lanes    = I::k / vector_a;
    static constexpr ck::index_t row_lanes  = I::block_size / k_lanes;
    static constexpr ck::index_t m_xdl_wave = I::m / (xdl * I::m_waves);
    static constexpr ck::index_t n_xdl_wave = I::n / (xdl * I::n_waves);

    // How the workgroup's threads spread over the output block when it is written back.
    static constexpr ck::index_t one_wave_n = gate_up ? I::n / n_xdl_wave : I::n / 2;
    static constexpr ck::index_t store_n =
        I::block_size == 64 ? one_wave_n : I::n / 2 / n_xdl_wave;
    static constexpr ck::index_t store_m = I::block_size / store_n;
    using StoreLanes = ck::conditional_t<gate_up, S<1, store_n, 1, store_m>, S<1, store_m, 1, store_n>>;
    static constexpr ck::index_t store_vector =
        gate_up ? 16 / sizeof(typename I::Out) : 2; // elements per store

    using Ds = ck::Tuple<F32, F32, F32>; // activation scale, weight scale, routed weight

    // clang-format off
    using Device = ck::tensor_operation::device::DeviceMoeGemmMXBPreShuffle<
        Row, Col, ck::Tuple<Row, Col, Row>, Row,
        FP4X2, E8M0, FP4X2, E8M0, Ds, typename I::Out, F32, F32,
        PassThrough, PassThrough, typename I::Cde, gemm_default,
        scale_block, I::block_size, I::m, I::n, I::k,
        vector_a, vector_a, xdl, xdl, m_xdl_wave, n_xdl_wave,
        S<k_lanes, row_lanes, 1>, S<1, 0, 2>, S<1, 0, 2>, 2, vector_a, vector_a, 1,
        S<k_lanes, row_lanes, 1>, S<1, 0, 2>, S<1, 0, 2>, 2, vector_a, vector_a, 1,
        2, n_xdl_wave, StoreLanes, S<store_vector, 1, I::per_tensor ? 1 : store_vector>,
        intrawave, I::pipeline, gate_up ? I::act : 0, false, gate_up, I::mul_routed_weight,
        ck::index_t, FP4X2>;
    // clang-format on

    using Gridwise = typename Device::GridwiseGemm64;
    using Argument = typename Device::Argument;

    // CK's launch bound: two workgroups per CU where the block is small enough for it.
    static constexpr ck::index_t occupancy =
        I::pipeline == pipeline_v3 && I::m * I::n * I::k * sizeof(FP4X2) <= 128 * 128 * 64 * 2 ? 2
                                                                                               : 1;
    // Stage 1 owns its output rows; in stage 2 the experts of a token add up.
    static constexpr auto memory_op =
        gate_up ? ck::InMemoryDataOperationEnum::Set : ck::InMemoryDataOperationEnum::AtomicAdd;

    static Argument argument(const jitcache_problem& p)
    {
        const ck::index_t scale_stride = (p.k + scale_block - 1) / scale_block;
        const ck::index_t d_stride     = I::per_tensor ? 0 : 1;
        return Device::MakeArgument(p.sorted_token_ids,
                                    p.sorted_expert_ids,
                                    p.num_valid_ids,
                                    p.a,
                                    p.a_scale,
                                    p.b,
                                    p.b_scale,
                                    {nullptr, nullptr, I::mul_routed_weight ? p.sorted_weights : nullptr},
                                    p.out,
                                    p.tokens,
                                    p.topk,
                                    p.sorted_size,
                                    p.n,
                                    p.k,
                                    p.k,
                                    scale_stride,
                                    p.k,
                                    scale_stride,
                                    {d_stride, d_stride, 0},
                                    p.n,
                                    1,
                                    PassThrough{},
                                    PassThrough{},
                                    typename I::Cde{});
    }

    // The part of CK's IsSupportedArgument that asks no device (it would need a GPU).
    static const char* refuse(const Argument& arg)
    {
        if(arg.N % I::n != 0)
            return "N is not a multiple of the tile's N";
        if(arg.K % I::k != 0)
            return "K is not a multiple of the tile's K";
        if(!Gridwise::CheckValidity(arg))
            return "CK's GridwiseGemm::CheckValidity refuses the problem";
        return nullptr;
    }

    // K as CK's invoker hands it to the kernel choice, in stored elements.
    static ck::index_t loop_k(const Argument& arg) { return split_k_length(arg.K, arg.KBatch, I::k); }

    static auto grid(const Argument& arg) { return Gridwise::CalculateGridSize(arg.M, arg.N); }
    static bool non_temporal(const jitcache_problem&) { return false; }
    static uint64_t clear_bytes(const Argument&) { return 0; }
};

} // namespace jitcache::a4w4

// One kernel of one instance: the only device code of a translation unit.
#define JITCACHE_KERNEL_V1(INSTANCE, HOT, TAIL)                                             \
    template __global__ void                                                               \
    ck::kernel_moe_mxgemm<jitcache::a4w4::Op<INSTANCE>::Gridwise,                           \
                          HOT,                                                              \
                          jitcache::a4w4::Op<INSTANCE>::memory_op,                          \
                          jitcache::a4w4::Op<INSTANCE>::occupancy,                          \
                          TAIL>(typename jitcache::a4w4::Op<INSTANCE>::Gridwise::Argument);
#define JITCACHE_KERNEL_V3(INSTANCE, HOT, TAIL)                                             \
    template __global__ void                                                               \
    ck::kernel_moe_mxgemm_2lds<jitcache::a4w4::Op<INSTANCE>::Gridwise,                      \
                               HOT,                                                         \
                               jitcache::a4w4::Op<INSTANCE>::memory_op,                     \
                               jitcache::a4w4::Op<INSTANCE>::occupancy,                     \
                               TAIL>(typename jitcache::a4w4::Op<INSTANCE>::Gridwise::Argument);
