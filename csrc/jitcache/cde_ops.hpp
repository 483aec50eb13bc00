// SPDX-License-Identifier: MIT
// The element-wise operations at the end of a MoE GEMM: accumulator in, output element out.
//
// CK's MoE kernels apply scales, routed weights and the activation themselves; what is left to
// these operations is the conversion of the accumulator to the output type. Each is a type of
// its own, in the global namespace and under AITER's name, because the name is part of the
// instance's name and of the kernel's symbol.
#pragma once

#include "jitcache/ck_types.hpp"

namespace jitcache {

// Accumulator to output type. Integer accumulators go through float, as CK has no direct
// conversion from int to its 16-bit types.
template <typename E, typename C>
__host__ __device__ constexpr E narrow(const C& c)
{
    if constexpr(ck::is_same_v<C, I32>)
        return ck::type_convert<E>(ck::type_convert<F32>(c));
    else
        return ck::type_convert<E>(c);
}

// The common shape: e = narrow(c), whatever D tensors CK passes along.
struct Narrow
{
    template <typename E, typename C, typename... Ds>
    __host__ __device__ constexpr void operator()(E& e, const C& c, const Ds&...) const
    {
        e = narrow<E>(c);
    }
};

} // namespace jitcache

struct TypeCast : jitcache::Narrow
{
};
struct TypeCastExpertWeight : jitcache::Narrow
{
};
struct MulABScale : jitcache::Narrow
{
};
struct MulABScaleWint4 : jitcache::Narrow
{
};
struct MulABScaleExpertWeight : jitcache::Narrow
{
};
struct MulABScaleShuffled : jitcache::Narrow
{
};
struct MulABScaleExpertWeightShuffled : jitcache::Narrow
{
};
struct MulABScaleExpertWeightA8W8blkscale : jitcache::Narrow
{
};

// int4 weights are stored 16 times too small (they sit in the high bits of a byte).
struct MulABScaleExpertWeightWin4
{
    template <typename E, typename C, typename... Ds>
    __host__ __device__ constexpr void operator()(E& e, const C& c, const Ds&...) const
    {
        if constexpr(ck::is_same_v<C, I32>)
            e = ck::type_convert<E>(ck::type_convert<F32>(c) * 16.f);
        else
            e = ck::type_convert<E>(c * 16.f);
    }
};

// Split K: partial sums leave in float32, rounded to half precision as AITER does.
struct MulABScaleExpertWeightA8W8blkscaleSplitk
{
    template <typename C, typename... Ds>
    __host__ __device__ constexpr void operator()(F32& e, const C& c, const Ds&...) const
    {
        e = ck::type_convert<F16>(c);
    }
};
