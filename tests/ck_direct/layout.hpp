// SPDX-License-Identifier: MIT
// Instead of an argument, where CK's kernels look for each weight: CK's own descriptors, asked.
//
// An answer is a line of indices into one expert's weights, in stored elements: of row 0 and
// depth 0, 1, ..., then of row 1; -1 where no lane reads it. `n` of the call counts rows and `k`
// stored elements of a row.
#pragma once

#include <cstdio>
#include <vector>

constexpr int WAVE_LANES = 64;

// Depth of the activation that meets element j of a lane in part `part` of a step. The
// activations lie in LDS with their depth in order; the pipeline's descriptor of them says which
// of it a lane takes for the same registers.
template <typename G, int K>
int depth_of(int step, int part, int j)
{
    using Pipeline = typename G::BlockwiseGemmPipe;
#ifdef CK_MX_OPERATION
    constexpr int of_step = Pipeline::xdlops_gemm.KPerXdlops / Pipeline::APackedSize;
    return step * of_step + part * Pipeline::KThreadChunk + j;
#else
    constexpr auto rows = ck::Number<1>{};
    constexpr auto a = Pipeline::MakeAGemmMmaTileDescriptor(
        ck::make_naive_tensor_descriptor_packed(ck::make_tuple(rows, rows, rows, ck::Number<K>{})));
    constexpr int steps = a.GetLength(ck::Number<3>{});
    return step / steps * K + a.CalculateOffset(ck::make_multi_index(0, 0, 0, step % steps, part, j));
#endif
}

template <typename G, int K, typename Weights, typename At>
void fill(std::vector<int>& found, int k, const Weights& weights, int waves, int steps, At at)
{
    constexpr auto last = ck::Number<Weights::GetNumOfDimension() - 1>{};
    const int in_step   = weights.GetLength(last);
    const int pack      = in_step / WAVE_LANES;
    for(int tile = 0; tile < waves; tile++)
        for(int step = 0; step < steps; step++)
            for(int i = 0; i < in_step; i++)
            {
                const int lane = i / pack;
                const int row  = tile * XDL + lane % XDL;
                found[row * k + depth_of<G, K>(step, lane / XDL, i % pack)] = at(tile, step, i);
            }
}

template <typename Op, int K, typename Make>
void reply(const Call& call, Make)
{
    using G = typename Op::GridwiseGemm64;
    std::vector<int> found(call.n * call.k, -1);
#ifdef CK_PLAIN_WEIGHTS
    const auto weights = G::MakeBGridDescriptor_BK0_N_BK1(
        call.k, call.k, call.n, call.n, call.k, G::CalculateBK0Padded(call.k));
    for(int row = 0; row < call.n; row++)
        for(int depth = 0; depth < call.k; depth++)
            found[row * call.k + depth] = weights.CalculateOffset(
                ck::make_multi_index(depth / G::BK1Number, row, depth % G::BK1Number));
#else
    const auto weights = G::MakeBGridDescriptor_Preshuffled(G::CalculateBN0Shuffled(call.n),
                                                            G::CalculateBK0Shuffled(call.k));
    const int tiles = call.n / XDL;
#ifdef CK_MX_OPERATION
    // Two tiles of rows that follow each other are one wave's (NXdlPack).
    const int waves = weights.GetLength(ck::Number<1>{});
    fill<G, K>(found, call.k, weights, tiles, weights.GetLength(ck::Number<3>{}),
               [&](int tile, int step, int i) {
                   return weights.CalculateOffset(ck::make_multi_index(
                       tile / 2 / waves, tile / 2 % waves, tile % 2, step, i));
               });
#else
    const int waves = weights.GetLength(ck::Number<1>{});
    fill<G, K>(found, call.k, weights, tiles, weights.GetLength(ck::Number<2>{}),
               [&](int tile, int step, int i) {
                   return weights.CalculateOffset(
                       ck::make_multi_index(tile / waves, tile % waves, step, i));
               });
#endif
#endif
    for(int index : found)
        std::printf("%d ", index);
    std::printf("\n");
}
