/* SPDX-License-Identifier: MIT
 * C interface of a module's host shim.
 *
 * A host shim is a small shared library that knows, for each instance of a module, how CK
 * fills the kernel's by-value argument, how large the grid is, and which of the instance's
 * kernels a problem runs. It needs no GPU and no ROCm to be loaded or asked. All functions may
 * be called from any thread.
 */
#ifndef JITCACHE_SHIM_H
#define JITCACHE_SHIM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define JITCACHE_SHIM_ABI 1

/* One launch of one stage. Pointers are device addresses; they are stored, never followed. */
typedef struct jitcache_problem
{
    const void* a;                 /* activations [tokens, k] (stage 2: [tokens, topk, k]) */
    const void* a_scale;           /* activation scales, or null */
    const void* b;                 /* weights [experts, n or 2n, k], shuffled */
    const void* b_scale;           /* weight scales, or null */
    const void* sorted_token_ids;  /* [sorted_size] */
    const void* sorted_expert_ids; /* one per block of block_m rows */
    const void* num_valid_ids;     /* [1] */
    const void* sorted_weights;    /* routed weights, or null */
    void* out;
    int32_t tokens;
    int32_t topk;
    int32_t sorted_size;
    int32_t n;            /* stage 1: inter_dim; stage 2: model_dim */
    int32_t k;            /* stage 1: model_dim; stage 2: inter_dim; in elements, fp4 unpacked */
    int32_t splitk;       /* number of workgroups that share one K; 1 where the family has none */
    int32_t non_temporal; /* non-temporal weight loads; ignored where the family has none */
} jitcache_problem;

/* What to launch. */
typedef struct jitcache_launch
{
    uint32_t grid[3];      /* workgroups */
    uint32_t block[3];     /* threads */
    uint32_t kernarg_size; /* bytes written to the argument buffer */
    uint32_t hot_loop;     /* 1 where the kernel with the main K loop runs */
    uint32_t tail_even;    /* 1 where the kernel for an even number of loop steps runs */
    uint32_t non_temporal; /* 1 where the kernel with non-temporal loads runs */
    uint64_t clear_bytes;  /* bytes of `out` to set to zero before the launch (split K) */
} jitcache_launch;

enum jitcache_status
{
    JITCACHE_OK              = 0,
    JITCACHE_UNSUPPORTED     = 1, /* CK refuses the problem; the message says why */
    JITCACHE_BAD_INSTANCE    = 2, /* no instance of that index */
    JITCACHE_SMALL_BUFFER    = 3, /* the argument buffer is too small */
    JITCACHE_INTERNAL        = 4  /* an exception came out of CK; the message holds its text */
};

/* Version of this interface: JITCACHE_SHIM_ABI of the header the shim was built with. */
int32_t jitcache_shim_abi(void);

/* Instances of the module, in the order of their indices. */
int32_t jitcache_instance_count(void);
const char* jitcache_instance_name(int32_t instance);

/* Size in bytes of the kernel's argument; 0 for a bad index. */
size_t jitcache_kernarg_size(int32_t instance);

/* Fill `kernarg` and `launch` for a problem. The first eight bytes of CK's argument are a C++
 * vtable pointer that the device never reads; they are written as zero, so that equal problems
 * give equal bytes. `message` (may be null) receives a sentence on failure. */
int32_t jitcache_prepare(int32_t instance,
                         const jitcache_problem* problem,
                         void* kernarg,
                         size_t kernarg_capacity,
                         jitcache_launch* launch,
                         char* message,
                         size_t message_capacity);

#ifdef __cplusplus
}
#endif

#endif
