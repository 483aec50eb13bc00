// SPDX-License-Identifier: MIT
// What CK's MoE device operations have in common: how a launch of one is made.
//
// An operation derives from `Launch` and adds its `argument` and, where it differs, what it
// does otherwise. Nothing here holds device code of its own.
#pragma once

#include "jitcache/cde_ops.hpp"
#include "jitcache/instance.hpp"

namespace jitcache {

inline constexpr ck::index_t xdl = 16; // rows and columns of one matrix instruction

template <typename I>
inline constexpr bool gate_up = I::stage == 1; // stage 1 computes two products, gate and up

template <typename I>
inline constexpr ck::index_t m_xdl_wave = I::m / (xdl * I::m_waves);
template <typename I>
inline constexpr ck::index_t n_xdl_wave = I::n / (xdl * I::n_waves);

// Type that products are summed in.
template <typename I>
using Accumulator = ck::conditional_t<ck::is_same_v<typename I::A, I8>, I32, F32>;

// Stage 1 owns its output rows; in stage 2 the experts of a token add up, as do the parts of
// a split K.
template <typename I, bool SplitsK = false>
inline constexpr auto memory_op_of = gate_up<I> && !SplitsK
                                         ? ck::InMemoryDataOperationEnum::Set
                                         : ck::InMemoryDataOperationEnum::AtomicAdd;

// CK's launch bound for its 8-bit and 16-bit operations (RunImp, minimum_occupancy): workgroups
// per CU by an estimate of the registers that a thread needs for its part of A, B and C.
template <typename I, typename Gridwise>
constexpr ck::index_t occupancy_by_registers()
{
    constexpr ck::index_t products = gate_up<I> ? 2 : 1;
    constexpr auto registers_a =
        I::m * I::k * sizeof(typename I::A) / I::block_size / 4 * (1 + Gridwise::NWave);
    constexpr auto registers_b =
        I::n * I::k * sizeof(typename I::B) / I::block_size / 4 * 2 * products;
    constexpr auto registers_c = I::m * I::n * sizeof(Accumulator<I>) / I::block_size / 4 * products;
    return registers_a + registers_b + registers_c >= 256 ? 1 : 2;
}

template <typename I, typename DeviceOp>
struct Launch
{
    using Device   = DeviceOp;
    using Gridwise = typename Device::GridwiseGemm64;
    using Argument = typename Device::Argument;

    static constexpr auto memory_op = memory_op_of<I>;

    // Routed weights where this stage multiplies by them.
    static const void* routed_weights(const jitcache_problem& p)
    {
        return I::mul_routed_weight ? p.sorted_weights : nullptr;
    }

    // The part of CK's IsSupportedArgument that asks no device (it would need a GPU). Its
    // demand that K be a multiple of a load's length follows from the one on the tile's K.
    static const char* refuse(const jitcache_problem&, const Argument& arg)
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
    static ck::index_t loop_k(const Argument& arg) { return arg.K; }

    static auto grid(const Argument& arg) { return Gridwise::CalculateGridSize(arg.M, arg.N); }
    static bool non_temporal(const jitcache_problem&) { return false; }
    static uint64_t clear_bytes(const Argument&) { return 0; }
};

} // namespace jitcache

// One kernel of an operation: the only device code of a translation unit. The operation comes
// last because its name may hold commas.
#define JITCACHE_KERNEL(ENTRY, HOT, TAIL, ...)                          \
    template __global__ void ck::ENTRY<typename __VA_ARGS__::Gridwise,  \
                                       HOT,                             \
                                       __VA_ARGS__::memory_op,          \
                                       __VA_ARGS__::occupancy,          \
                                       TAIL>(typename __VA_ARGS__::Gridwise::Argument);
