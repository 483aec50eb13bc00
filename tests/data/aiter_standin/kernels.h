// What the stand-in's kernels do, and the macros that instance files end with.
#pragma once

#include "gemm_moe_ck2stages.h"

template <int Stage, STANDIN_PARAMETERS>
std::string describe(const char* header)
{
    std::string who = std::to_string(Stage);
    for(const char* word : {header, A::name, B::name, Acc::name, E::name, Op::name})
        (who += ' ') += word;
    who += Ver == PipelineVersion::v1 ? " v1" : " v3";
    for(int number : {Threads, M, N, K, MWaves, NWaves, int(Nswizzle), int(PerTensor), int(Routed), Act})
        (who += ' ') += std::to_string(number);
    return who;
}

#define STANDIN_ARGUMENTS \
    A, B, Acc, E, Op, Ver, Threads, M, N, K, MWaves, NWaves, Nswizzle, PerTensor, Routed, Act

template <STANDIN_PARAMETERS>
void ck_moe_stage1_gemm(std::string& who)
{
    who = describe<1, STANDIN_ARGUMENTS>(STANDIN_HEADER);
}

template <STANDIN_PARAMETERS>
void ck_moe_stage2_gemm(std::string& who)
{
    who = describe<2, STANDIN_ARGUMENTS>(STANDIN_HEADER);
}

#define STANDIN_DEFINE(Stage, Threads, M, N, K, MWaves, NWaves, Ver)                             \
    template void ck_moe_stage##Stage##_gemm<A0DataType, B0DataType, AccDataType, EDataType,     \
                                             CDEElementOp, Ver, Threads, M, N, K, MWaves, NWaves, \
                                             Nswizzle, PerTensorQuant, MulRoutedWeight, ActOP>(  \
        std::string&);
#define CK_MOE_STAGE1_GEMM_DEFINE(...) STANDIN_DEFINE(1, __VA_ARGS__)
#define CK_MOE_STAGE2_GEMM_DEFINE(...) STANDIN_DEFINE(2, __VA_ARGS__)
