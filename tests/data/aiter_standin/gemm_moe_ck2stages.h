// Stands in for AITER's header of this name: as much of its interface as a blob directory
// uses, with kernels that only say who they are. Host-only, no CK, no torch.
#pragma once

#include <functional>
#include <stdexcept>
#include <string>

namespace at {
enum class ScalarType { Byte, Char, Int, Half, BFloat16, Float8, Float, Float4 };
}

inline std::string text(const char* x) { return x; }
inline std::string text(int x) { return std::to_string(x); }

template <typename... Parts>
[[noreturn]] void fail(const Parts&... parts)
{
    throw std::runtime_error((text(parts) + ...));
}

#define TORCH_CHECK(condition, ...) \
    do                              \
    {                               \
        if(!(condition))            \
            fail(__VA_ARGS__);      \
    } while(false)

// Sizes as in CK: tiles may be written in terms of them.
#define STANDIN_TYPE(Name, Storage, Scalar)                              \
    struct Name                                                          \
    {                                                                    \
        Storage value;                                                   \
        static constexpr const char* name = #Name;                       \
        static constexpr at::ScalarType scalar = at::ScalarType::Scalar; \
    }
STANDIN_TYPE(I4, char, Int);
STANDIN_TYPE(I8, char, Char);
STANDIN_TYPE(I32, int, Int);
STANDIN_TYPE(F16, short, Half);
STANDIN_TYPE(B16, short, BFloat16);
STANDIN_TYPE(F8, char, Float8);
STANDIN_TYPE(F32, int, Float);
STANDIN_TYPE(FP4X2, char, Float4);

#define STANDIN_OP(Name)                           \
    struct Name                                    \
    {                                              \
        static constexpr const char* name = #Name; \
    }
STANDIN_OP(TypeCast);
STANDIN_OP(TypeCastExpertWeight);
STANDIN_OP(MulABScale);
STANDIN_OP(MulABScaleWint4);
STANDIN_OP(MulABScaleShuffled);
STANDIN_OP(MulABScaleExpertWeight);
STANDIN_OP(MulABScaleExpertWeightWin4);
STANDIN_OP(MulABScaleExpertWeightShuffled);
STANDIN_OP(MulABScaleExpertWeightA8W8blkscale);
STANDIN_OP(MulABScaleExpertWeightA8W8blkscaleSplitk);

enum class PipelineVersion { v1 = 1, v3 = 3 };
const auto V1 = PipelineVersion::v1;
const auto V3 = PipelineVersion::v3;

enum class QuantType : int { No, per_Tensor, per_Token, per_1x32, per_1x128 };

template <typename T>
struct dtype_checker
{
    bool operator()(at::ScalarType t) { return t == T::scalar; }
};

using MoeKernel = std::function<void(std::string&)>;

#define STANDIN_PARAMETERS                                                              \
    typename A, typename B, typename Acc, typename E, typename Op, PipelineVersion Ver, \
        int Threads, int M, int N, int K, int MWaves, int NWaves, bool Nswizzle,        \
        bool PerTensor, bool Routed, int Act

template <STANDIN_PARAMETERS>
void ck_moe_stage1_gemm(std::string& who);
template <STANDIN_PARAMETERS>
void ck_moe_stage2_gemm(std::string& who);
