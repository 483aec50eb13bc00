// SPDX-License-Identifier: MIT
// Family a4w4_bns: MXFP4 activations and MXFP4 weights that are not shuffled.
//
// Parameters follow AITER 9bab8388,
// csrc/ck_gemm_moe_2stages_codegen/gemm_moe_ck2stages_common_mxfp4_bns.cuh.
#pragma once

#include "jitcache/shortcuts/begin.hpp"

#include "jitcache/op/mx.hpp"

#include "ck/tensor_operation/gpu/device/impl/device_moe_mx_gemm_bns.hpp"

namespace jitcache::a4w4_bns {

template <typename I>
struct Parameters : Mx<I>
{
    using P = Mx<I>;

    using StoreLanes =
        ck::conditional_t<gate_up<I>, S<1, 32, 1, 8>, typename P::StoreLanes2>;

    // clang-format off
    using Device = ck::tensor_operation::device::DeviceMoeGemmMXBNS<
        Row, Col, ck::Tuple<Row, Col, Row>, Row,
        FP4X2, E8M0, FP4X2, E8M0, typename P::Ds, typename I::Out, F32, F32,
        PassThrough, PassThrough, typename I::Cde, gemm_default,
        P::scale_block, I::block_size, I::m, I::n, I::k,
        P::vector, P::vector, xdl, xdl, m_xdl_wave<I>, n_xdl_wave<I>,
        typename P::LoadLanes, S<1, 0, 2>, S<1, 0, 2>, 2, P::vector, P::vector, 0,
        typename P::LoadLanes, S<1, 0, 2>, S<1, 0, 2>, 2, P::vector, P::vector, 0,
        2, n_xdl_wave<I>, StoreLanes, typename P::Vectors,
        intrawave, I::pipeline, gate_up<I> ? I::act : 0, false, gate_up<I>, I::mul_routed_weight,
        ck::index_t, FP4X2>;
    // clang-format on
};

template <typename I>
using Op = MxLaunch<I, typename Parameters<I>::Device>;

} // namespace jitcache::a4w4_bns

// CK runs both pipelines of this operation through one kernel.
#define JITCACHE_KERNEL_V1(INSTANCE, HOT, TAIL) \
    JITCACHE_KERNEL(kernel_moe_mxgemm, HOT, TAIL, jitcache::a4w4_bns::Op<INSTANCE>)
#define JITCACHE_KERNEL_V3(INSTANCE, HOT, TAIL) \
    JITCACHE_KERNEL(kernel_moe_mxgemm, HOT, TAIL, jitcache::a4w4_bns::Op<INSTANCE>)

#include "jitcache/shortcuts/end.hpp"
