// SPDX-License-Identifier: MIT
// Body of a host shim: a table of instances behind the C interface of shim.h.
//
// A generated file lists the module's instances and calls JITCACHE_HOST_SHIM. Everything is
// static CK host code: no device operation is constructed, because its virtual functions would
// pull in CK's invoker, and with it every kernel and the HIP runtime.
#pragma once

#include "jitcache/instance.hpp"

#include <cstdio>
#include <cstring>
#include <exception>
#include <new>

namespace jitcache {

struct ShimEntry
{
    const char* name;
    size_t (*kernarg_size)();
    int32_t (*prepare)(const jitcache_problem&, void*, jitcache_launch&, char*, size_t);
};

template <template <typename> class Op, typename I>
size_t kernarg_size()
{
    return sizeof(typename Op<I>::Argument);
}

inline int32_t fail(int32_t status, const char* text, char* message, size_t capacity)
{
    if(message != nullptr && capacity > 0)
        std::snprintf(message, capacity, "%s", text);
    return status;
}

template <template <typename> class FamilyOp, typename I>
int32_t prepare(
    const jitcache_problem& p, void* kernarg, jitcache_launch& launch, char* message, size_t capacity)
{
    using Op = FamilyOp<I>;
    if(p.tokens <= 0 || p.topk <= 0 || p.sorted_size <= 0 || p.n <= 0 || p.k <= 0)
        return fail(JITCACHE_UNSUPPORTED,
                    "tokens, topk, sorted_size, n and k must be positive",
                    message,
                    capacity);
    // Built in zeroed storage, so that padding between CK's members is zero, too.
    using Argument = typename Op::Argument;
    alignas(Argument) unsigned char storage[sizeof(Argument)] = {};
    const Argument& argument = *new(storage) Argument(Op::argument(p));
    if(const char* reason = Op::refuse(p, argument))
        return fail(JITCACHE_UNSUPPORTED, reason, message, capacity);

    const auto [grid_x, grid_y, grid_z] = Op::grid(argument);
    const auto loop_k                   = Op::loop_k(argument);
    launch                              = {};
    launch.grid[0]                      = grid_x;
    launch.grid[1]                      = grid_y;
    launch.grid[2]                      = grid_z;
    launch.block[0]                     = I::block_size;
    launch.block[1]                     = 1;
    launch.block[2]                     = 1;
    launch.kernarg_size                 = sizeof(argument);
    launch.hot_loop                     = Op::Gridwise::CalculateHasMainKBlockLoop(loop_k);
    launch.tail_even =
        Op::Gridwise::CalculateKBlockLoopTailNum(loop_k) == ck::TailNumber::Even;
    launch.non_temporal = Op::non_temporal(p);
    launch.clear_bytes  = Op::clear_bytes(argument);

    std::memcpy(kernarg, storage, sizeof(storage));
    std::memset(kernarg, 0, sizeof(void*));
    return JITCACHE_OK;
}

} // namespace jitcache

// Entry of one instance in the table. Only function templates are named here: CK's types must
// be instantiated first inside a function, because at namespace scope the compiler rejects the
// device constructors in their members' initialisers at once instead of when they are called.
#define JITCACHE_SHIM_ENTRY(NAME, OP, INSTANCE)                                    \
    jitcache::ShimEntry                                                            \
    {                                                                              \
        NAME, &jitcache::kernarg_size<OP, INSTANCE>, &jitcache::prepare<OP, INSTANCE> \
    }

// The C interface over the table that precedes it in the generated file.
#define JITCACHE_HOST_SHIM(TABLE)                                                              \
    static constexpr int32_t jitcache_count = sizeof(TABLE) / sizeof(TABLE[0]);                \
    extern "C" __attribute__((visibility("default"))) int32_t jitcache_shim_abi(void)          \
    {                                                                                          \
        return JITCACHE_SHIM_ABI;                                                              \
    }                                                                                          \
    extern "C" __attribute__((visibility("default"))) int32_t jitcache_instance_count(void)    \
    {                                                                                          \
        return jitcache_count;                                                                 \
    }                                                                                          \
    extern "C" __attribute__((visibility("default"))) const char* jitcache_instance_name(      \
        int32_t instance)                                                                      \
    {                                                                                          \
        return instance < 0 || instance >= jitcache_count ? "" : TABLE[instance].name;         \
    }                                                                                          \
    extern "C" __attribute__((visibility("default"))) size_t jitcache_kernarg_size(            \
        int32_t instance)                                                                      \
    {                                                                                          \
        return instance < 0 || instance >= jitcache_count ? 0 : TABLE[instance].kernarg_size();  \
    }                                                                                          \
    extern "C" __attribute__((visibility("default"))) int32_t jitcache_prepare(                \
        int32_t instance,                                                                      \
        const jitcache_problem* problem,                                                       \
        void* kernarg,                                                                         \
        size_t kernarg_capacity,                                                               \
        jitcache_launch* launch,                                                               \
        char* message,                                                                         \
        size_t message_capacity)                                                               \
    {                                                                                          \
        if(instance < 0 || instance >= jitcache_count)                                         \
            return jitcache::fail(                                                             \
                JITCACHE_BAD_INSTANCE, "no such instance", message, message_capacity);         \
        if(kernarg_capacity < TABLE[instance].kernarg_size())                                    \
            return jitcache::fail(                                                             \
                JITCACHE_SMALL_BUFFER, "argument buffer too small", message, message_capacity); \
        try                                                                                    \
        {                                                                                      \
            return TABLE[instance].prepare(*problem, kernarg, *launch, message, message_capacity); \
        }                                                                                      \
        catch(const std::exception& e)                                                         \
        {                                                                                      \
            return jitcache::fail(JITCACHE_INTERNAL, e.what(), message, message_capacity);     \
        }                                                                                      \
    }
