// SPDX-License-Identifier: MIT
// What CK's two MXFP4 operations share: E8M0 scales per 32 elements, pairs of fp4 in a byte.
//
// The operations themselves, for shuffled and for plain weights, are named in the families'
// headers, because CK gives their kernels the same names and a translation unit can include
// only one of them.
#pragma once

#include "jitcache/op/launch.hpp"

namespace jitcache {

template <typename I>
struct Mx
{
    static constexpr ck::index_t scale_block = 32; // elements that share one scale (OCP MX)
    static constexpr ck::index_t vector      = 16 / sizeof(FP4X2); // elements per 16-byte load
    static constexpr ck::index_t k_lanes     = I::k / vector;
    using LoadLanes                          = S<k_lanes, I::block_size / k_lanes, 1>;

    // How the workgroup's threads spread over the output block when stage 2 writes it back.
    static constexpr ck::index_t store_n =
        I::block_size == 64 ? I::n / 2 : I::n / 2 / n_xdl_wave<I>;
    using StoreLanes2 = S<1, I::block_size / store_n, 1, store_n>;

    // Elements per store of the output, and per load of the D tensors.
    static constexpr ck::index_t store_vector = gate_up<I> ? 16 / sizeof(typename I::Out) : 2;
    using Vectors = S<store_vector, 1, I::per_tensor ? 1 : store_vector>;

    using Ds = ck::Tuple<F32, F32, F32>; // unused twice, routed weight
};

template <typename I, typename DeviceOp>
struct MxLaunch : Launch<I, DeviceOp>
{
    using Base = Launch<I, DeviceOp>;

    // CK's launch bound: two workgroups per CU where the block is small enough for it.
    static constexpr ck::index_t occupancy =
        I::pipeline == pipeline_v3 && I::m * I::n * I::k * sizeof(FP4X2) <= 128 * 128 * 64 * 2 ? 2
                                                                                               : 1;

    static typename Base::Argument argument(const jitcache_problem& p)
    {
        const ck::index_t scale_stride = (p.k + Mx<I>::scale_block - 1) / Mx<I>::scale_block;
        const ck::index_t d_stride     = I::per_tensor ? 0 : 1;
        return DeviceOp::MakeArgument(p.sorted_token_ids,
                                      p.sorted_expert_ids,
                                      p.num_valid_ids,
                                      p.a,
                                      p.a_scale,
                                      p.b,
                                      p.b_scale,
                                      {nullptr, nullptr, Base::routed_weights(p)},
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
};

} // namespace jitcache
