// SPDX-License-Identifier: MIT
// A program that asks CK's own MakeArgument and prints the bytes, to compare a launch with.
//
// Nothing of csrc/jitcache is used: device operations are spelled out again, from AITER's
// gemm_moe_ck2stages_common*.cuh. A line of input is one call with AITER's values; the answer
// is a line with the argument's bytes and a mask, in which bytes that CK never writes are 00.
#pragma once

#include "ck/ck.hpp"
#include "ck/tensor_operation/gpu/device/gemm_specialization.hpp"
#include "ck/tensor_operation/gpu/device/tensor_layout.hpp"
#include "ck/tensor_operation/gpu/element/unary_element_wise_operation.hpp"
#include "ck/utility/blkgemmpipe_scheduler.hpp"

// The host's pass takes gfx942's matrix instructions; those of gfx950 differ in depth.
#ifdef CK_GFX950
#include "ck/utility/amd_xdlops.hpp"
#define __gfx950__ 1
#include "ck/tensor_operation/gpu/warp/xdlops_gemm.hpp"
#undef __gfx950__
#endif

#include <array>
#include <cstdio>
#include <cstring>
#include <new>

using I4    = ck::pk_i4_t;
using I8    = int8_t;
using F16   = ck::half_t;
using B16   = ck::bhalf_t;
using F8    = ck::f8_t;
using F32   = float;
using FP4X2 = ck::f4x2_pk_t;
using Row   = ck::tensor_layout::gemm::RowMajor;
using Col   = ck::tensor_layout::gemm::ColumnMajor;
using Same  = ck::tensor_operation::element_wise::PassThrough;

template <ck::index_t... Is>
using S = ck::Sequence<Is...>;

constexpr auto V1       = ck::BlockGemmPipelineVersion::v1;
constexpr auto V3       = ck::BlockGemmPipelineVersion::v3;
constexpr auto SPEC     = ck::tensor_operation::device::GemmSpecialization::Default;
constexpr auto SCHEDULE = ck::BlockGemmPipelineScheduler::Intrawave;
constexpr int XDL       = 16;

// The end of a GEMM plays no part in the argument but as an empty member.
struct End
{
};

struct Call
{
    int instance;
    void *states, *a_scale, *weights, *w_scale, *token_ids, *expert_ids, *valid_ids, *routed, *out;
    int tokens, topk, sorted_size, n, k;
};

template <typename Argument, typename Make>
void print_argument(const Call& call, Make make)
{
    alignas(Argument) unsigned char bytes[2][sizeof(Argument)];
    for(int fill = 0; fill < 2; fill++)
    {
        std::memset(bytes[fill], fill ? 0xff : 0, sizeof(Argument));
        new(bytes[fill]) Argument(make(call));
    }
    for(unsigned char byte : bytes[0])
        std::printf("%02x", byte);
    std::printf(" ");
    for(size_t i = 0; i < sizeof(Argument); i++)
        std::printf(bytes[0][i] == bytes[1][i] ? "ff" : "00");
    std::printf("\n");
}

// Answers a call of an operation whose loop steps are K deep, in stored elements.
#ifdef CK_LAYOUT
#include "layout.hpp"
#else
template <typename Op, int K, typename Make>
void reply(const Call& call, Make make)
{
    print_argument<typename Op::Argument>(call, make);
}
#endif

inline bool read_call(Call& c)
{
    return std::scanf("%d %p %p %p %p %p %p %p %p %p %d %d %d %d %d",
                      &c.instance,
                      &c.states,
                      &c.a_scale,
                      &c.weights,
                      &c.w_scale,
                      &c.token_ids,
                      &c.expert_ids,
                      &c.valid_ids,
                      &c.routed,
                      &c.out,
                      &c.tokens,
                      &c.topk,
                      &c.sorted_size,
                      &c.n,
                      &c.k) == 15;
}
