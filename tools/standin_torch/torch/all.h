// SPDX-License-Identifier: MIT
// Stand-in for torch's headers, as far as AITER's CK2stages instance files name them: types of
// tensors in host code. No device code depends on them, so that kernels can be compared on a
// machine without torch. Not used for timing: real headers cost seconds per translation unit.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

namespace c10 {
struct Half
{
};
struct BFloat16
{
};
} // namespace c10

namespace at {
enum class ScalarType
{
    Byte,
    Char,
    Int,
    Long,
    Half,
    BFloat16,
    Float,
    UInt32,
    Float8_e4m3fn,
    Float8_e4m3fnuz
};
} // namespace at

namespace torch {
inline constexpr auto kUInt8    = at::ScalarType::Byte;
inline constexpr auto kInt8     = at::ScalarType::Char;
inline constexpr auto kInt32    = at::ScalarType::Int;
inline constexpr auto kInt64    = at::ScalarType::Long;
inline constexpr auto kInt      = at::ScalarType::Int;
inline constexpr auto kHalf     = at::ScalarType::Half;
inline constexpr auto kFloat16  = at::ScalarType::Half;
inline constexpr auto kBFloat16 = at::ScalarType::BFloat16;
inline constexpr auto kFloat    = at::ScalarType::Float;
inline constexpr auto kFloat32  = at::ScalarType::Float;
inline constexpr auto kUInt32   = at::ScalarType::UInt32;
inline constexpr auto kFloat8_e4m3fn   = at::ScalarType::Float8_e4m3fn;
inline constexpr auto kFloat8_e4m3fnuz = at::ScalarType::Float8_e4m3fnuz;
struct Tensor
{
    at::ScalarType dtype() const { return kFloat; }
    at::ScalarType scalar_type() const { return kFloat; }
};
} // namespace torch

namespace caffe2 {
struct TypeMeta
{
    at::ScalarType toScalarType() const { return at::ScalarType::Float; }
};
} // namespace caffe2

#define TORCH_CHECK(CONDITION, ...) \
    do                              \
    {                               \
        if(!(CONDITION))            \
            throw std::runtime_error("TORCH_CHECK"); \
    } while(0)
