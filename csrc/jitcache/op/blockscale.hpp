// SPDX-License-Identifier: MIT
// CK's DeviceMoeGemmBlockScale: 8-bit activations with a scale per 128 elements of a row, and
// 8-bit weights with a scale per block of 128 x 128.
//
// Parameters follow AITER 9bab8388,
// csrc/ck_gemm_moe_2stages_codegen/gemm_moe_ck2stages_common_blockscale.cuh.
//
// CK's operation comes in two forms. The newer one, which AITER 9bab8388 calls, can split K
// over workgroups and load weights past the cache; the older one can do neither. They differ
// in their template parameters, and by these the one at hand is told.
#pragma once

#include "jitcache/op/launch.hpp"

#include "ck/tensor_operation/gpu/device/impl/device_moe_gemm_blockscale.hpp"

#include <algorithm>

namespace jitcache {

template <typename I>
struct BlockScaleParameters
{
    using A = typename I::A;

    static constexpr bool splits_k = ck::is_same_v<typename I::Cde, MulABScaleExpertWeightA8W8blkscaleSplitk>;

    static constexpr ck::index_t scale_block = 128; // weights per scale, both ways
    static constexpr ck::index_t vector      = 16 / sizeof(A); // elements per 16-byte load
    static constexpr ck::index_t k_lanes     = I::k / vector;
    using LoadLanes                          = S<k_lanes, I::block_size / k_lanes, 1>;

    // How the workgroup's threads spread over the output block when it is written back.
    static constexpr ck::index_t store_n = gate_up<I> ? 16 : 64;
    using StoreLanes                     = S<1, I::block_size / store_n, 1, store_n>;

    using Ds = ck::Tuple<F32>; // routed weight
};

// Kinds of the template parameters that both forms begin with, and AITER's arguments for them.
// clang-format off
#define JITCACHE_BLOCKSCALE_KINDS                                                              \
    typename, typename, typename, typename,                                                    \
    typename, typename, typename, typename, typename, typename, typename, typename,            \
    typename, typename, typename, ck::tensor_operation::device::GemmSpecialization,            \
    ck::index_t, ck::index_t, ck::index_t, ck::index_t, ck::index_t, ck::index_t, ck::index_t, \
    ck::index_t, ck::index_t, ck::index_t, ck::index_t, ck::index_t, ck::index_t,              \
    typename, typename, typename, ck::index_t, ck::index_t, ck::index_t, bool,                 \
    typename, typename, typename, ck::index_t, ck::index_t, ck::index_t, bool,                 \
    ck::index_t, ck::index_t, typename, typename,                                              \
    ck::BlockGemmPipelineScheduler, ck::BlockGemmPipelineVersion, ck::index_t, bool, bool
#define JITCACHE_BLOCKSCALE_ARGUMENTS                                                          \
    Row, Col, ck::Tuple<Row>, Row,                                                             \
    typename I::A, F32, typename I::B, F32, typename P::Ds, typename I::Out, Accumulator<I>, F32, \
    PassThrough, PassThrough, typename I::Cde, gemm_default,                                   \
    I::block_size, 1, P::scale_block, P::scale_block, I::m, I::n, I::k,                        \
    P::vector, P::vector, xdl, xdl, m_xdl_wave<I>, n_xdl_wave<I>,                              \
    typename P::LoadLanes, S<1, 0, 2>, S<1, 0, 2>, 2, P::vector, P::vector, false,             \
    typename P::LoadLanes, S<1, 0, 2>, S<1, 0, 2>, 2, P::vector, P::vector, false,             \
    m_xdl_wave<I>, n_xdl_wave<I>, typename P::StoreLanes, S<2, 1, 1, 1>,                       \
    intrawave, I::pipeline, gate_up<I> ? I::act : 0, false, gate_up<I>
// clang-format on

// CK's operation for an instance, and what it can do.
template <typename DeviceOp, bool Newer>
struct BlockScaleForm
{
    using Device                = DeviceOp;
    static constexpr bool newer = Newer;
};

template <typename I,
          bool NonTemporal,
          template <JITCACHE_BLOCKSCALE_KINDS,
                    bool,
                    typename,
                    typename,
                    typename,
                    typename,
                    typename>
          class DeviceOp,
          typename P = BlockScaleParameters<I>>
BlockScaleForm<DeviceOp<JITCACHE_BLOCKSCALE_ARGUMENTS,
                        I::mul_routed_weight,
                        int32_t,
                        typename I::A,
                        typename I::A,
                        typename I::A,
                        typename I::A>,
               false>
block_scale_form();

template <typename I,
          bool NonTemporal,
          template <JITCACHE_BLOCKSCALE_KINDS,
                    bool,
                    bool,
                    typename,
                    typename,
                    typename,
                    typename,
                    typename,
                    bool>
          class DeviceOp,
          typename P = BlockScaleParameters<I>>
BlockScaleForm<DeviceOp<JITCACHE_BLOCKSCALE_ARGUMENTS,
                        P::splits_k,
                        I::mul_routed_weight,
                        int32_t,
                        typename I::A,
                        typename I::A,
                        typename I::A,
                        typename I::A,
                        NonTemporal>,
               true>
block_scale_form();

#undef JITCACHE_BLOCKSCALE_KINDS
#undef JITCACHE_BLOCKSCALE_ARGUMENTS

template <typename I, bool NonTemporal>
using BlockScaleFormOf = decltype(
    block_scale_form<I, NonTemporal, ck::tensor_operation::device::DeviceMoeGemmBlockScale>());

// The argument is the same with and without non-temporal loads, so one host table serves both.
template <typename I, bool NonTemporal = false>
struct BlockScale : Launch<I, typename BlockScaleFormOf<I, NonTemporal>::Device>
{
    using Base     = Launch<I, typename BlockScaleFormOf<I, NonTemporal>::Device>;
    using Gridwise = typename Base::Gridwise;
    using Argument = typename Base::Argument;

    static constexpr bool newer    = BlockScaleFormOf<I, NonTemporal>::newer;
    static constexpr bool splits_k = BlockScaleParameters<I>::splits_k;
    static_assert(newer || !splits_k, "this CK's blockscale operation can't split K");
    static_assert(newer || !NonTemporal,
                  "this CK's blockscale operation has no non-temporal loads");

    static constexpr auto memory_op        = memory_op_of<I, splits_k>;
    static constexpr ck::index_t occupancy = occupancy_by_registers<I, Gridwise>();

    // Loop steps per workgroup, which is what CK's newer form calls KBatch; 1 for no split.
    static ck::index_t k_batch(const jitcache_problem& p)
    {
        return splits_k && p.splitk > 1 ? std::max(1, p.k / (p.splitk * I::k)) : 1;
    }

    static Argument argument(const jitcache_problem& p)
    {
        const ck::index_t batch = k_batch(p);
        return Base::Device::MakeArgument(p.sorted_token_ids,
                                          p.sorted_expert_ids,
                                          p.num_valid_ids,
                                          p.a,
                                          p.b,
                                          {Base::routed_weights(p)},
                                          p.out,
                                          p.tokens,
                                          p.topk,
                                          p.sorted_size,
                                          p.n,
                                          p.k,
                                          p.k,
                                          p.k,
                                          {0},
                                          // Partial sums of gate and up lie side by side.
                                          batch > 1 ? 2 * p.n : p.n,
                                          p.a_scale,
                                          p.b_scale,
                                          batch,
                                          PassThrough{},
                                          PassThrough{},
                                          typename I::Cde{});
    }

    static const char* refuse(const jitcache_problem& p, const Argument& arg)
    {
        if(splits_k && p.splitk <= 1)
            return "a split-K kernel needs splitk of at least 2";
        if(splits_k && p.k % (p.splitk * I::k) != 0)
            return "K is not a multiple of splitk times the tile's K";
        if(splits_k && arg.KBatch == 1)
            return "splitk leaves each workgroup one loop step, which CK takes for no split";
        return Base::refuse(p, arg);
    }

    static ck::index_t loop_k(const Argument& arg)
    {
        return arg.KBatch > 1 ? arg.KBatch * I::k : arg.K;
    }

    static auto grid(const Argument& arg)
    {
        if constexpr(newer)
            return Gridwise::CalculateGridSize(
                arg.M, splits_k ? 2 * arg.N : arg.N, arg.K, arg.KBatch);
        else
            return Gridwise::CalculateGridSize(arg.M, arg.N);
    }

    // The older form has no such kernels; it always loads through the cache.
    static bool non_temporal(const jitcache_problem& p) { return newer && p.non_temporal != 0; }

    // What CK's invoker clears before partial sums are added up.
    static uint64_t clear_bytes(const Argument& arg)
    {
        return arg.KBatch > 1 ? uint64_t{2} * arg.M * arg.N * sizeof(typename I::Out) : 0;
    }
};

} // namespace jitcache

// The last argument, whether weights are loaded past the cache, is the variant's.
#define JITCACHE_KERNEL_V1(INSTANCE, HOT, TAIL, NT) \
    JITCACHE_KERNEL(kernel_moe_gemm, HOT, TAIL, jitcache::BlockScale<INSTANCE, NT>)
#define JITCACHE_KERNEL_V3(INSTANCE, HOT, TAIL, NT) \
    JITCACHE_KERNEL(kernel_moe_gemm_2lds, HOT, TAIL, jitcache::BlockScale<INSTANCE, NT>)
